/*
 * Remote pager: what pager.c and its monitor commands share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_PAGER_INT_H
#define MIGRATION_STRATEGY_PAGER_INT_H

#include "engine.h"
#include "pager.h"

/* Main thread, BQL; NULL while not attached */
PagerEngine *pager_engine(void);
const SplitSetup *pager_setup(void);
/* All is gathered, but the servers do not know yet.  Main thread, BQL. */
bool pager_leaving(void);
/* RAM that is not managed, bytes */
uint64_t pager_unmanaged(void);

/* monitor.c */
void pager_monitor_init(void);

#endif
