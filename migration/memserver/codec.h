/*
 * Page link: codec
 *
 * Translates between messages on the wire (include/migration/pagelink.h) and
 * the same structs in host byte order.  Pure functions over buffers: no I/O,
 * no allocation, no state, safe from any thread.
 *
 * Every decode function validates all that can be known from the message
 * alone and has no effect but its output; when it returns false, @fault says
 * what is wrong in words for the peer and the output must not be used.  What
 * depends on the session (is the block known, is the epoch current) is checked
 * by the callers, still before any effect.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CODEC_H
#define MEMSERVER_CODEC_H

#include "migration/pagelink.h"

/*
 * A refusal: what the ERROR message to the peer will say.  Not an Error,
 * because the code and the entry must travel too, and because a peer that
 * sends rubbish must not make the receiver allocate.
 */
typedef struct PageLinkFault {
    uint32_t code;
    uint32_t index;
    char text[200];
} PageLinkFault;

/**
 * pagelink_fault: fill in a refusal
 * @fault: where to
 * @code: one of PAGELINK_ERR_*
 * @index: the entry to blame, or PAGELINK_NO_INDEX
 * @fmt: sentence for the peer's log
 *
 * Returns: false, so that callers can return it
 */
bool pagelink_fault(PageLinkFault *fault, uint32_t code, uint32_t index,
                    const char *fmt, ...) G_GNUC_PRINTF(4, 5);

/**
 * pagelink_type_name: name of a message type for logs, never NULL
 * @type: one of the message types, or anything else
 */
const char *pagelink_type_name(unsigned type);

/**
 * pagelink_encode_header:
 * @buf: room for sizeof(PageLinkHeader) bytes
 */
void pagelink_encode_header(uint8_t *buf, uint16_t type, uint16_t flags,
                            uint32_t length, uint32_t count,
                            uint64_t request_id);

/**
 * pagelink_decode_header:
 * @buf: sizeof(PageLinkHeader) bytes
 *
 * Checks magic, type, flags and that length and count are possible for the
 * type; afterwards no limit of pagelink.h can be exceeded by the body.
 */
bool pagelink_decode_header(const uint8_t *buf, PageLinkHeader *h,
                            PageLinkFault *fault);

/**
 * pagelink_table_length: what must be read before acting on a message
 * @h: a validated header
 *
 * Returns: the length of the body, without the pages of PUT and DATA; at most
 *          PAGELINK_MAX_TABLE for what a client sends.
 */
uint32_t pagelink_table_length(const PageLinkHeader *h);

void pagelink_encode_hello(uint8_t *buf, const PageLinkHello *hello);
bool pagelink_decode_hello(const uint8_t *buf, PageLinkHello *hello,
                           PageLinkFault *fault);

void pagelink_encode_hello_ack(uint8_t *buf, const PageLinkHelloAck *ack);
bool pagelink_decode_hello_ack(const uint8_t *buf, PageLinkHelloAck *ack,
                               PageLinkFault *fault);

/**
 * pagelink_encode_error:
 * @buf: room for sizeof(PageLinkError) + PAGELINK_MAX_ERROR_TEXT bytes
 *
 * Returns: the length of the body
 */
uint32_t pagelink_encode_error(uint8_t *buf, const PageLinkFault *error);

/**
 * pagelink_decode_error:
 * @error: the peer's refusal; bytes that are not printable are replaced, so
 *         that a peer cannot write control sequences into our logs
 */
bool pagelink_decode_error(const PageLinkHeader *h, const uint8_t *buf,
                           PageLinkFault *error, PageLinkFault *fault);

/**
 * pagelink_encode_block:
 * @buf: room for sizeof(PageLinkBlock) + PAGELINK_MAX_BLOCK_NAME bytes
 *
 * Returns: the length of the body
 */
uint32_t pagelink_encode_block(uint8_t *buf, uint16_t block, uint64_t pages,
                               const char *name);

/**
 * pagelink_decode_block:
 * @name: room for PAGELINK_MAX_BLOCK_NAME + 1 bytes, terminated on success
 */
bool pagelink_decode_block(const PageLinkHeader *h, const uint8_t *buf,
                           PageLinkBlock *block, char *name,
                           PageLinkFault *fault);

void pagelink_encode_entry(uint8_t *buf, const PageLinkEntry *e);

/**
 * pagelink_decode_entries: validate the table of a PUT or DATA
 * @h: its header; the length must be that of the table and the pages
 * @features: features in force on the connection
 * @entries: room for h->count entries
 * @npages: set to the number of entries that have a page as payload
 */
bool pagelink_decode_entries(const PageLinkHeader *h, const uint8_t *buf,
                             uint32_t features, PageLinkEntry *entries,
                             uint32_t *npages, PageLinkFault *fault);

void pagelink_encode_request(uint8_t *buf, const PageLinkRequest *r);
bool pagelink_decode_requests(const PageLinkHeader *h, const uint8_t *buf,
                              PageLinkRequest *reqs, PageLinkFault *fault);

void pagelink_encode_range(uint8_t *buf, const PageLinkRange *r);
bool pagelink_decode_ranges(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkRange *ranges, PageLinkFault *fault);

void pagelink_encode_ack(uint8_t *buf, const PageLinkAck *ack);
void pagelink_decode_ack(const uint8_t *buf, PageLinkAck *ack);

void pagelink_encode_bitmap(uint8_t *buf, const PageLinkBitmap *b);

/**
 * pagelink_decode_bitmap: head of a BITMAP_GET or of a BITMAP
 * @h: its header; for BITMAP the length must fit the number of bits
 */
bool pagelink_decode_bitmap(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkBitmap *b, PageLinkFault *fault);

void pagelink_encode_status(uint8_t *buf, const PageLinkStatus *s);

/**
 * pagelink_decode_status:
 * @h: header of a STATUS; the length must fit count and session_size
 */
bool pagelink_decode_status(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkStatus *s, PageLinkFault *fault);

void pagelink_encode_session_status(uint8_t *buf,
                                    const PageLinkSessionStatus *s);

/**
 * pagelink_decode_session_status:
 * @s: the name is terminated, and what is not printable in it replaced
 */
void pagelink_decode_session_status(const uint8_t *buf,
                                    PageLinkSessionStatus *s);

#endif /* MEMSERVER_CODEC_H */
