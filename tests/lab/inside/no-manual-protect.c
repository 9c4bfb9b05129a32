/*
 * Hide KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 from a QEMU that is started with
 * this in LD_PRELOAD
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU has no switch for it: it uses the capability whenever the kernel has
 * it.  Kernels before Linux 5.3 are the hosts that this stands in for.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/ioctl.h>

int ioctl(int fd, unsigned long request, ...)
{
    static int (*next)(int, unsigned long, ...);
    void *argument;
    va_list ap;

    va_start(ap, request);
    argument = va_arg(ap, void *);
    va_end(ap);
    if (request == KVM_CHECK_EXTENSION &&
        (uintptr_t)argument == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
        return 0;
    }
    if (!next) {
        next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    }
    return next(fd, request, argument);
}
