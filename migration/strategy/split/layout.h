/*
 * Split memory: what source and destination must agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Plain data and its allocation.  The source fills both structs while it
 * migrates; the destination builds them from the stream and hands them to
 * the pager.  Nothing here knows of RAMBlocks, streams or threads.
 *
 * A block is *managed* if it is listed in SplitSetup: its pages may be on a
 * memory host.  All other RAM (ROMs, small device memory) is always on the
 * main host, comes on the main stream as ever, and is left alone by the
 * pager; it counts into main_memory.
 */
#ifndef MIGRATION_STRATEGY_SPLIT_LAYOUT_H
#define MIGRATION_STRATEGY_SPLIT_LAYOUT_H

#include "migration/pagelink.h"

#define SPLIT_PAGE_BITS         PAGELINK_PAGE_BITS
#define SPLIT_PAGE_SIZE         PAGELINK_PAGE_SIZE
/* An extent, 1 MiB, is what is given to a memory host as a whole */
#define SPLIT_EXTENT_BITS       20
#define SPLIT_EXTENT_PAGES      (1u << (SPLIT_EXTENT_BITS - SPLIT_PAGE_BITS))
/* An extent none of whose pages was ever sent to a memory host */
#define SPLIT_HOST_NONE         0xff
#define SPLIT_MAX_HOSTS         64
#define SPLIT_MAX_BLOCKS        PAGELINK_MAX_BLOCKS
#define SPLIT_MAX_URI           255

typedef struct SplitHost {
    char *uri;                  /* as socket_parse() takes it */
    char *tls_hostname;         /* of its certificate; NULL: the host in uri */
    uint64_t capacity;          /* bytes of pages */
} SplitHost;

typedef struct SplitBlock {
    uint16_t id;                /* on the page links, and in messages */
    char *idstr;                /* of the RAMBlock */
    uint64_t pages;
} SplitBlock;

/* Known when the migration starts */
typedef struct SplitSetup {
    uint8_t uuid[PAGELINK_UUID_SIZE];   /* the session at every host */
    uint8_t key[PAGELINK_KEY_SIZE];
    uint64_t epoch;             /* the source's; the pager takes epoch + 1 */
    uint64_t main_memory;       /* bytes */
    bool tls;                   /* the source's links use TLS */
    uint8_t replicas;           /* copies on memory hosts; 1 */
    unsigned n_hosts;           /* 1 to SPLIT_MAX_HOSTS */
    SplitHost *hosts;
    unsigned n_blocks;
    SplitBlock *blocks;         /* in the order of their ids */
} SplitSetup;

/* Where the pages of a block are when the source has sent everything */
typedef struct SplitBlockLayout {
    uint64_t pages;
    /*
     * A page whose bit is set in @local came on the main stream; if it is set
     * in @remote, the memory host of its extent has it.  In neither: it is
     * all zeroes.  Never in both.
     */
    unsigned long *local;
    unsigned long *remote;
    uint8_t *host;              /* index into SplitSetup.hosts per extent */
} SplitBlockLayout;

/* Pages @first to @first + @n - 1 of @block */
typedef void SplitPages(unsigned block, uint64_t first, uint64_t n);

typedef struct SplitLayout {
    uint64_t last_version;      /* no PUT of the source had a higher one */
    unsigned n_blocks;
    SplitBlockLayout *blocks;   /* same order as SplitSetup.blocks */
    /* The destination's: pages that were local are so no more; or NULL */
    SplitPages *left;
} SplitLayout;

static inline uint64_t split_extents(uint64_t pages)
{
    return DIV_ROUND_UP(pages, SPLIT_EXTENT_PAGES);
}

/* split_setup_new: with arrays of that many hosts and blocks, all zero */
SplitSetup *split_setup_new(unsigned n_hosts, unsigned n_blocks);
void split_setup_free(SplitSetup *s);
SplitSetup *split_setup_clone(const SplitSetup *s);

/*
 * split_layout_new: for the blocks of @s: no page local, no extent with a
 * host
 */
SplitLayout *split_layout_new(const SplitSetup *s);
void split_layout_free(SplitLayout *l);

/* split_layout_local, _remote: number of such pages */
uint64_t split_layout_local(const SplitLayout *l);
uint64_t split_layout_remote(const SplitLayout *l);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(SplitSetup, split_setup_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SplitLayout, split_layout_free)

#endif
