/*
 * Sender: the thread that brings pages to one memory host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guarantees: what is pushed arrives in that order, and is read from where
 * it lies when it is sent; split_sender_push() never waits, and the waits
 * return within the time they are given, whatever the memory host does; once
 * split_sender_close() has returned, no memory that was pushed is read any
 * more.  A memory host that is silent is noticed within some seconds and the
 * timeout, even if there is nothing to send.
 *
 * One thread pushes (the migration thread); split_sender_stats() and
 * split_sender_yank() are for any thread.  The sender's own thread takes
 * neither the BQL nor RCU: who pushes keeps the memory there.
 *
 * Rejected: threads that share a queue (a page's versions would overtake each
 * other); sending from the migration thread (one slow memory host would hold
 * up all others); copies of the pages (the guest may change a page while it
 * is sent: then it is dirty, and is sent again).
 */
#ifndef MIGRATION_STRATEGY_SPLIT_SENDER_H
#define MIGRATION_STRATEGY_SPLIT_SENDER_H

#include "crypto/tlscreds.h"
#include "layout.h"

/* Pages that should wait for one memory host, at most: 8 MiB */
#define SPLIT_SENDER_QUEUE      2048
/* Pages in a message */
#define SPLIT_SENDER_BATCH      128

typedef struct SplitSender SplitSender;

typedef struct SplitEntry {
    uint64_t page;
    uint64_t version;
    const void *data;           /* NULL: the host is to forget the page */
    uint16_t block;
} SplitEntry;

typedef enum SplitSenderState {
    SPLIT_SENDER_CONNECTING,
    SPLIT_SENDER_READY,         /* the session is there, blocks are known */
    SPLIT_SENDER_FAILED,        /* for good; see split_sender_error() */
} SplitSenderState;

typedef struct SplitSenderStats {
    uint64_t pages;             /* sent */
    uint64_t dropped;
    uint64_t bytes;             /* of both, headers included */
    uint64_t acked;             /* of these, what the host has taken in */
    double rate;                /* of the link, bytes per second; 0: unknown */
    uint64_t queued;            /* entries not sent yet */
} SplitSenderStats;

/*
 * split_sender_new: start to connect to host @host of @s
 *
 * @s: with uuid, key, epoch, and blocks; copied
 * @creds: or NULL; a reference is taken
 * @name: of the VM, for displays at the memory host, or NULL
 * @timeout_ms: how long no byte may move; 0: PAGELINK_CLIENT_TIMEOUT_MS
 */
SplitSender *split_sender_new(const SplitSetup *s, unsigned host,
                              QCryptoTLSCreds *creds, const char *name,
                              int timeout_ms);

/*
 * split_sender_wait: until it is connected, or has failed, or @ms are over
 */
SplitSenderState split_sender_wait(SplitSender *s, int ms);

/* split_sender_free_pages: what the host said it could store, in pages */
uint64_t split_sender_free_pages(SplitSender *s);

/* split_sender_error: why it has failed; the caller owns the copy, or NULL */
Error *split_sender_error(SplitSender *s);

typedef enum SplitSenderResult {
    SPLIT_SENDER_DONE,
    SPLIT_SENDER_LATER,         /* not within the time */
    SPLIT_SENDER_ERROR,         /* see split_sender_error() */
} SplitSenderResult;

/*
 * split_sender_has_room: should @n entries be pushed now?
 *
 * Also if it has failed, so that whoever pushes finds out.
 */
bool split_sender_has_room(SplitSender *s, unsigned n);

/*
 * split_sender_push: queue @e, even if there should not be room
 *
 * Returns false if the sender has failed; see split_sender_error().
 */
bool split_sender_push(SplitSender *s, const SplitEntry *e);

/*
 * split_sender_sync: has all that was pushed taken effect?
 *
 * The first call orders the memory host to acknowledge; further calls wait
 * for it.  To push between them starts anew.
 */
SplitSenderResult split_sender_sync(SplitSender *s, int ms);

/*
 * split_sender_drain: wait until no more than @pages are queued
 */
SplitSenderResult split_sender_drain(SplitSender *s, uint64_t pages, int ms);

/*
 * split_sender_wait_acked: wait until nothing is queued or under way
 *
 * Unlike split_sender_sync() it asks for nothing: a sender without anything
 * to send asks by itself.
 */
SplitSenderResult split_sender_wait_acked(SplitSender *s, int ms);

void split_sender_stats(SplitSender *s, SplitSenderStats *stats);

/* split_sender_yank: let it fail now */
void split_sender_yank(SplitSender *s);

/*
 * split_sender_close: done with it
 *
 * @end: end the session at the memory host, even one that the destination
 *       has taken over; in the background, as far as the host can be
 *       reached.  Otherwise the session stays.
 *
 * Does not wait for the network.
 */
void split_sender_close(SplitSender *s, bool end);

/*
 * split_sender_running: threads that are not done yet
 *
 * For tests: after split_sender_close() they go on for a while.
 */
unsigned split_sender_running(void);

#endif
