/*
 * Meter of the rate at which a pass is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pure library, like forecast.h; a meter belongs to one thread.
 *
 * The rate of a pass is the byte-weighted median of its windows: the rate
 * at which the median byte went out.  A plain average is pulled down by
 * stretches of zero pages, which cost time and no bytes; the maximum is
 * pulled up by the burst that fills the socket buffers.  Neither carries
 * many bytes, so neither moves the weighted median.
 */
#ifndef MIGRATION_STRATEGY_METER_H
#define MIGRATION_STRATEGY_METER_H

/* Windows remembered: the last 51 s at 100 ms each */
#define METER_WINDOWS 512

typedef struct MeterWindow {
    double rate;                /* bytes per second */
    double bytes;
} MeterWindow;

typedef struct Meter {
    MeterWindow windows[METER_WINDOWS];
    unsigned count;             /* windows added since meter_reset() */
} Meter;

/* meter_reset: start anew, at the start of a pass */
void meter_reset(Meter *m);

/* meter_add: @bytes went out in @seconds; an empty window is ignored */
void meter_add(Meter *m, double bytes, double seconds);

/* meter_rate: the rate of the pass in bytes per second, 0 if unknown */
double meter_rate(const Meter *m);

#endif
