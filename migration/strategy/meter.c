/*
 * Meter of the rate at which a pass is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "meter.h"

void meter_reset(Meter *m)
{
    m->count = 0;
}

void meter_add(Meter *m, double bytes, double seconds)
{
    if (bytes <= 0 || seconds <= 0) {
        return;
    }
    m->windows[m->count++ % METER_WINDOWS] = (MeterWindow) {
        .rate = bytes / seconds,
        .bytes = bytes,
    };
}

static int compare_rates(const void *a, const void *b)
{
    double x = ((const MeterWindow *)a)->rate;
    double y = ((const MeterWindow *)b)->rate;

    return (x > y) - (x < y);
}

double meter_rate(const Meter *m)
{
    unsigned n = MIN(m->count, METER_WINDOWS);
    g_autofree MeterWindow *sorted = NULL;
    double total = 0, below = 0;

    if (!n) {
        return 0;
    }
    sorted = g_memdup2(m->windows, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_rates);
    for (unsigned i = 0; i < n; i++) {
        total += sorted[i].bytes;
    }
    for (unsigned i = 0; i < n; i++) {
        below += sorted[i].bytes;
        if (below * 2 >= total) {
            return sorted[i].rate;
        }
    }
    return sorted[n - 1].rate;
}
