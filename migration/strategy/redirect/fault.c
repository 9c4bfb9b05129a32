/*
 * Redirect: fault points, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error-report.h"
#include "fault.h"

/* Constant after redirect_fault_init() */
static char *fault_point;
static const char *fault_action;
/* Once is enough, also at a point that is passed many times; atomic */
static bool stopped;

void redirect_fault_init(void)
{
    fault_point = g_strdup(getenv("QEMU_MIGRATION_FAULT"));
    if (fault_point) {
        char *equals = strchr(fault_point, '=');

        fault_action = "fail";
        if (equals) {
            *equals = '\0';
            fault_action = equals + 1;
        }
    }
}

bool redirect_fault(const char *point)
{
    if (likely(!fault_point) || strcmp(point, fault_point)) {
        return false;
    }
    info_report("migration: fault point '%s': %s", point, fault_action);
    if (g_str_equal(fault_action, "exit")) {
        _exit(EXIT_FAILURE);
    }
#ifndef _WIN32
    if (g_str_equal(fault_action, "stop")) {
        if (!qatomic_xchg(&stopped, true)) {
            raise(SIGSTOP);
        }
        return false;
    }
#endif
    return true;
}
