/*
 * Leave Nagle's algorithm on in a QEMU that is started with this in
 * LD_PRELOAD, as it is in a QEMU that does not turn it off
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    static int (*next)(int, int, int, const void *, socklen_t);

    if (level == IPPROTO_TCP && name == TCP_NODELAY) {
        return 0;
    }
    if (!next) {
        next = (int (*)(int, int, int, const void *, socklen_t))
               dlsym(RTLD_NEXT, "setsockopt");
    }
    return next(fd, level, name, value, len);
}
