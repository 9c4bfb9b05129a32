/*
 * Remote pager: userfaultfd, one call a function (see uffd.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/userfaultfd.h"
#include "migration/pagelink.h"
#include "uffd.h"

static void open_failed(Error **errp)
{
    int err = errno;

    if (err == EPERM || err == EACCES) {
        error_setg_errno(errp, err, "split memory needs userfaultfd with "
                         "faults of the kernel");
        error_append_hint(errp, "Let QEMU's user read and write "
                          "/dev/userfaultfd (Linux 6.1), or set the sysctl "
                          "vm.unprivileged_userfaultfd to 1, or give QEMU "
                          "CAP_SYS_PTRACE.\n");
    } else {
        error_setg_errno(errp, err, "split memory needs userfaultfd");
    }
}

bool pager_uffd_features(uint64_t *features, Error **errp)
{
    const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                            UFFD_FEATURE_EVENT_REMOVE |
                            UFFD_FEATURE_THREAD_ID;
    int fd = uffd_open(O_CLOEXEC);
    struct uffdio_api api = { .api = UFFD_API };
    int ret;

    if (fd < 0) {
        open_failed(errp);
        return false;
    }
    ret = ioctl(fd, UFFDIO_API, &api);
    close(fd);
    if (ret) {
        error_setg_errno(errp, errno, "userfaultfd does not speak our "
                         "interface");
        return false;
    }
    if ((api.features & needed) != needed) {
        error_setg(errp, "split memory needs a kernel whose userfaultfd can "
                   "write-protect pages: Linux 5.7 or later");
        return false;
    }
    *features = api.features;
    return true;
}

int pager_uffd_open(uint64_t features, Error **errp)
{
    struct uffdio_api api = { .api = UFFD_API, .features = features };
    int fd = uffd_open(O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        open_failed(errp);
        return -1;
    }
    if (ioctl(fd, UFFDIO_API, &api)) {
        error_setg_errno(errp, errno, "userfaultfd lacks one of the features "
                         "0x%" PRIx64, features);
        close(fd);
        return -1;
    }
    return fd;
}

bool pager_uffd_register(int fd, void *host, size_t len, uint64_t mode,
                         Error **errp)
{
    struct uffdio_register reg = {
        .range = { (uintptr_t)host, len }, .mode = mode
    };

    if (ioctl(fd, UFFDIO_REGISTER, &reg)) {
        error_setg_errno(errp, errno, "cannot register %zu bytes of memory "
                         "with userfaultfd", len);
        return false;
    }
    return true;
}

static int call(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, request, arg) ? -errno : 0;
}

int pager_uffd_unregister(int fd, void *host, size_t len)
{
    struct uffdio_range range = { (uintptr_t)host, len };

    return call(fd, UFFDIO_UNREGISTER, &range);
}

/*
 * Only what says that the range is gone is told as it is.  Of what is left,
 * ENOMEM above all (the memory cgroup is full, and nobody there may be
 * killed), nothing says that the page is not wanted any more.
 */
static int call_on_page(int fd, unsigned long request, void *arg)
{
    int ret = call(fd, request, arg);

    switch (ret) {
    case 0:
    case -EEXIST:
    case -EAGAIN:
    case -ENOENT:
    case -EINVAL:
    case -ESRCH:
        return ret;
    default:
        warn_report_once("split memory: a page cannot be put in place, which "
                         "is tried again: %s", strerror(-ret));
        return -EAGAIN;
    }
}

int pager_uffd_copy(int fd, void *dst, const void *src, bool wp)
{
    struct uffdio_copy copy = {
        .dst = (uintptr_t)dst, .src = (uintptr_t)src,
        .len = PAGELINK_PAGE_SIZE, .mode = wp ? UFFDIO_COPY_MODE_WP : 0,
    };

    return call_on_page(fd, UFFDIO_COPY, &copy);
}

int pager_uffd_zero(int fd, void *dst)
{
    struct uffdio_zeropage zero = {
        .range = { (uintptr_t)dst, PAGELINK_PAGE_SIZE },
    };

    return call_on_page(fd, UFFDIO_ZEROPAGE, &zero);
}

int pager_uffd_protect(int fd, void *host, size_t len, bool on)
{
    struct uffdio_writeprotect wp = {
        .range = { (uintptr_t)host, len },
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };

    return call_on_page(fd, UFFDIO_WRITEPROTECT, &wp);
}

int pager_uffd_wake(int fd, void *host, size_t len)
{
    struct uffdio_range range = { (uintptr_t)host, len };

    return call(fd, UFFDIO_WAKE, &range);
}

int pager_uffd_poison(int fd, void *host, size_t len)
{
    struct uffdio_poison poison = { .range = { (uintptr_t)host, len } };

    return call(fd, UFFDIO_POISON, &poison);
}

ssize_t pager_uffd_move(int fd, void *dst, void *src, size_t pages)
{
    struct uffdio_move move = {
        .dst = (uintptr_t)dst, .src = (uintptr_t)src,
        .len = pages * PAGELINK_PAGE_SIZE,
    };

    if (!ioctl(fd, UFFDIO_MOVE, &move)) {
        return pages;
    }
    return move.move > 0 ? move.move / PAGELINK_PAGE_SIZE : -errno;
}
