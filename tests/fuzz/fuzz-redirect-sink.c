/*
 * Fuzzer: the sink of a redirect over a socketpair
 *
 * Input: a first byte of choices, then what a relay sends.  The sink must not
 * crash or write beyond its blocks, must report each page that it took once
 * and no other, in messages that the source accepts, and must end when it is
 * told to.
 *
 * Bit 0: HELLO comes from the harness, so that the fuzzer need not find it
 * Bit 1: and both blocks are there
 * Bit 2: everything is sent byte by byte
 * Bit 3: the source has sent some pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "migration/memserver/codec.h"
#include "migration/strategy/redirect/owed.h"
#include "migration/strategy/redirect/sink.h"
#include "fuzz.h"

#define RAM_PAGES   128
#define ROM_PAGES   3

static RedirectBlock block_table[] = {
    { "ram", RAM_PAGES }, { "rom", ROM_PAGES },
};
static const RedirectBlocks blocks = {
    .block = block_table, .n = 2, .expected = 2
};
static uint8_t *memory[2];
static uint64_t reported;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    module_call_init(MODULE_INIT_QOM);
    signal(SIGPIPE, SIG_IGN);
    /* Allocations of their own, so that a write beyond them is seen */
    memory[0] = g_malloc0(RAM_PAGES * PAGELINK_PAGE_SIZE);
    memory[1] = g_malloc0(ROM_PAGES * PAGELINK_PAGE_SIZE);
    return 0;
}

static void on_report(const void *buf, size_t len, void *opaque)
{
    RedirectRp rp;

    assert(len <= REDIRECT_RP_MAX_LEN);
    redirect_rp_decode(&rp, &blocks, buf, len, &error_abort);
    if (rp.type == REDIRECT_RP_HAVE) {
        qatomic_add(&reported, redirect_owed_have(opaque, &rp.have));
    }
}

static void send_opening(int fd, const RedirectSession *session,
                         unsigned choices)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkHello)];
    PageLinkHello hello = {
        .version_min = 1, .version_max = 1, .role = PAGELINK_ROLE_OWNER,
        .class = PAGELINK_CLASS_BACKGROUND, .epoch = session->number,
    };

    memcpy(hello.uuid, session->uuid, sizeof(hello.uuid));
    memcpy(hello.key, session->key, sizeof(hello.key));
    pagelink_encode_header(buf, PAGELINK_HELLO, 0, sizeof(hello), 0, 1);
    pagelink_encode_hello(buf + sizeof(PageLinkHeader), &hello);
    fuzz_send_all(fd, buf, sizeof(buf), sizeof(buf));
    for (unsigned i = 0; i < 2 && choices & 2; i++) {
        uint32_t length = pagelink_encode_block(buf + sizeof(PageLinkHeader),
                                                i, block_table[i].pages,
                                                block_table[i].name);

        pagelink_encode_header(buf, PAGELINK_BLOCK, 0, length, 0, 2);
        fuzz_send_all(fd, buf, sizeof(PageLinkHeader) + length, sizeof(buf));
    }
}

/* All pages are owed */
static RedirectOwed *owe_all(void)
{
    static const unsigned long none[RAM_PAGES / BITS_PER_LONG];
    RedirectOwed *owed = redirect_owed_new(&blocks);

    redirect_owed_set_clean(owed, 0, none);
    redirect_owed_set_clean(owed, 1, none);
    return owed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Those of the seeds, see make-memserver-corpus */
    RedirectSession session = { .number = 1 };
    RedirectSinkOptions o = {
        .blocks = &blocks, .report = on_report,
    };
    RedirectMergeCounts counts;
    QIOChannelSocket *sioc;
    RedirectSink *sink;
    int fds[2];

    if (!size || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        return 0;
    }
    memset(session.uuid, 'u', sizeof(session.uuid));
    memset(session.key, 'k', sizeof(session.key));
    o.session = session;
    o.merge = redirect_merge_new();
    o.opaque = owe_all();
    reported = 0;
    for (unsigned i = 0; i < 2; i++) {
        redirect_merge_add(o.merge, memory[i], block_table[i].pages);
    }
    for (uint64_t page = 0; page < RAM_PAGES && data[0] & 8; page += 3) {
        redirect_merge_source(o.merge, redirect_merge_region(o.merge, 0),
                              page);
    }
    sink = redirect_sink_new(&o, &error_abort);
    sioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    redirect_sink_add_channel(sink, sioc);
    object_unref(OBJECT(sioc));
    if (data[0] & 1) {
        send_opening(fds[1], &session, data[0]);
    }
    fuzz_send_input(fds[1], data + 1, size - 1, data[0] & 4);
    redirect_sink_free(sink);
    redirect_merge_counts(o.merge, &counts);
    assert(counts.relay == qatomic_read(&reported));
    redirect_merge_free(o.merge);
    redirect_owed_free(o.opaque);
    return 0;
}
