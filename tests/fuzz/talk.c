/*
 * Harness of fuzzers: an end of a socketpair that sends and listens
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fuzz.h"

bool fuzz_drain(int fd, bool wait)
{
    uint8_t buf[65536];
    ssize_t n;

    do {
        n = recv(fd, buf, sizeof(buf), wait ? 0 : MSG_DONTWAIT);
    } while (n > 0);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

bool fuzz_send_all(int fd, const uint8_t *data, size_t size, size_t step)
{
    while (size) {
        ssize_t n = send(fd, data, MIN(size, step),
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            data += n;
            size -= n;
        } else if (errno != EAGAIN) {
            return false;
        }
        if (fuzz_drain(fd, false)) {
            return false;
        }
    }
    return true;
}

void fuzz_send_input(int fd, const uint8_t *data, size_t size, bool bytewise)
{
    fuzz_send_all(fd, data, size, bytewise ? 1 : SIZE_MAX / 2);
    shutdown(fd, SHUT_WR);
    fuzz_drain(fd, true);
    close(fd);
}
