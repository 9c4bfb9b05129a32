/*
 * Helpers for the tests of the RAM migration strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef STRATEGY_UTIL_H
#define STRATEGY_UTIL_H

#include "libqtest.h"
#include "qobject/qdict.h"
#include "migration/framework.h"

/* Bytes per second at which the first pass outlives everything else */
#define STRATEGY_SLOW   (3 * 1000 * 1000)
/* At which what is left of a pass outlives whatever is done meanwhile */
#define STRATEGY_CRAWL  (300 * 1000)
/* At which a pass takes a second or two, in which the guest surely writes */
#define STRATEGY_MEDIUM (64 * 1000 * 1000)
/* At which a pass takes no time worth mentioning */
#define STRATEGY_FAST   (1000 * 1000 * 1000)

/* Downtime limits, ms: nothing fits, everything fits */
#define STRATEGY_NOTHING_FITS 0
#define STRATEGY_ALL_FITS (30 * 1000)

/* A source and a destination, and how they are set up */
typedef struct StrategySetup {
    const char *strategy;       /* the parameter as JSON; NULL: not set */
    bool no_postcopy;           /* leave the capability off */
    bool preempt;               /* postcopy-preempt as well */
    bool pause;                 /* pause-before-switchover as well */
    bool xbzrle;                /* likewise */
    bool unix_sockets;          /* destinations listen there, not on tcp */
    bool no_vga;                /* nothing but zero pages is in its memory */
    void (*set_up)(QTestState *who, bool source);       /* the rest, or NULL */
    bool stopped;               /* the guest is stopped: it writes nothing */
    bool oob;                   /* for migrate-recover */
    bool hide_stderr;           /* errors are expected */
    int64_t bandwidth;          /* bytes per second, required */
    int64_t downtime;           /* ms */
} StrategySetup;

typedef struct StrategyGuests {
    StrategySetup setup;
    QTestState *from;
    QTestState *to;
} StrategyGuests;

/* What query-migrate should say of the strategy at the end */
typedef struct StrategyExpect {
    const char *mode;           /* NULL: it should say nothing */
    uint64_t passes_min;
    uint64_t passes_max;
    const char *switch_reason;  /* NULL: it should not have switched */
    const char *verdict;        /* of the forecast; NULL: there is none */
} StrategyExpect;

/*
 * strategy_start: start both, the destination listening, the guest alive
 *
 * False when the test was skipped.
 */
bool strategy_start(StrategyGuests *g, const StrategySetup *setup);

/* strategy_replace_destination: a new one, as the first was set up */
void strategy_replace_destination(StrategyGuests *g);

/*
 * strategy_add_destination: one more, which g->to is then; the one before is
 * the caller's
 */
void strategy_add_destination(StrategyGuests *g);

/* strategy_listen: let a destination wait for a migration (again) */
void strategy_listen(StrategyGuests *g, QTestState *who);

/* strategy_migrate: give the command */
void strategy_migrate(StrategyGuests *g);

/*
 * strategy_migrate_busily: give the command, and return when the guest has
 * written again to what was sent already, so that passes cannot end clean
 */
void strategy_migrate_busily(StrategyGuests *g);

/* strategy_speed: set bandwidth and downtime limit of the source */
void strategy_speed(StrategyGuests *g, int64_t bandwidth, int64_t downtime);

/* strategy_stop: the user stops the guest at the source */
void strategy_stop(StrategyGuests *g);

/*
 * strategy_cont: continue the guest at the destination if its user stopped it
 *
 * Fails when it was not stopped there all the time.
 */
void strategy_cont(StrategyGuests *g);

/* strategy_finish: wait until all is over, check the memory, quit both */
void strategy_finish(StrategyGuests *g);

/* strategy_quit: quit both without a look at the memory */
void strategy_quit(StrategyGuests *g);

/* strategy_set: set the parameter, given as JSON */
void strategy_set(QTestState *who, const char *json);

/*
 * strategy_wait_status: wait for a state of the migration
 *
 * Fails at once in a final state other than this one.
 */
void strategy_wait_status(QTestState *who, const char *status);

/*
 * strategy_wait_cancelled: wait until a cancellation is over
 *
 * QEMU 10.0 closes the return path before it notes that somebody cancelled, so
 * that a thread which sees the first before the second reports a failure.
 */
void strategy_wait_cancelled(QTestState *who);

/* strategy_wait_passes: wait until that many passes are reported */
void strategy_wait_passes(QTestState *who, uint64_t passes);

/*
 * strategy_wait_sent: wait until so much of the first pass is sent
 *
 * Lowers max-bandwidth the less is left, so that the pass is not over before
 * the caller has seen where it is, and done what it wants to do then.
 */
void strategy_wait_sent(QTestState *who, unsigned percent);

/* strategy_wait_mid_pass_sync: wait until the log was read in mid-pass */
void strategy_wait_mid_pass_sync(QTestState *who);

/* strategy_wait_running: wait until the guest runs */
void strategy_wait_running(QTestState *who);

/*
 * strategy_wait_beats: wait for more signs of life of the guest
 *
 * @serial: "src_serial" or "dest_serial"
 *
 * Between two of them the guest has gone over its memory many times.
 */
void strategy_wait_beats(const char *serial, unsigned beats);

/* strategy_still_there: the guest runs at the source, and makes progress */
void strategy_still_there(StrategyGuests *g);

/* strategy_info: the member of query-migrate, or NULL; the caller owns it */
QDict *strategy_info(QTestState *who);

/* strategy_check_source, _destination: does query-migrate say this? */
void strategy_check_source(QTestState *who, const StrategyExpect *expect);
void strategy_check_destination(QTestState *who, const StrategyExpect *expect);

/* strategy_ram: a figure of query-migrate's member ram */
int64_t strategy_ram(QTestState *who, const char *member);

/*
 * strategy_firmware_create: a file for -bios that starts the boot sector
 *
 * The caller owns the path.
 */
char *strategy_firmware_create(void);
void strategy_firmware_delete(void);

/* The files of tests */
void strategy_add_modes(MigrationTestEnv *env);
void strategy_add_background(void);
void strategy_add_parameters(void);
void strategy_add_refusals(void);
void strategy_add_cancel(void);
void strategy_add_failure(void);
void strategy_add_recovery(void);
void strategy_add_delta(void);
void strategy_add_redirect(void);
void strategy_add_redirect_refusals(void);
void strategy_add_redirect_faults(void);
void strategy_add_redirect_hangs(void);
void strategy_add_redirect_figures(void);
void strategy_add_redirect_cancel(void);
void strategy_add_split(void);

#endif
