/*
 * Page link: wire format
 *
 * Every constant, limit and struct of the protocol on which RAM pages travel
 * beside the main migration stream, and nothing else: no logic lives here.
 * docs/interop/pagelink.rst is the normative text; where the two differ, the
 * text is right and this file has a bug.
 *
 * Guarantees: all integers are big-endian, all structs are packed by their
 * layout (sizes are asserted), every number is explicit and permanent.  A
 * number, once released, is never used for something else.
 *
 * Rejected: one descriptor in front of each page (a receiver could then not
 * scatter a batch straight into its destinations), an acknowledgement for each
 * PUT (SYNC covers any number of them), text or TLV messages (every message
 * has exactly one valid length, which is what makes it possible to validate a
 * message before any of it takes effect).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_PAGELINK_H
#define MIGRATION_PAGELINK_H

#include "qemu/compiler.h"

/* "QPLK"; the first four bytes of every message, in both directions */
#define PAGELINK_MAGIC                  0x51504c4bU

/* Versions of the protocol that this code speaks */
#define PAGELINK_VERSION_MIN            1
#define PAGELINK_VERSION_MAX            1

#define PAGELINK_PAGE_BITS              12
#define PAGELINK_PAGE_SIZE              4096

/* Limits that a receiver enforces; a peer that exceeds one is refused */
#define PAGELINK_MAX_BATCH              256         /* entries in a message */
#define PAGELINK_MAX_DATA_BATCH         64          /* entries in a DATA */
#define PAGELINK_MAX_BLOCKS             1024        /* block ids 0 to 1023 */
#define PAGELINK_MAX_BLOCK_PAGES        0x100000000ULL  /* 16 TiB a block */
#define PAGELINK_MAX_BLOCK_NAME         255
#define PAGELINK_MAX_DROP_PAGES         0x4000      /* sum over a DROP */
#define PAGELINK_MAX_BITMAP_PAGES       0x8000      /* 4 KiB of bits */
#define PAGELINK_MAX_ERROR_TEXT         512
#define PAGELINK_MAX_STATUS_SESSIONS    4096
#define PAGELINK_MAX_WINDOW             64          /* GETs under way */

#define PAGELINK_NAME_SIZE              32
#define PAGELINK_UUID_SIZE              16
#define PAGELINK_KEY_SIZE               16

/* Message types */
#define PAGELINK_HELLO                  1   /* client to server, once, first */
#define PAGELINK_HELLO_ACK              2   /* server's answer to it */
#define PAGELINK_ERROR                  3
#define PAGELINK_BLOCK                  4
#define PAGELINK_PUT                    5
#define PAGELINK_GET                    6
#define PAGELINK_DATA                   7
#define PAGELINK_DROP                   8
#define PAGELINK_SYNC                   9
#define PAGELINK_ACK                    10
#define PAGELINK_BITMAP_GET             11
#define PAGELINK_BITMAP                 12
#define PAGELINK_STATUS_GET             13
#define PAGELINK_STATUS                 14
#define PAGELINK_SESSION_END            15

/* PageLinkHeader.flags; a bit that a type does not define must be zero */
#define PAGELINK_DATA_LAST              0x0001  /* DATA: the GET is answered */
#define PAGELINK_ERROR_FATAL            0x0001  /* ERROR: the sender closes */
#define PAGELINK_STATUS_ALL             0x0001  /* STATUS_GET: all sessions */

/* Feature bits, offered in HELLO and chosen in HELLO_ACK */
#define PAGELINK_FEATURE_CHECKSUM       0x00000001U /* entries may carry CRC */
#define PAGELINK_FEATURE_ANNOUNCE       0x00000002U /* BITMAP unasked for */
#define PAGELINK_FEATURES_MEMSERVER     PAGELINK_FEATURE_CHECKSUM

/* PageLinkHello.role */
#define PAGELINK_ROLE_OWNER             1   /* reads and writes */
#define PAGELINK_ROLE_READER            2   /* reads; and SYNC, STATUS_GET */
#define PAGELINK_ROLE_STATUS            3   /* STATUS_GET only, no session */

/* PageLinkHello.class: whom this connection must never wait for */
#define PAGELINK_CLASS_BACKGROUND       1
#define PAGELINK_CLASS_DEMAND           2

/* PageLinkHello.flags */
#define PAGELINK_HELLO_CREATE           0x0001  /* make it if need be */
#define PAGELINK_HELLO_TAKE             0x0002  /* become owner, raise epoch */

/* PageLinkEntry.flags */
#define PAGELINK_ENTRY_ZERO             0x0001  /* all zero, no payload */
#define PAGELINK_ENTRY_CRC              0x0002  /* crc is valid */
#define PAGELINK_ENTRY_ABSENT           0x0004  /* DATA: nothing is stored */

/* PageLinkError.code */
#define PAGELINK_ERR_PROTOCOL           1   /* malformed; always fatal */
#define PAGELINK_ERR_VERSION            2   /* no common version or feature */
#define PAGELINK_ERR_AUTH               3   /* no such session or wrong key */
#define PAGELINK_ERR_STALE_EPOCH        4   /* ownership has moved on */
#define PAGELINK_ERR_NO_MEMORY          5   /* over --max-memory */
#define PAGELINK_ERR_QUOTA              6   /* over the session's quota */
#define PAGELINK_ERR_UNKNOWN_BLOCK      7
#define PAGELINK_ERR_OUT_OF_RANGE       8   /* page beyond its block */
#define PAGELINK_ERR_CHECKSUM           9
#define PAGELINK_ERR_ROLE               10  /* not allowed in this role */
#define PAGELINK_ERR_SESSION_ENDED      11
#define PAGELINK_ERR_LIMIT              12  /* too many sessions, connections */
#define PAGELINK_ERR_BLOCK_MISMATCH     13  /* block known with other shape */
#define PAGELINK_ERR_UNSUPPORTED        14  /* valid, but not served here */
#define PAGELINK_ERR_SHUTDOWN           15  /* the server is going away */
#define PAGELINK_ERR_TIMEOUT            16  /* the peer stalled for too long */

/* PageLinkError.index when no entry is to blame */
#define PAGELINK_NO_INDEX               0xffffffffU

/*
 * In front of every message.  @length counts the bytes that follow the
 * header.  @count is the number of entries for PUT, GET, DATA and DROP, the
 * number of session records for STATUS, and zero otherwise.
 */
typedef struct PageLinkHeader {
    uint32_t magic;
    uint16_t type;
    uint16_t flags;
    uint32_t length;
    uint32_t count;
    uint64_t request_id;
} PageLinkHeader;
QEMU_BUILD_BUG_ON(sizeof(PageLinkHeader) != 24);

/*
 * HELLO.  Header and body keep this layout in all versions, so that any two
 * peers can tell each other why they do not fit.
 */
typedef struct PageLinkHello {
    uint16_t version_min;
    uint16_t version_max;
    uint32_t features;              /* wanted, may be refused bit by bit */
    uint32_t features_required;     /* refused as a whole; part of features */
    uint8_t role;
    uint8_t class;
    uint16_t flags;
    uint64_t epoch;
    uint8_t uuid[PAGELINK_UUID_SIZE];
    uint8_t key[PAGELINK_KEY_SIZE];
    char name[PAGELINK_NAME_SIZE];  /* printable ASCII, zero-padded */
    uint64_t reserved;
} PageLinkHello;
QEMU_BUILD_BUG_ON(sizeof(PageLinkHello) != 96);

typedef struct PageLinkHelloAck {
    uint16_t version;
    uint16_t max_blocks;
    uint32_t features;
    uint32_t max_batch;
    uint32_t window;                /* GETs under way on a connection */
    uint64_t epoch;                 /* of the session, after this HELLO */
    uint64_t free_pages;            /* that the session could still store */
    uint64_t reserved;
} PageLinkHelloAck;
QEMU_BUILD_BUG_ON(sizeof(PageLinkHelloAck) != 40);

/* ERROR: followed by text_length bytes of UTF-8, no terminator */
typedef struct PageLinkError {
    uint32_t code;
    uint32_t index;                 /* of the entry, or PAGELINK_NO_INDEX */
    uint32_t text_length;
    uint32_t reserved;
} PageLinkError;
QEMU_BUILD_BUG_ON(sizeof(PageLinkError) != 16);

/* BLOCK: followed by name_length bytes, no terminator */
typedef struct PageLinkBlock {
    uint16_t block;
    uint16_t name_length;
    uint32_t reserved;
    uint64_t pages;
} PageLinkBlock;
QEMU_BUILD_BUG_ON(sizeof(PageLinkBlock) != 16);

/* PUT and DATA: all entries first, then the pages of those that have one */
typedef struct PageLinkEntry {
    uint64_t page;                  /* number of the page within its block */
    uint64_t version;
    uint32_t crc;                   /* CRC-32C, if PAGELINK_ENTRY_CRC */
    uint16_t block;
    uint16_t flags;
} PageLinkEntry;
QEMU_BUILD_BUG_ON(sizeof(PageLinkEntry) != 24);

/* GET */
typedef struct PageLinkRequest {
    uint64_t page;
    uint16_t block;
    uint16_t reserved0;
    uint32_t reserved1;
} PageLinkRequest;
QEMU_BUILD_BUG_ON(sizeof(PageLinkRequest) != 16);

/* DROP */
typedef struct PageLinkRange {
    uint64_t page;
    uint64_t version;
    uint32_t pages;
    uint16_t block;
    uint16_t reserved;
} PageLinkRange;
QEMU_BUILD_BUG_ON(sizeof(PageLinkRange) != 24);

/* ACK: what became of all that this connection sent so far */
typedef struct PageLinkAck {
    uint64_t stored;                /* pages with data */
    uint64_t zero;                  /* zero pages */
    uint64_t stale;                 /* ignored, a newer version was there */
    uint64_t refused;               /* pages of which an ERROR told */
    uint64_t dropped;
} PageLinkAck;
QEMU_BUILD_BUG_ON(sizeof(PageLinkAck) != 40);

/*
 * BITMAP_GET, and the head of BITMAP, there followed by the bits: page
 * first + i is held (with data or as zero) if bit i % 8 of byte i / 8 is set.
 */
typedef struct PageLinkBitmap {
    uint64_t first;
    uint32_t pages;
    uint16_t block;
    uint16_t reserved;
} PageLinkBitmap;
QEMU_BUILD_BUG_ON(sizeof(PageLinkBitmap) != 16);

/* STATUS: this, then count records of session_size bytes each */
typedef struct PageLinkStatus {
    uint32_t session_size;          /* a later version may append fields */
    uint32_t connections;
    uint64_t uptime_ms;
    uint64_t max_pages;
    uint64_t used_pages;            /* data and bookkeeping, of max_pages */
    uint64_t pages;                 /* with data */
    uint64_t zero_pages;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t in_rate;               /* bytes a second, over about one second */
    uint64_t out_rate;
    uint64_t refused;               /* connections and pages, since start */
    uint32_t sessions;              /* in all; count may hold fewer */
    uint32_t threads;
} PageLinkStatus;
QEMU_BUILD_BUG_ON(sizeof(PageLinkStatus) != 96);

typedef struct PageLinkSessionStatus {
    uint8_t uuid[PAGELINK_UUID_SIZE];
    char name[PAGELINK_NAME_SIZE];
    uint64_t epoch;
    uint32_t connections;
    uint32_t blocks;
    uint64_t quota_pages;           /* 0: none */
    uint64_t used_pages;
    uint64_t pages;
    uint64_t zero_pages;
    uint64_t puts;                  /* pages received and stored */
    uint64_t gets;                  /* pages sent */
    uint64_t stale;
    uint64_t refused;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t in_rate;
    uint64_t out_rate;
    uint64_t idle_ms;               /* since the last message */
    uint64_t age_ms;
} PageLinkSessionStatus;
QEMU_BUILD_BUG_ON(sizeof(PageLinkSessionStatus) != 176);

/* The longest body of each kind, for receivers that allocate in advance */
#define PAGELINK_MAX_TABLE \
    (PAGELINK_MAX_BATCH * (uint32_t)sizeof(PageLinkEntry))
#define PAGELINK_MAX_PUT_LENGTH \
    (PAGELINK_MAX_TABLE + PAGELINK_MAX_BATCH * PAGELINK_PAGE_SIZE)
#define PAGELINK_MAX_DATA_LENGTH \
    (PAGELINK_MAX_DATA_BATCH * ((uint32_t)sizeof(PageLinkEntry) + \
                                PAGELINK_PAGE_SIZE))
#define PAGELINK_MAX_BITMAP_LENGTH \
    ((uint32_t)sizeof(PageLinkBitmap) + PAGELINK_MAX_BITMAP_PAGES / 8)

#endif /* MIGRATION_PAGELINK_H */
