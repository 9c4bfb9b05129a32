/*
 * The XBZRLE cache of the running migration, when it is sized by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_DELTA_CACHE_H
#define MIGRATION_STRATEGY_DELTA_CACHE_H

/* delta_cache_begin: a migration is about to start; main thread, BQL */
void delta_cache_begin(void);

/*
 * delta_cache_pass_end: resize the cache for the next pass if need be
 *
 * Migration thread, BQL, after the dirty log was read.  True if it was
 * resized, so that the next pass only fills it.
 */
bool delta_cache_pass_end(void);

#endif
