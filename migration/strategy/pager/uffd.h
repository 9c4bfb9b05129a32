/*
 * Remote pager: userfaultfd, one call a function
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * util/userfaultfd.c knows write protection for background snapshots only,
 * and reports failures to the log.  Here failures are ordinary (a page came
 * by another way, an event waits to be read), so they are returned as -errno.
 *
 * Any thread.
 */
#ifndef MIGRATION_STRATEGY_PAGER_UFFD_H
#define MIGRATION_STRATEGY_PAGER_UFFD_H

#include <linux/userfaultfd.h>

/*
 * pager_uffd_features: what the kernel has
 *
 * The error says which permission is missing, or since which Linux there is
 * what is needed.  UFFD_FEATURE_MOVE is not: see staging.h.
 */
bool pager_uffd_features(uint64_t *features, Error **errp);

/* pager_uffd_open: non-blocking, with @features; the caller closes it */
int pager_uffd_open(uint64_t features, Error **errp);

bool pager_uffd_register(int fd, void *host, size_t len, uint64_t mode,
                         Error **errp);
/* Wakes everybody who waits there; what is missing reads as zero from then */
int pager_uffd_unregister(int fd, void *host, size_t len);

/*
 * All of these return 0 or -errno: -EEXIST the page is there, -EAGAIN an
 * event has to be read first, -ENOENT or -EINVAL the range is not registered,
 * -ESRCH the process is exiting, -EBUSY (move) the page is pinned.  Those that
 * put a page somewhere wake who waits for it.
 *
 * copy, zero, protect: whatever else is wrong, such as no memory, is -EAGAIN,
 * too: the page is as it was.
 */
int pager_uffd_copy(int fd, void *dst, const void *src, bool wp);
int pager_uffd_zero(int fd, void *dst);
int pager_uffd_protect(int fd, void *host, size_t len, bool on);
int pager_uffd_wake(int fd, void *host, size_t len);
int pager_uffd_poison(int fd, void *host, size_t len);

/*
 * pager_uffd_move: take pages away from @src and put them at @dst
 *
 * @fd: that @dst is registered with
 *
 * Returns: number of pages moved, at least 1, or -errno.
 */
ssize_t pager_uffd_move(int fd, void *dst, void *src, size_t pages);

#endif
