/*
 * Fuzzer: the real server over a socketpair
 *
 * Input: a first byte of choices, then what a client sends.  The server must
 * not crash, must close the connection once the client has, and must be able to
 * give back every page frame when it is stopped.
 *
 * Bit 0: HELLO comes from the harness, so that the fuzzer need not find it
 * Bit 1: it offers checksums
 * Bit 2: and a block is there
 * Bit 3: everything is sent byte by byte
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "migration/memserver/codec.h"
#include "migration/memserver/server.h"
#include "fuzz.h"

/* A new one for each input, so that a find can be repeated */
static MsServer *start(void)
{
    MsServerOptions o;

    ms_server_defaults(&o);
    o.max_pages = 4096;
    o.session_quota = 2048;
    o.threads = 1;
    return ms_server_new(&o, &error_abort);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    module_call_init(MODULE_INIT_QOM);
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

static void send_opening(int fd, unsigned choices)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkHello)];
    PageLinkHello hello = {
        .version_min = 1, .version_max = 1, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_DEMAND, .flags = PAGELINK_HELLO_CREATE,
        .epoch = 1, .features = choices >> 1 & 1, .uuid = "fuzz",
    };
    uint32_t length;

    pagelink_encode_header(buf, PAGELINK_HELLO, 0, sizeof(hello), 0, 1);
    pagelink_encode_hello(buf + sizeof(PageLinkHeader), &hello);
    fuzz_send_all(fd, buf, sizeof(buf), sizeof(buf));
    if (choices & 4) {
        length = pagelink_encode_block(buf + sizeof(PageLinkHeader), 0, 1024,
                                       "ram");
        pagelink_encode_header(buf, PAGELINK_BLOCK, 0, length, 0, 2);
        fuzz_send_all(fd, buf, sizeof(PageLinkHeader) + length, sizeof(buf));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    QIOChannelSocket *sioc;
    MsServer *server;
    int fds[2];

    if (!size || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        return 0;
    }
    server = start();
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    ms_server_add_channel(server, sioc);
    object_unref(OBJECT(sioc));
    if (data[0] & 1) {
        send_opening(fds[1], data[0]);
    }
    fuzz_send_input(fds[1], data + 1, size - 1, data[0] & 8);
    /* Fails an assertion if a frame or a charge is left over */
    ms_server_free(server);
    return 0;
}
