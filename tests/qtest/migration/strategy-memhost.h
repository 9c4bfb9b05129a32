/*
 * Memory hosts for the tests of split memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef STRATEGY_MEMHOST_H
#define STRATEGY_MEMHOST_H

/* A qemu-memserver of its own process */
typedef struct MemHost {
    char *path;                 /* of its socket */
    char *uri;
    GPid pid;                   /* 0: not running */
} MemHost;

/* memhost_program: the path of qemu-memserver */
const char *memhost_program(void);

/* memhost_available: is the program there?  Skips the test if not. */
bool memhost_available(void);

/*
 * memhost_start: returns when it can be connected to
 *
 * @megabytes: what it may store
 * @options: more of its options, NULL-terminated, or NULL
 */
void memhost_start(MemHost *h, unsigned megabytes, const char *const *options);

/* memhost_kill: end it at once; memhost_start() may be called again */
void memhost_kill(MemHost *h);

/* memhost_signal: SIGSTOP, SIGCONT */
void memhost_signal(MemHost *h, int sig);

/* memhost_sessions: how many it has now */
unsigned memhost_sessions(MemHost *h);

/* memhost_wait_sessions: until it has that many */
void memhost_wait_sessions(MemHost *h, unsigned n);

/*
 * memhost_wait_pages: until it stores at least @n pages with data
 *
 * A page that was all zeroes when it was saved is not among them.
 */
void memhost_wait_pages(MemHost *h, uint64_t n);

#endif
