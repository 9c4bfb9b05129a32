/*
 * Configuration of a migration's strategy: the parameter, the snapshot of
 * it that a migration runs with, and its form in the stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything here is a function of its arguments; there is no state.
 */
#ifndef MIGRATION_STRATEGY_CONFIG_H
#define MIGRATION_STRATEGY_CONFIG_H

#include "qapi/qapi-types-strategy.h"

/*
 * What a migration runs with.  Built once when it starts, so that nothing
 * asks for parameters while pages move.
 */
typedef struct StrategyConfig {
    RamStrategyMode mode;
    uint32_t passes;            /* hybrid: at least 1 */
    bool background;            /* the value at the start */
    bool redirectable;
    RamSplit *split;            /* owned; NULL: memory is not split */
} StrategyConfig;

/* What holds before anybody sets anything */
#define STRATEGY_CONFIG_DEFAULT \
    ((StrategyConfig) { .mode = RAM_STRATEGY_MODE_PRECOPY, \
                        .passes = 1, .background = true })

/* strategy_config_copy: a deep copy, for strategy_config_clear() */
StrategyConfig strategy_config_copy(const StrategyConfig *c);

/* strategy_config_clear: free what @c owns */
void strategy_config_clear(StrategyConfig *c);

/*
 * strategy_config_in_force: does @c need its section in the stream?
 *
 * If not, the migration is stock QEMU's, byte for byte.
 */
bool strategy_config_in_force(const StrategyConfig *c);

/*
 * strategy_config_merge: apply a parameter as the user gave it
 *
 * Members that @p leaves out keep their value in @c.  On error @c is left
 * as it was.
 */
bool strategy_config_merge(StrategyConfig *c, const RamStrategy *p,
                           Error **errp);

/*
 * strategy_config_to_param: all members set, but split when it is off
 *
 * The caller owns the result.
 */
RamStrategy *strategy_config_to_param(const StrategyConfig *c);

/*
 * strategy_config_parse: read the form of HMP, "mode=hybrid,passes=2"
 *
 * QEMU's keyval syntax.  The caller owns the result; NULL on error.
 */
RamStrategy *strategy_config_parse(const char *keyval, Error **errp);

/*
 * What else is set up for the migration that is asked for, as far as a
 * strategy can clash with it.
 */
typedef struct StrategyContext {
    bool postcopy_ram;          /* capabilities */
    bool multifd;
    bool colo;
    bool snapshot;
    bool cpr;                   /* migration mode */
    bool rdma;                  /* transport */
    bool file;
    bool exec;
    bool xbzrle;                /* capabilities that split memory minds */
    bool mapped_ram;
    bool ignore_shared;
} StrategyContext;

/*
 * strategy_config_check: can a migration run with @c under @ctx?
 *
 * The error names what clashes and what to do.
 */
bool strategy_config_check(const StrategyConfig *c, const StrategyContext *ctx,
                           Error **errp);

/* Whether @mode can switch to post-copy */
static inline bool strategy_mode_uses_postcopy(RamStrategyMode mode)
{
    return mode != RAM_STRATEGY_MODE_PRECOPY;
}

/*
 * In the stream: fixed length, big endian.
 *   0  u8   mode (STRATEGY_WIRE_MODE_*)
 *   1  u8   flags (STRATEGY_WIRE_BACKGROUND, STRATEGY_WIRE_REDIRECTABLE)
 *   2  be16 reserved, 0
 *   4  be32 passes
 * These numbers are permanent; they are not RamStrategyMode's.  Split memory
 * has a message of its own, see message.h.
 */
#define STRATEGY_WIRE_CONFIG_LEN    8

#define STRATEGY_WIRE_MODE_PRECOPY  0
#define STRATEGY_WIRE_MODE_POSTCOPY 1
#define STRATEGY_WIRE_MODE_HYBRID   2
#define STRATEGY_WIRE_MODE_AUTO     3

#define STRATEGY_WIRE_BACKGROUND    0x01
#define STRATEGY_WIRE_REDIRECTABLE  0x02

/* strategy_config_encode: write STRATEGY_WIRE_CONFIG_LEN bytes to @buf */
void strategy_config_encode(const StrategyConfig *c, uint8_t *buf);

/*
 * strategy_config_decode: read what strategy_config_encode() wrote
 *
 * Validates every field; on error @c is left as it was.
 */
bool strategy_config_decode(StrategyConfig *c, const uint8_t *buf, size_t len,
                            Error **errp);

#endif
