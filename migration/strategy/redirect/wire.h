/*
 * Redirect: messages of the main stream and of the return path
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In the section "ram-strategy" (message.h):
 *
 *   SETUP   source to new destination: a relay will come
 *   ORDER   source to old destination: become the relay
 *   BLOCKS  either, behind SETUP or ORDER: which block has which number
 *   BITMAP  source to old destination, behind ORDER and BLOCKS: pages that
 *           the relay owes
 *
 * On the return path from the new destination, in messages of the type
 * MIG_RP_MSG_STRATEGY: READY, REFUSED, HAVE and RELAY.  From the old one:
 * ACCEPTED, when it has the whole order.
 *
 * All functions are pure.  A decoder validates the whole message, sets
 * nothing that outlives an error, and says in @errp what is wrong.  All
 * integers are big-endian, all numbers permanent.  Pages have 4096 bytes, as
 * on page links.
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_WIRE_H
#define MIGRATION_STRATEGY_REDIRECT_WIRE_H

#include "qapi/qapi-types-sockets.h"
#include "migration/pagelink.h"

/* Longest address and TLS host name, bytes */
#define REDIRECT_MAX_ADDRESS        400
#define REDIRECT_MAX_HOSTNAME       255
/* Longest sentence of REFUSED, bytes */
#define REDIRECT_MAX_SENTENCE       480
/* Longest message on the return path: the buffer of the source's reader */
#define REDIRECT_RP_MAX_LEN         512

/* The session of a relay; only who has it from the source may join it */
typedef struct RedirectSession {
    uint8_t uuid[PAGELINK_UUID_SIZE];
    uint8_t key[PAGELINK_KEY_SIZE];
    uint32_t number;            /* redirects of this migration so far, >= 1 */
} RedirectSession;

typedef struct RedirectBlock {
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    uint64_t pages;
} RedirectBlock;

/*
 * Which block has which number, from 0; the source decides.  @expected is
 * what SETUP or ORDER announced; the table is complete when @n has reached it.
 */
typedef struct RedirectBlocks {
    RedirectBlock *block;       /* g_free() */
    uint32_t n;
    uint32_t expected;
} RedirectBlocks;

typedef struct RedirectSetup {
    RedirectSession session;
    uint32_t blocks;            /* 1 to PAGELINK_MAX_BLOCKS */
} RedirectSetup;

typedef struct RedirectOrder {
    RedirectSession session;
    uint32_t blocks;
    bool tls;
    uint64_t pages;             /* bits set in all BITMAPs together */
    uint64_t max_rate;          /* of the source, bytes a second; 0: none */
    char address[REDIRECT_MAX_ADDRESS + 1];         /* of READY */
    char tls_hostname[REDIRECT_MAX_HOSTNAME + 1];   /* or "" */
} RedirectOrder;

/*
 * A range of pages of a block, as bits: page first + i is in it if bit i % 8
 * of bits[i / 8] is set.  In BITMAP: the relay owes it; in HAVE: it arrived
 * from the relay.
 */
typedef struct RedirectBitmap {
    uint16_t block;
    uint64_t first;             /* a multiple of REDIRECT_BITMAP_ALIGN */
    uint32_t n;                 /* at least 1 */
    const uint8_t *bits;        /* in the message */
} RedirectBitmap;

#define REDIRECT_BITMAP_ALIGN       64
#define REDIRECT_BITMAP_HEAD        16
/* Most pages of one BITMAP, and of one HAVE */
#define REDIRECT_MAX_BITMAP_PAGES   0x40000U
#define REDIRECT_MAX_HAVE_PAGES     3904U

/* Sub-types on the return path */
#define REDIRECT_RP_READY           1
#define REDIRECT_RP_REFUSED         2
#define REDIRECT_RP_HAVE            3
#define REDIRECT_RP_RELAY           4
#define REDIRECT_RP_ACCEPTED        5

typedef struct RedirectReady {
    bool tls;
    char address[REDIRECT_MAX_ADDRESS + 1];
} RedirectReady;

/* What the new destination sees of the relay */
#define REDIRECT_RELAY_CONNECTED    1   /* said HELLO */
#define REDIRECT_RELAY_DONE         2   /* has sent all that it will */
#define REDIRECT_RELAY_LOST         3   /* went without that */

typedef struct RedirectRelay {
    uint16_t state;             /* REDIRECT_RELAY_* */
    uint64_t pages;             /* taken from the relay, zero pages included */
    uint64_t zero;
    uint64_t duplicates;        /* dropped, as they were there already */
    uint64_t bytes;             /* received from the relay */
} RedirectRelay;

/*
 * Encoders append to @out.  They assert that what they are given is within
 * the limits.
 */
void redirect_setup_encode(GByteArray *out, const RedirectSetup *setup);
void redirect_order_encode(GByteArray *out, const RedirectOrder *order);

/*
 * redirect_blocks_encode: as many blocks from number @first on as fit in one
 * message of the section; returns their number
 */
uint32_t redirect_blocks_encode(GByteArray *out, const RedirectBlocks *blocks,
                                uint32_t first);

/*
 * redirect_bitmap_encode: @n bits of @map from bit @first on, as BITMAP
 *
 * @map: a bitmap of QEMU's kind for the whole block
 */
void redirect_bitmap_encode(GByteArray *out, uint16_t block, uint64_t first,
                            uint32_t n, const unsigned long *map);

bool redirect_setup_decode(RedirectSetup *setup, const uint8_t *buf,
                           size_t len, Error **errp);
bool redirect_order_decode(RedirectOrder *order, const uint8_t *buf,
                           size_t len, Error **errp);

/* redirect_blocks_decode: append to @blocks, whose @expected is set */
bool redirect_blocks_decode(RedirectBlocks *blocks, const uint8_t *buf,
                            size_t len, Error **errp);

/*
 * redirect_bitmap_decode:
 * @blocks: the complete table, or NULL not to check block and range
 */
bool redirect_bitmap_decode(RedirectBitmap *bitmap,
                            const RedirectBlocks *blocks, const uint8_t *buf,
                            size_t len, Error **errp);

/*
 * redirect_bitmap_or: set the bits in @map, a bitmap for the whole block;
 * returns how many were not set before
 */
uint64_t redirect_bitmap_or(unsigned long *map, const RedirectBitmap *bitmap);

/*
 * Return path.  Encoders return the length, at most REDIRECT_RP_MAX_LEN, the
 * room that @buf has.
 */
size_t redirect_rp_encode_ready(uint8_t *buf, const RedirectReady *ready);
/* redirect_rp_encode_refused: a sentence that is too long is cut */
size_t redirect_rp_encode_refused(uint8_t *buf, const char *sentence);
/* redirect_rp_encode_have: @bits as in RedirectBitmap */
size_t redirect_rp_encode_have(uint8_t *buf, const RedirectBitmap *have);
size_t redirect_rp_encode_relay(uint8_t *buf, const RedirectRelay *relay);
size_t redirect_rp_encode_accepted(uint8_t *buf);

/* A decoded message of the return path */
typedef struct RedirectRp {
    uint16_t type;              /* REDIRECT_RP_* */
    union {
        RedirectReady ready;
        char sentence[REDIRECT_MAX_SENTENCE + 1];   /* printable */
        RedirectBitmap have;
        RedirectRelay relay;
    };
} RedirectRp;

bool redirect_rp_decode(RedirectRp *rp, const RedirectBlocks *blocks,
                        const uint8_t *buf, size_t len, Error **errp);

/*
 * redirect_address_print: as messages carry it: "tcp:HOST:PORT",
 * "tcp:[V6]:PORT" or "unix:PATH"; the caller owns it; NULL and an error for
 * other kinds
 */
char *redirect_address_print(const SocketAddress *address, Error **errp);

/* redirect_address_parse: the reverse; the caller owns the result */
SocketAddress *redirect_address_parse(const char *text, Error **errp);

#endif
