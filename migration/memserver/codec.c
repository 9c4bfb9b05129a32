/*
 * Page link: codec (see codec.h for what it guarantees)
 *
 * The structs of pagelink.h have no padding, so that their members' offsets
 * are the offsets on the wire; offsetof() is the only layout knowledge here.
 *
 * Rejected: casting the receive buffer to the struct (alignment, and fields
 * that change under a validation when the buffer is shared); byte-swapping in
 * place (a message could then be validated only once).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "codec.h"

#define PUT8(type, m)   (buf[offsetof(type, m)] = p->m)
#define PUT16(type, m)  stw_be_p(buf + offsetof(type, m), p->m)
#define PUT32(type, m)  stl_be_p(buf + offsetof(type, m), p->m)
#define PUT64(type, m)  stq_be_p(buf + offsetof(type, m), p->m)
#define GET8(type, m)   (p->m = buf[offsetof(type, m)])
#define GET16(type, m)  (p->m = lduw_be_p(buf + offsetof(type, m)))
#define GET32(type, m)  (p->m = (uint32_t)ldl_be_p(buf + offsetof(type, m)))
#define GET64(type, m)  (p->m = ldq_be_p(buf + offsetof(type, m)))

/* What a header may say, for each type */
typedef struct PageLinkTypeRule {
    const char *name;
    uint16_t flags;             /* those that may be set */
    uint32_t min_length;
    uint32_t max_length;
    uint32_t min_count;
    uint32_t max_count;
} PageLinkTypeRule;

static const PageLinkTypeRule rules[] = {
    [PAGELINK_HELLO] = {
        "HELLO", 0, sizeof(PageLinkHello), sizeof(PageLinkHello), 0, 0
    },
    [PAGELINK_HELLO_ACK] = {
        "HELLO_ACK", 0, sizeof(PageLinkHelloAck), sizeof(PageLinkHelloAck),
        0, 0
    },
    [PAGELINK_ERROR] = {
        "ERROR", PAGELINK_ERROR_FATAL, sizeof(PageLinkError),
        sizeof(PageLinkError) + PAGELINK_MAX_ERROR_TEXT, 0, 0
    },
    [PAGELINK_BLOCK] = {
        "BLOCK", 0, sizeof(PageLinkBlock) + 1,
        sizeof(PageLinkBlock) + PAGELINK_MAX_BLOCK_NAME, 0, 0
    },
    [PAGELINK_PUT] = {
        "PUT", 0, sizeof(PageLinkEntry), PAGELINK_MAX_PUT_LENGTH,
        1, PAGELINK_MAX_BATCH
    },
    [PAGELINK_GET] = {
        "GET", 0, sizeof(PageLinkRequest),
        PAGELINK_MAX_BATCH * sizeof(PageLinkRequest), 1, PAGELINK_MAX_BATCH
    },
    [PAGELINK_DATA] = {
        "DATA", PAGELINK_DATA_LAST, sizeof(PageLinkEntry),
        PAGELINK_MAX_DATA_LENGTH, 1, PAGELINK_MAX_DATA_BATCH
    },
    [PAGELINK_DROP] = {
        "DROP", 0, sizeof(PageLinkRange),
        PAGELINK_MAX_BATCH * sizeof(PageLinkRange), 1, PAGELINK_MAX_BATCH
    },
    [PAGELINK_SYNC] = { "SYNC", 0, 0, 0, 0, 0 },
    [PAGELINK_ACK] = {
        "ACK", 0, sizeof(PageLinkAck), sizeof(PageLinkAck), 0, 0
    },
    [PAGELINK_BITMAP_GET] = {
        "BITMAP_GET", 0, sizeof(PageLinkBitmap), sizeof(PageLinkBitmap), 0, 0
    },
    [PAGELINK_BITMAP] = {
        "BITMAP", 0, sizeof(PageLinkBitmap) + 1, PAGELINK_MAX_BITMAP_LENGTH,
        0, 0
    },
    [PAGELINK_STATUS_GET] = {
        "STATUS_GET", PAGELINK_STATUS_ALL, 0, 0, 0, 0
    },
    [PAGELINK_STATUS] = {
        "STATUS", 0, sizeof(PageLinkStatus),
        sizeof(PageLinkStatus) +
        PAGELINK_MAX_STATUS_SESSIONS * 2 * sizeof(PageLinkSessionStatus),
        0, PAGELINK_MAX_STATUS_SESSIONS
    },
    [PAGELINK_SESSION_END] = { "SESSION_END", 0, 0, 0, 0, 0 },
};

bool pagelink_fault(PageLinkFault *fault, uint32_t code, uint32_t index,
                    const char *fmt, ...)
{
    va_list ap;

    fault->code = code;
    fault->index = index;
    va_start(ap, fmt);
    vsnprintf(fault->text, sizeof(fault->text), fmt, ap);
    va_end(ap);
    return false;
}

static bool malformed(PageLinkFault *fault, unsigned type, const char *what)
{
    return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                          "malformed %s: %s", pagelink_type_name(type), what);
}

static bool malformed_entry(PageLinkFault *fault, unsigned type, uint32_t i,
                            const char *what)
{
    return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, i,
                          "malformed %s: entry %" PRIu32 ": %s",
                          pagelink_type_name(type), i, what);
}

const char *pagelink_type_name(unsigned type)
{
    if (type < ARRAY_SIZE(rules) && rules[type].name) {
        return rules[type].name;
    }
    return "message of unknown type";
}

void pagelink_encode_header(uint8_t *buf, uint16_t type, uint16_t flags,
                            uint32_t length, uint32_t count,
                            uint64_t request_id)
{
    stl_be_p(buf + offsetof(PageLinkHeader, magic), PAGELINK_MAGIC);
    stw_be_p(buf + offsetof(PageLinkHeader, type), type);
    stw_be_p(buf + offsetof(PageLinkHeader, flags), flags);
    stl_be_p(buf + offsetof(PageLinkHeader, length), length);
    stl_be_p(buf + offsetof(PageLinkHeader, count), count);
    stq_be_p(buf + offsetof(PageLinkHeader, request_id), request_id);
}

bool pagelink_decode_header(const uint8_t *buf, PageLinkHeader *p,
                            PageLinkFault *fault)
{
    const PageLinkTypeRule *rule;

    GET32(PageLinkHeader, magic);
    GET16(PageLinkHeader, type);
    GET16(PageLinkHeader, flags);
    GET32(PageLinkHeader, length);
    GET32(PageLinkHeader, count);
    GET64(PageLinkHeader, request_id);

    if (p->magic != PAGELINK_MAGIC) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "this is not a page link: magic is 0x%08" PRIx32
                              ", expected 0x%08x", p->magic, PAGELINK_MAGIC);
    }
    if (p->type >= ARRAY_SIZE(rules) || !rules[p->type].name) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "unknown message type %u", p->type);
    }
    rule = &rules[p->type];
    if (p->flags & ~rule->flags) {
        return malformed(fault, p->type, "undefined flag set");
    }
    if (p->length < rule->min_length || p->length > rule->max_length) {
        return malformed(fault, p->type, "impossible length");
    }
    if (p->count < rule->min_count || p->count > rule->max_count) {
        return malformed(fault, p->type, "impossible number of entries");
    }

    switch (p->type) {
    case PAGELINK_PUT:
    case PAGELINK_DATA: {
        uint32_t table = p->count * sizeof(PageLinkEntry);

        if (p->length < table ||
            (p->length - table) % PAGELINK_PAGE_SIZE ||
            (p->length - table) / PAGELINK_PAGE_SIZE > p->count) {
            return malformed(fault, p->type, "length does not fit entries");
        }
        break;
    }
    case PAGELINK_GET:
        if (p->length != p->count * sizeof(PageLinkRequest)) {
            return malformed(fault, p->type, "length does not fit entries");
        }
        break;
    case PAGELINK_DROP:
        if (p->length != p->count * sizeof(PageLinkRange)) {
            return malformed(fault, p->type, "length does not fit entries");
        }
        break;
    }
    return true;
}

uint32_t pagelink_table_length(const PageLinkHeader *h)
{
    if (h->type == PAGELINK_PUT || h->type == PAGELINK_DATA) {
        return h->count * sizeof(PageLinkEntry);
    }
    return h->length;
}

void pagelink_encode_hello(uint8_t *buf, const PageLinkHello *p)
{
    PUT16(PageLinkHello, version_min);
    PUT16(PageLinkHello, version_max);
    PUT32(PageLinkHello, features);
    PUT32(PageLinkHello, features_required);
    PUT8(PageLinkHello, role);
    PUT8(PageLinkHello, class);
    PUT16(PageLinkHello, flags);
    PUT64(PageLinkHello, epoch);
    memcpy(buf + offsetof(PageLinkHello, uuid), p->uuid, sizeof(p->uuid));
    memcpy(buf + offsetof(PageLinkHello, key), p->key, sizeof(p->key));
    memcpy(buf + offsetof(PageLinkHello, name), p->name, sizeof(p->name));
    stq_be_p(buf + offsetof(PageLinkHello, reserved), 0);
}

/* Printable ASCII, then zeroes to the end */
static bool name_is_valid(const char *name, size_t size)
{
    size_t i = 0;

    while (i < size && name[i]) {
        if (!g_ascii_isprint(name[i])) {
            return false;
        }
        i++;
    }
    while (i < size) {
        if (name[i++]) {
            return false;
        }
    }
    return true;
}

bool pagelink_decode_hello(const uint8_t *buf, PageLinkHello *p,
                           PageLinkFault *fault)
{
    const unsigned type = PAGELINK_HELLO;

    GET16(PageLinkHello, version_min);
    GET16(PageLinkHello, version_max);
    GET32(PageLinkHello, features);
    GET32(PageLinkHello, features_required);
    GET8(PageLinkHello, role);
    GET8(PageLinkHello, class);
    GET16(PageLinkHello, flags);
    GET64(PageLinkHello, epoch);
    memcpy(p->uuid, buf + offsetof(PageLinkHello, uuid), sizeof(p->uuid));
    memcpy(p->key, buf + offsetof(PageLinkHello, key), sizeof(p->key));
    memcpy(p->name, buf + offsetof(PageLinkHello, name), sizeof(p->name));
    GET64(PageLinkHello, reserved);

    if (p->version_min > p->version_max || !p->version_min) {
        return malformed(fault, type, "impossible range of versions");
    }
    /* Before all else, since a later version may define what follows */
    if (p->version_min > PAGELINK_VERSION_MAX ||
        p->version_max < PAGELINK_VERSION_MIN) {
        return pagelink_fault(fault, PAGELINK_ERR_VERSION, PAGELINK_NO_INDEX,
                              "no common version: the client speaks %u to %u, "
                              "the server %u to %u",
                              p->version_min, p->version_max,
                              PAGELINK_VERSION_MIN, PAGELINK_VERSION_MAX);
    }
    if (p->features_required & ~p->features) {
        return malformed(fault, type, "required features are not offered");
    }
    if (p->role < PAGELINK_ROLE_OWNER || p->role > PAGELINK_ROLE_STATUS) {
        return malformed(fault, type, "unknown role");
    }
    if (p->class != PAGELINK_CLASS_BACKGROUND &&
        p->class != PAGELINK_CLASS_DEMAND) {
        return malformed(fault, type, "unknown class");
    }
    if (p->flags & ~(PAGELINK_HELLO_CREATE | PAGELINK_HELLO_TAKE)) {
        return malformed(fault, type, "undefined flag set");
    }
    if (p->role != PAGELINK_ROLE_OWNER && p->flags) {
        return malformed(fault, type, "only an owner can create or take");
    }
    if (p->role == PAGELINK_ROLE_OWNER && !p->epoch) {
        return malformed(fault, type, "an owner's epoch starts at 1");
    }
    if (!name_is_valid(p->name, sizeof(p->name))) {
        return malformed(fault, type, "name is not printable ASCII");
    }
    if (p->reserved) {
        return malformed(fault, type, "reserved field is not zero");
    }
    return true;
}

void pagelink_encode_hello_ack(uint8_t *buf, const PageLinkHelloAck *p)
{
    PUT16(PageLinkHelloAck, version);
    PUT16(PageLinkHelloAck, max_blocks);
    PUT32(PageLinkHelloAck, features);
    PUT32(PageLinkHelloAck, max_batch);
    PUT32(PageLinkHelloAck, window);
    PUT64(PageLinkHelloAck, epoch);
    PUT64(PageLinkHelloAck, free_pages);
    stq_be_p(buf + offsetof(PageLinkHelloAck, reserved), 0);
}

bool pagelink_decode_hello_ack(const uint8_t *buf, PageLinkHelloAck *p,
                               PageLinkFault *fault)
{
    const unsigned type = PAGELINK_HELLO_ACK;

    GET16(PageLinkHelloAck, version);
    GET16(PageLinkHelloAck, max_blocks);
    GET32(PageLinkHelloAck, features);
    GET32(PageLinkHelloAck, max_batch);
    GET32(PageLinkHelloAck, window);
    GET64(PageLinkHelloAck, epoch);
    GET64(PageLinkHelloAck, free_pages);
    GET64(PageLinkHelloAck, reserved);

    if (p->version < PAGELINK_VERSION_MIN ||
        p->version > PAGELINK_VERSION_MAX) {
        return pagelink_fault(fault, PAGELINK_ERR_VERSION, PAGELINK_NO_INDEX,
                              "the server chose version %u, which was not "
                              "offered", p->version);
    }
    if (!p->max_batch || p->max_batch > PAGELINK_MAX_BATCH || !p->window ||
        p->max_blocks > PAGELINK_MAX_BLOCKS) {
        return malformed(fault, type, "impossible limit");
    }
    if (p->reserved) {
        return malformed(fault, type, "reserved field is not zero");
    }
    return true;
}

/* Nothing of what a peer says may steer the terminal that shows it */
static void make_printable(char *text, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++) {
        text[i] = g_ascii_isprint(text[i]) ? text[i] : '?';
    }
}

uint32_t pagelink_encode_error(uint8_t *buf, const PageLinkFault *error)
{
    uint32_t len = strnlen(error->text, sizeof(error->text));

    QEMU_BUILD_BUG_ON(sizeof(error->text) > PAGELINK_MAX_ERROR_TEXT);
    stl_be_p(buf + offsetof(PageLinkError, code), error->code);
    stl_be_p(buf + offsetof(PageLinkError, index), error->index);
    stl_be_p(buf + offsetof(PageLinkError, text_length), len);
    stl_be_p(buf + offsetof(PageLinkError, reserved), 0);
    memcpy(buf + sizeof(PageLinkError), error->text, len);
    return sizeof(PageLinkError) + len;
}

bool pagelink_decode_error(const PageLinkHeader *h, const uint8_t *buf,
                           PageLinkFault *error, PageLinkFault *fault)
{
    PageLinkError err, *p = &err;
    size_t len;

    GET32(PageLinkError, code);
    GET32(PageLinkError, index);
    GET32(PageLinkError, text_length);
    GET32(PageLinkError, reserved);
    if (p->text_length != h->length - sizeof(PageLinkError)) {
        return malformed(fault, h->type, "length does not fit the text");
    }
    if (!p->code || p->reserved) {
        return malformed(fault, h->type, "impossible code");
    }
    error->code = p->code;
    error->index = p->index;
    len = MIN(p->text_length, sizeof(error->text) - 1);
    memcpy(error->text, buf + sizeof(PageLinkError), len);
    error->text[len] = '\0';
    make_printable(error->text, len);
    return true;
}

uint32_t pagelink_encode_block(uint8_t *buf, uint16_t block, uint64_t pages,
                               const char *name)
{
    size_t len = strlen(name);

    assert(len && len <= PAGELINK_MAX_BLOCK_NAME);
    stw_be_p(buf + offsetof(PageLinkBlock, block), block);
    stw_be_p(buf + offsetof(PageLinkBlock, name_length), len);
    stl_be_p(buf + offsetof(PageLinkBlock, reserved), 0);
    stq_be_p(buf + offsetof(PageLinkBlock, pages), pages);
    memcpy(buf + sizeof(PageLinkBlock), name, len);
    return sizeof(PageLinkBlock) + len;
}

bool pagelink_decode_block(const PageLinkHeader *h, const uint8_t *buf,
                           PageLinkBlock *p, char *name, PageLinkFault *fault)
{
    size_t i;

    GET16(PageLinkBlock, block);
    GET16(PageLinkBlock, name_length);
    GET32(PageLinkBlock, reserved);
    GET64(PageLinkBlock, pages);
    if (p->name_length != h->length - sizeof(PageLinkBlock)) {
        return malformed(fault, h->type, "length does not fit the name");
    }
    if (p->reserved) {
        return malformed(fault, h->type, "reserved field is not zero");
    }
    if (p->block >= PAGELINK_MAX_BLOCKS) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "block number %u: the highest is %d", p->block,
                              PAGELINK_MAX_BLOCKS - 1);
    }
    if (!p->pages || p->pages > PAGELINK_MAX_BLOCK_PAGES) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "block %u: %" PRIu64 " pages: must be 1 to %llu",
                              p->block, p->pages, PAGELINK_MAX_BLOCK_PAGES);
    }
    for (i = 0; i < p->name_length; i++) {
        name[i] = buf[sizeof(PageLinkBlock) + i];
        if (!g_ascii_isprint(name[i])) {
            return malformed(fault, h->type, "name is not printable ASCII");
        }
    }
    name[i] = '\0';
    return true;
}

void pagelink_encode_entry(uint8_t *buf, const PageLinkEntry *p)
{
    PUT64(PageLinkEntry, page);
    PUT64(PageLinkEntry, version);
    PUT32(PageLinkEntry, crc);
    PUT16(PageLinkEntry, block);
    PUT16(PageLinkEntry, flags);
}

static bool decode_entry(const uint8_t *buf, unsigned type, uint32_t i,
                         uint16_t known, PageLinkEntry *p,
                         PageLinkFault *fault)
{
    GET64(PageLinkEntry, page);
    GET64(PageLinkEntry, version);
    GET32(PageLinkEntry, crc);
    GET16(PageLinkEntry, block);
    GET16(PageLinkEntry, flags);

    if (p->flags & ~known) {
        return malformed_entry(fault, type, i, "undefined flag set");
    }
    if (p->flags & (p->flags - 1)) {
        return malformed_entry(fault, type, i, "flags exclude each other");
    }
    if (p->crc && !(p->flags & PAGELINK_ENTRY_CRC)) {
        return malformed_entry(fault, type, i, "checksum without its flag");
    }
    if (p->block >= PAGELINK_MAX_BLOCKS) {
        return malformed_entry(fault, type, i, "impossible block number");
    }
    if (p->page >= PAGELINK_MAX_BLOCK_PAGES) {
        return malformed_entry(fault, type, i, "impossible page number");
    }
    return true;
}

bool pagelink_decode_entries(const PageLinkHeader *h, const uint8_t *buf,
                             uint32_t features, PageLinkEntry *entries,
                             uint32_t *npages, PageLinkFault *fault)
{
    uint16_t known = PAGELINK_ENTRY_ZERO;
    uint32_t i, n = 0;

    if (features & PAGELINK_FEATURE_CHECKSUM) {
        known |= PAGELINK_ENTRY_CRC;
    }
    if (h->type == PAGELINK_DATA) {
        known |= PAGELINK_ENTRY_ABSENT;
    }
    for (i = 0; i < h->count; i++) {
        if (!decode_entry(buf + i * sizeof(PageLinkEntry), h->type, i, known,
                          &entries[i], fault)) {
            return false;
        }
        if (!(entries[i].flags &
              (PAGELINK_ENTRY_ZERO | PAGELINK_ENTRY_ABSENT))) {
            n++;
        }
    }
    if (h->length != h->count * sizeof(PageLinkEntry) +
                     n * PAGELINK_PAGE_SIZE) {
        return malformed(fault, h->type, "length does not fit the pages");
    }
    *npages = n;
    return true;
}

void pagelink_encode_request(uint8_t *buf, const PageLinkRequest *p)
{
    PUT64(PageLinkRequest, page);
    PUT16(PageLinkRequest, block);
    stw_be_p(buf + offsetof(PageLinkRequest, reserved0), 0);
    stl_be_p(buf + offsetof(PageLinkRequest, reserved1), 0);
}

bool pagelink_decode_requests(const PageLinkHeader *h, const uint8_t *buf,
                              PageLinkRequest *reqs, PageLinkFault *fault)
{
    uint32_t i;

    for (i = 0; i < h->count; i++, buf += sizeof(PageLinkRequest)) {
        PageLinkRequest *p = &reqs[i];

        GET64(PageLinkRequest, page);
        GET16(PageLinkRequest, block);
        GET16(PageLinkRequest, reserved0);
        GET32(PageLinkRequest, reserved1);
        if (p->reserved0 || p->reserved1) {
            return malformed_entry(fault, h->type, i,
                                   "reserved field is not zero");
        }
        if (p->block >= PAGELINK_MAX_BLOCKS) {
            return malformed_entry(fault, h->type, i,
                                   "impossible block number");
        }
        if (p->page >= PAGELINK_MAX_BLOCK_PAGES) {
            return malformed_entry(fault, h->type, i,
                                   "impossible page number");
        }
    }
    return true;
}

void pagelink_encode_range(uint8_t *buf, const PageLinkRange *p)
{
    PUT64(PageLinkRange, page);
    PUT64(PageLinkRange, version);
    PUT32(PageLinkRange, pages);
    PUT16(PageLinkRange, block);
    stw_be_p(buf + offsetof(PageLinkRange, reserved), 0);
}

bool pagelink_decode_ranges(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkRange *ranges, PageLinkFault *fault)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < h->count; i++, buf += sizeof(PageLinkRange)) {
        PageLinkRange *p = &ranges[i];

        GET64(PageLinkRange, page);
        GET64(PageLinkRange, version);
        GET32(PageLinkRange, pages);
        GET16(PageLinkRange, block);
        GET16(PageLinkRange, reserved);
        sum += p->pages;
        if (p->reserved) {
            return malformed_entry(fault, h->type, i,
                                   "reserved field is not zero");
        }
        if (p->block >= PAGELINK_MAX_BLOCKS) {
            return malformed_entry(fault, h->type, i,
                                   "impossible block number");
        }
        if (p->page >= PAGELINK_MAX_BLOCK_PAGES) {
            return malformed_entry(fault, h->type, i,
                                   "impossible page number");
        }
        if (!p->pages || sum > PAGELINK_MAX_DROP_PAGES) {
            return malformed_entry(fault, h->type, i,
                                   "impossible number of pages");
        }
    }
    return true;
}

void pagelink_encode_ack(uint8_t *buf, const PageLinkAck *p)
{
    PUT64(PageLinkAck, stored);
    PUT64(PageLinkAck, zero);
    PUT64(PageLinkAck, stale);
    PUT64(PageLinkAck, refused);
    PUT64(PageLinkAck, dropped);
}

void pagelink_decode_ack(const uint8_t *buf, PageLinkAck *p)
{
    GET64(PageLinkAck, stored);
    GET64(PageLinkAck, zero);
    GET64(PageLinkAck, stale);
    GET64(PageLinkAck, refused);
    GET64(PageLinkAck, dropped);
}

void pagelink_encode_bitmap(uint8_t *buf, const PageLinkBitmap *p)
{
    PUT64(PageLinkBitmap, first);
    PUT32(PageLinkBitmap, pages);
    PUT16(PageLinkBitmap, block);
    stw_be_p(buf + offsetof(PageLinkBitmap, reserved), 0);
}

bool pagelink_decode_bitmap(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkBitmap *p, PageLinkFault *fault)
{
    GET64(PageLinkBitmap, first);
    GET32(PageLinkBitmap, pages);
    GET16(PageLinkBitmap, block);
    GET16(PageLinkBitmap, reserved);
    if (p->reserved) {
        return malformed(fault, h->type, "reserved field is not zero");
    }
    if (p->block >= PAGELINK_MAX_BLOCKS) {
        return malformed(fault, h->type, "impossible block number");
    }
    if (p->first >= PAGELINK_MAX_BLOCK_PAGES) {
        return malformed(fault, h->type, "impossible page number");
    }
    if (!p->pages || p->pages > PAGELINK_MAX_BITMAP_PAGES) {
        return malformed(fault, h->type, "impossible number of pages");
    }
    if (h->type == PAGELINK_BITMAP &&
        h->length != sizeof(PageLinkBitmap) + DIV_ROUND_UP(p->pages, 8)) {
        return malformed(fault, h->type, "length does not fit the bits");
    }
    return true;
}

void pagelink_encode_status(uint8_t *buf, const PageLinkStatus *p)
{
    PUT32(PageLinkStatus, session_size);
    PUT32(PageLinkStatus, connections);
    PUT64(PageLinkStatus, uptime_ms);
    PUT64(PageLinkStatus, max_pages);
    PUT64(PageLinkStatus, used_pages);
    PUT64(PageLinkStatus, pages);
    PUT64(PageLinkStatus, zero_pages);
    PUT64(PageLinkStatus, bytes_in);
    PUT64(PageLinkStatus, bytes_out);
    PUT64(PageLinkStatus, in_rate);
    PUT64(PageLinkStatus, out_rate);
    PUT64(PageLinkStatus, refused);
    PUT32(PageLinkStatus, sessions);
    PUT32(PageLinkStatus, threads);
}

bool pagelink_decode_status(const PageLinkHeader *h, const uint8_t *buf,
                            PageLinkStatus *p, PageLinkFault *fault)
{
    GET32(PageLinkStatus, session_size);
    GET32(PageLinkStatus, connections);
    GET64(PageLinkStatus, uptime_ms);
    GET64(PageLinkStatus, max_pages);
    GET64(PageLinkStatus, used_pages);
    GET64(PageLinkStatus, pages);
    GET64(PageLinkStatus, zero_pages);
    GET64(PageLinkStatus, bytes_in);
    GET64(PageLinkStatus, bytes_out);
    GET64(PageLinkStatus, in_rate);
    GET64(PageLinkStatus, out_rate);
    GET64(PageLinkStatus, refused);
    GET32(PageLinkStatus, sessions);
    GET32(PageLinkStatus, threads);
    if (p->session_size < sizeof(PageLinkSessionStatus) ||
        h->length != sizeof(PageLinkStatus) +
                     (uint64_t)h->count * p->session_size) {
        return malformed(fault, h->type, "length does not fit the sessions");
    }
    return true;
}

void pagelink_encode_session_status(uint8_t *buf,
                                    const PageLinkSessionStatus *p)
{
    memcpy(buf + offsetof(PageLinkSessionStatus, uuid), p->uuid,
           sizeof(p->uuid));
    memcpy(buf + offsetof(PageLinkSessionStatus, name), p->name,
           sizeof(p->name));
    PUT64(PageLinkSessionStatus, epoch);
    PUT32(PageLinkSessionStatus, connections);
    PUT32(PageLinkSessionStatus, blocks);
    PUT64(PageLinkSessionStatus, quota_pages);
    PUT64(PageLinkSessionStatus, used_pages);
    PUT64(PageLinkSessionStatus, pages);
    PUT64(PageLinkSessionStatus, zero_pages);
    PUT64(PageLinkSessionStatus, puts);
    PUT64(PageLinkSessionStatus, gets);
    PUT64(PageLinkSessionStatus, stale);
    PUT64(PageLinkSessionStatus, refused);
    PUT64(PageLinkSessionStatus, bytes_in);
    PUT64(PageLinkSessionStatus, bytes_out);
    PUT64(PageLinkSessionStatus, in_rate);
    PUT64(PageLinkSessionStatus, out_rate);
    PUT64(PageLinkSessionStatus, idle_ms);
    PUT64(PageLinkSessionStatus, age_ms);
}

void pagelink_decode_session_status(const uint8_t *buf,
                                    PageLinkSessionStatus *p)
{
    memcpy(p->uuid, buf + offsetof(PageLinkSessionStatus, uuid),
           sizeof(p->uuid));
    memcpy(p->name, buf + offsetof(PageLinkSessionStatus, name),
           sizeof(p->name));
    p->name[sizeof(p->name) - 1] = '\0';
    make_printable(p->name, strlen(p->name));
    GET64(PageLinkSessionStatus, epoch);
    GET32(PageLinkSessionStatus, connections);
    GET32(PageLinkSessionStatus, blocks);
    GET64(PageLinkSessionStatus, quota_pages);
    GET64(PageLinkSessionStatus, used_pages);
    GET64(PageLinkSessionStatus, pages);
    GET64(PageLinkSessionStatus, zero_pages);
    GET64(PageLinkSessionStatus, puts);
    GET64(PageLinkSessionStatus, gets);
    GET64(PageLinkSessionStatus, stale);
    GET64(PageLinkSessionStatus, refused);
    GET64(PageLinkSessionStatus, bytes_in);
    GET64(PageLinkSessionStatus, bytes_out);
    GET64(PageLinkSessionStatus, in_rate);
    GET64(PageLinkSessionStatus, out_rate);
    GET64(PageLinkSessionStatus, idle_ms);
    GET64(PageLinkSessionStatus, age_ms);
}
