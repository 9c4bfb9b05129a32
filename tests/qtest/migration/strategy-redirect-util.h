/*
 * Helpers for the tests of redirect: more than two QEMUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To the source and the destination of strategy-util.h come destinations of
 * before.  All destinations write the same serial file, but only the last one
 * ever runs the guest.
 */
#ifndef STRATEGY_REDIRECT_UTIL_H
#define STRATEGY_REDIRECT_UTIL_H

#include "migration/strategy-util.h"

#define REDIRECT_MAX_HOSTS 4

typedef struct RedirectGuests {
    StrategyGuests g;           /* source, and where the migration goes */
    QTestState *host[REDIRECT_MAX_HOSTS];       /* all destinations */
    unsigned hosts;
    unsigned at;                /* g.to is host[at] */
} RedirectGuests;

/* QEMU_MIGRATION_FAULT of each, or NULL */
typedef struct RedirectFaults {
    const char *source;
    const char *host[REDIRECT_MAX_HOSTS];
} RedirectFaults;

/*
 * redirect_start: start the source and all destinations
 *
 * @faults: NULL for none
 *
 * False when the test was skipped.
 */
bool redirect_start(RedirectGuests *r, const StrategySetup *setup,
                    unsigned hosts, const RedirectFaults *faults);

/*
 * redirect_start_silent: likewise, and migrate slowly to host[0]; host[1] stops
 * as soon as it has the set-up of a redirect, without an answer
 */
bool redirect_start_silent(RedirectGuests *r, unsigned hosts);

/* redirect_to: let r->g.to be host[@to] */
void redirect_to(RedirectGuests *r, unsigned to);

/* redirect_order: redirect to host[@to], which is r->g.to then; succeeds */
void redirect_order(RedirectGuests *r, unsigned to);

/* redirect_refused: give the command; it fails, and the error has @names */
void redirect_refused(RedirectGuests *r, const char *uri, const char *names);

/*
 * redirect_wait_relayed: wait until the part of an old destination is over
 *
 * @status: how, or NULL for any way
 *
 * It is then as if no migration had come in.
 */
void redirect_wait_relayed(QTestState *old, const char *status);

/* redirect_wait_error: wait until query-migrate shows why one failed */
void redirect_wait_error(QTestState *who);

/* redirect_wait_stopped: wait until it has come to a fault point "=stop" */
void redirect_wait_stopped(QTestState *who);

/* redirect_wait_figure: wait until a figure is there, and not 0 */
void redirect_wait_figure(QTestState *who, const char *member);

/* redirect_info: the figures; the caller owns them; NULL: there are none */
QDict *redirect_info(QTestState *who);

/* redirect_finish: as strategy_finish(); quits the old destinations, too */
void redirect_finish(RedirectGuests *r);

/*
 * redirect_x509_set_up: TLS with certificates, which the first call makes;
 * built only with CONFIG_TASN1, like the next
 * redirect_x509_clean: remove them
 */
void redirect_x509_set_up(QTestState *who, bool source);
void redirect_x509_clean(void);

/* redirect_quit: quit all without a look at the memory */
void redirect_quit(RedirectGuests *r);

#endif
