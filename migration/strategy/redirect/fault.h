/*
 * Redirect: fault points, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The environment variable QEMU_MIGRATION_FAULT, read once at start-up, names
 * one point and what shall happen there: "POINT=ACTION", with ACTION
 *
 *   fail   what is tried there fails
 *   exit   this QEMU dies
 *   stop   this QEMU stops until SIGCONT, the first time only
 *
 * docs/devel/migration/redirect.rst lists the points.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_FAULT_H
#define MIGRATION_STRATEGY_REDIRECT_FAULT_H

/* redirect_fault_init: once, before the others */
void redirect_fault_init(void);

/* redirect_fault: shall what is tried at @point fail?  Any thread. */
bool redirect_fault(const char *point);

#endif
