/*
 * Size of the XBZRLE cache, chosen from the dirty set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * xbzrle-cache-size 0 means "sized by itself".  The cache is direct-mapped
 * and its pages are allocated as they are used, so what counts is that the
 * pages which are sent again and again do not push each other out: twice
 * the dirty set, rounded up to a power of two, is aimed at, within a bound.
 * A resize empties the cache (every page of the next pass then goes out in
 * full once), so the cache grows only when the dirty set no longer fits,
 * and never shrinks during a migration.
 *
 * After Svärd et al., "Evaluation of delta compression techniques for
 * efficient live migration of large virtual machines", VEE 2011, whose
 * cache had to be given a size by hand.
 */
#ifndef MIGRATION_STRATEGY_DELTA_H
#define MIGRATION_STRATEGY_DELTA_H

/* The cache is never grown past 1/DELTA_HOST_SHARE of the host's memory */
#define DELTA_HOST_SHARE 8

/*
 * delta_bound: the largest cache that may be used, in bytes, a power of 2
 *
 * @ram: guest RAM, bytes
 * @host: physical memory of the host in bytes, 0 if unknown
 * @page: target page size, the smallest answer
 */
uint64_t delta_bound(uint64_t ram, uint64_t host, uint64_t page);

/*
 * delta_cache_size: the size for the next pass, in bytes, a power of 2
 *
 * @current: size in use, a power of 2
 * @dirty: bytes that are dirty after the pass that just ended
 * @bound: as delta_bound() says; @current is kept when it is larger
 */
uint64_t delta_cache_size(uint64_t current, uint64_t dirty, uint64_t bound);

#endif
