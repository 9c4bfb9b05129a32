/*
 * Split memory: its messages in the section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pure functions from the structs of layout.h to payloads and back; see
 * message.h for the frame around them.  All integers are big-endian, all
 * numbers permanent, reserved fields zero.
 *
 *   SPLIT_SETUP, in SECTION_START, once, required
 *      0  u8[16]  uuid of the session at every memory host
 *     16  u8[16]  key of the session
 *     32  be64    epoch
 *     40  be64    main-memory, bytes
 *     48  u8      extent bits (SPLIT_EXTENT_BITS)
 *     49  u8      flags (SPLIT_WIRE_TLS)
 *     50  u8      replicas
 *     51  u8      number of hosts
 *     52  be16    number of blocks
 *     54  be16    reserved
 *         hosts:  be64 capacity, u8 a, u8 b, uri[a], TLS host name[b]
 *         blocks: be64 pages, be16 reserved, u8 c, u8 reserved, name[c]
 *      A host's index and a block's id are their places in these lists.
 *
 *   SPLIT_EXTENTS, SPLIT_LOCAL, SPLIT_REMOTE, in SECTION_PART and
 *   SECTION_END, required
 *      0  be16    block
 *      2  be16    reserved
 *      4  be32    n
 *      8  be64    first
 *     16          EXTENTS: n bytes, the host of extent first + i
 *                 LOCAL, REMOTE: n bits, page first + i is local, or at
 *                 the memory host of its extent, if bit i % 8 of byte i / 8
 *                 is set; filled with zeroes to 8 bytes
 *      A later message overrules an earlier one for what it covers.
 *
 *   SPLIT_COMMIT, last in SECTION_END, once, required
 *      0  be64    local pages, all blocks
 *      8  be64    remote pages, all blocks
 *     16  be64    highest version that the source used
 */
#ifndef MIGRATION_STRATEGY_SPLIT_WIRE_H
#define MIGRATION_STRATEGY_SPLIT_WIRE_H

#include "layout.h"

#define SPLIT_WIRE_TLS          0x01

#define SPLIT_WIRE_SETUP_LEN    56      /* without hosts and blocks */
#define SPLIT_WIRE_CHUNK_LEN    16      /* without extents or bits */
#define SPLIT_WIRE_COMMIT_LEN   24
#define SPLIT_WIRE_MAX_LEN      (64 * 1024)
/* Pages in a SPLIT_LOCAL or _REMOTE, extents in a SPLIT_EXTENTS, at most */
#define SPLIT_WIRE_MAX_PAGES    (8 * 48 * 1024)
#define SPLIT_WIRE_MAX_EXTENTS  (48 * 1024)
/* The first page of a SPLIT_LOCAL or _REMOTE is a multiple of it */
#define SPLIT_WIRE_PAGE_ALIGN   64

/*
 * split_wire_put_setup: SPLIT_SETUP of @s
 *
 * The caller owns the result.  NULL with an error if it is too long, since
 * there are too many blocks.
 */
GByteArray *split_wire_put_setup(const SplitSetup *s, Error **errp);

/* split_wire_get_setup: the caller owns the result; NULL on error */
SplitSetup *split_wire_get_setup(const uint8_t *buf, size_t len,
                                 Error **errp);

/*
 * split_wire_put_extents: SPLIT_EXTENTS for @n extents from @first
 * split_wire_put_local: SPLIT_LOCAL for @n pages from @first
 * split_wire_put_remote: SPLIT_REMOTE, likewise
 *
 * The caller owns the result.
 */
GByteArray *split_wire_put_extents(const SplitLayout *l, unsigned block,
                                   uint64_t first, uint32_t n);
GByteArray *split_wire_put_local(const SplitLayout *l, unsigned block,
                                 uint64_t first, uint32_t n);
GByteArray *split_wire_put_remote(const SplitLayout *l, unsigned block,
                                  uint64_t first, uint32_t n);

/*
 * split_wire_get_extents, _local, _remote: apply one to @l
 *
 * On error, nothing was applied.  _local calls @l->left for what it says has
 * left the main host.
 */
bool split_wire_get_extents(SplitLayout *l, unsigned n_hosts,
                            const uint8_t *buf, size_t len, Error **errp);
bool split_wire_get_local(SplitLayout *l, const uint8_t *buf, size_t len,
                          Error **errp);
bool split_wire_get_remote(SplitLayout *l, const uint8_t *buf, size_t len,
                           Error **errp);

/* split_wire_put_commit: SPLIT_COMMIT of @l to @buf, SPLIT_WIRE_COMMIT_LEN */
void split_wire_put_commit(const SplitLayout *l, uint8_t *buf);

/*
 * split_wire_get_commit: is @l what the source had?
 *
 * No page may be in two places, and each remote page needs a host.  Sets the
 * version in @l.
 */
bool split_wire_get_commit(SplitLayout *l, const uint8_t *buf, size_t len,
                           Error **errp);

#endif
