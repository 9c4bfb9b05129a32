/*
 * memserver: accounts of pages
 *
 * How many frames are spoken for, and how many may be.  Accounts form a chain:
 * a session's account (its quota) has the server's (--max-memory) as parent,
 * and a charge must fit into all of them.  Pages are charged before they are
 * accepted; bookkeeping that a peer can make us allocate (leaves, nodes, block
 * tables) is charged like pages.
 *
 * Guarantees: no charge is accepted that exceeds a limit, whatever the threads
 * do.  Lock-free.
 *
 * A frame is charged until nobody holds it any more.  One that is replaced
 * while it is being sent (at most PAGELINK_MAX_DATA_BATCH for each connection)
 * is charged beside its successor even beyond the limit: otherwise a slow
 * reader could keep the owner from writing.  Not charged is the one frame that
 * each connection may be receiving in place of one that is there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_ACCOUNT_H
#define MEMSERVER_ACCOUNT_H

#include "qemu/atomic.h"

typedef struct MsAccount MsAccount;
struct MsAccount {
    MsAccount *parent;          /* constant, or NULL */
    uint64_t limit;             /* constant; UINT64_MAX: none */
    uint64_t used;              /* atomic */
};

/**
 * ms_account_charge: all of @pages or nothing
 * @culprit: set to the account whose limit is in the way, if false is returned
 */
static inline bool ms_account_charge(MsAccount *account, uint64_t pages,
                                     MsAccount **culprit)
{
    MsAccount *a, *b;

    for (a = account; a; a = a->parent) {
        uint64_t old = qatomic_read(&a->used);

        for (;;) {
            uint64_t seen;

            if (old > a->limit || pages > a->limit - old) {
                *culprit = a;
                for (b = account; b != a; b = b->parent) {
                    qatomic_sub(&b->used, pages);
                }
                return false;
            }
            seen = qatomic_cmpxchg(&a->used, old, old + pages);
            if (seen == old) {
                break;
            }
            old = seen;
        }
    }
    return true;
}

/**
 * ms_account_overdraw: charge in any case, beyond the limit if need be
 */
static inline void ms_account_overdraw(MsAccount *account, uint64_t pages)
{
    for (; account; account = account->parent) {
        qatomic_add(&account->used, pages);
    }
}

/**
 * ms_account_release: give back what was charged
 */
static inline void ms_account_release(MsAccount *account, uint64_t pages)
{
    for (; account; account = account->parent) {
        qatomic_sub(&account->used, pages);
    }
}

/**
 * ms_account_room: pages that could be charged at this moment
 */
static inline uint64_t ms_account_room(MsAccount *account)
{
    uint64_t room = UINT64_MAX;

    for (; account; account = account->parent) {
        uint64_t used = qatomic_read(&account->used);

        room = MIN(room, used < account->limit ? account->limit - used : 0);
    }
    return room;
}

#endif /* MEMSERVER_ACCOUNT_H */
