/*
 * Redirect: messages of the main stream and of the return path
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Layouts, in bytes from the start of the payload:
 *
 *   SESSION  0 uuid[16]  16 key[16]  32 number:4  36 (end)
 *   SETUP    0 SESSION  36 blocks:4
 *   ORDER    0 SESSION  36 blocks:4  40 flags:2  42 address length:2
 *            44 host name length:2  46 reserved:2  48 pages:8
 *            56 max rate:8  64 address, host name
 *   BLOCKS   0 first:4  4 count:4, then for each: pages:8, length:1, name
 *   BITMAP   0 reserved:2  2 block:2  4 n:4  8 first:8  16 bits
 *
 *   READY    0 type:2  2 flags:2  4 address length:2  6 address
 *   REFUSED  0 type:2  2 length:2  4 sentence
 *   HAVE     0 type:2, then as BITMAP
 *   RELAY    0 type:2  2 state:2  4 reserved:4  8 pages:8  16 zero:8
 *            24 duplicates:8  32 bytes:8
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/sockets.h"
#include "../message.h"
#include "wire.h"

#define SESSION_LEN     36
#define SETUP_LEN       (SESSION_LEN + 4)
#define ORDER_HEAD      64
#define BLOCKS_HEAD     8
#define BLOCK_HEAD      9
#define READY_HEAD      6
#define REFUSED_HEAD    4
#define RELAY_LEN       40

#define FLAG_TLS        0x0001

QEMU_BUILD_BUG_ON(REDIRECT_BITMAP_HEAD + REDIRECT_MAX_BITMAP_PAGES / 8 >
                  STRATEGY_MSG_MAX_LEN);
QEMU_BUILD_BUG_ON(REDIRECT_BITMAP_HEAD + REDIRECT_MAX_HAVE_PAGES / 8 >
                  REDIRECT_RP_MAX_LEN);
QEMU_BUILD_BUG_ON(REDIRECT_MAX_HAVE_PAGES % REDIRECT_BITMAP_ALIGN);
QEMU_BUILD_BUG_ON(READY_HEAD + REDIRECT_MAX_ADDRESS > REDIRECT_RP_MAX_LEN);
QEMU_BUILD_BUG_ON(REFUSED_HEAD + REDIRECT_MAX_SENTENCE > REDIRECT_RP_MAX_LEN);

static uint8_t *grow(GByteArray *out, size_t len)
{
    size_t at = out->len;

    g_byte_array_set_size(out, at + len);
    memset(out->data + at, 0, len);
    return out->data + at;
}

static bool G_GNUC_PRINTF(3, 4)
wrong(Error **errp, const char *message, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_setg(errp, "redirect: malformed %s: %s", message, what);
    return false;
}

static bool is_printable(const uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

static void session_encode(uint8_t *p, const RedirectSession *s)
{
    memcpy(p, s->uuid, sizeof(s->uuid));
    memcpy(p + 16, s->key, sizeof(s->key));
    stl_be_p(p + 32, s->number);
}

/* The common start of SETUP and ORDER */
static bool session_decode(RedirectSession *s, uint32_t *blocks,
                           const uint8_t *p, const char *name, Error **errp)
{
    memcpy(s->uuid, p, sizeof(s->uuid));
    memcpy(s->key, p + 16, sizeof(s->key));
    s->number = ldl_be_p(p + 32);
    *blocks = ldl_be_p(p + SESSION_LEN);
    if (!s->number) {
        return wrong(errp, name, "number 0");
    }
    if (!*blocks || *blocks > PAGELINK_MAX_BLOCKS) {
        return wrong(errp, name, "%" PRIu32 " blocks, not 1 to %d", *blocks,
                     PAGELINK_MAX_BLOCKS);
    }
    return true;
}

void redirect_setup_encode(GByteArray *out, const RedirectSetup *setup)
{
    uint8_t *p = grow(out, SETUP_LEN);

    session_encode(p, &setup->session);
    stl_be_p(p + SESSION_LEN, setup->blocks);
}

bool redirect_setup_decode(RedirectSetup *setup, const uint8_t *buf,
                           size_t len, Error **errp)
{
    if (len != SETUP_LEN) {
        return wrong(errp, "SETUP", "%zu bytes, not %d", len, SETUP_LEN);
    }
    return session_decode(&setup->session, &setup->blocks, buf, "SETUP",
                          errp);
}

void redirect_order_encode(GByteArray *out, const RedirectOrder *order)
{
    size_t address = strlen(order->address);
    size_t hostname = strlen(order->tls_hostname);
    uint8_t *p = grow(out, ORDER_HEAD + address + hostname);

    assert(address && address <= REDIRECT_MAX_ADDRESS);
    assert(hostname <= REDIRECT_MAX_HOSTNAME);
    session_encode(p, &order->session);
    stl_be_p(p + SESSION_LEN, order->blocks);
    stw_be_p(p + 40, order->tls ? FLAG_TLS : 0);
    stw_be_p(p + 42, address);
    stw_be_p(p + 44, hostname);
    stq_be_p(p + 48, order->pages);
    stq_be_p(p + 56, order->max_rate);
    memcpy(p + ORDER_HEAD, order->address, address);
    memcpy(p + ORDER_HEAD + address, order->tls_hostname, hostname);
}

bool redirect_order_decode(RedirectOrder *order, const uint8_t *buf,
                           size_t len, Error **errp)
{
    unsigned flags, address, hostname;

    if (len < ORDER_HEAD) {
        return wrong(errp, "ORDER", "only %zu bytes", len);
    }
    if (!session_decode(&order->session, &order->blocks, buf, "ORDER",
                        errp)) {
        return false;
    }
    flags = lduw_be_p(buf + 40);
    address = lduw_be_p(buf + 42);
    hostname = lduw_be_p(buf + 44);
    if (flags & ~FLAG_TLS || lduw_be_p(buf + 46)) {
        return wrong(errp, "ORDER", "unknown flags 0x%x or reserved bytes",
                     flags);
    }
    if (!address || address > REDIRECT_MAX_ADDRESS ||
        hostname > REDIRECT_MAX_HOSTNAME ||
        len != ORDER_HEAD + address + hostname) {
        return wrong(errp, "ORDER", "%zu bytes for an address of %u and a "
                     "host name of %u", len, address, hostname);
    }
    if (!is_printable(buf + ORDER_HEAD, address + hostname)) {
        return wrong(errp, "ORDER", "its address is not printable");
    }
    order->tls = flags & FLAG_TLS;
    order->pages = ldq_be_p(buf + 48);
    order->max_rate = ldq_be_p(buf + 56);
    memcpy(order->address, buf + ORDER_HEAD, address);
    order->address[address] = '\0';
    memcpy(order->tls_hostname, buf + ORDER_HEAD + address, hostname);
    order->tls_hostname[hostname] = '\0';
    return true;
}

uint32_t redirect_blocks_encode(GByteArray *out, const RedirectBlocks *blocks,
                                uint32_t first)
{
    size_t start = out->len;
    uint32_t i;

    assert(first < blocks->n);
    grow(out, BLOCKS_HEAD);
    for (i = first; i < blocks->n; i++) {
        const RedirectBlock *b = &blocks->block[i];
        size_t len = strlen(b->name);
        uint8_t *p;

        if (out->len - start + BLOCK_HEAD + len > STRATEGY_MSG_MAX_LEN) {
            break;
        }
        p = grow(out, BLOCK_HEAD + len);
        stq_be_p(p, b->pages);
        p[8] = len;
        memcpy(p + BLOCK_HEAD, b->name, len);
    }
    stl_be_p(out->data + start, first);
    stl_be_p(out->data + start + 4, i - first);
    return i - first;
}

/* One block at @buf; returns its length, 0 on error */
static size_t block_decode(RedirectBlock *b, const uint8_t *buf, size_t len,
                           Error **errp)
{
    size_t name;

    if (len < BLOCK_HEAD || len < BLOCK_HEAD + buf[8]) {
        wrong(errp, "BLOCKS", "it ends in a block");
        return 0;
    }
    name = buf[8];
    b->pages = ldq_be_p(buf);
    if (!b->pages || b->pages > PAGELINK_MAX_BLOCK_PAGES) {
        wrong(errp, "BLOCKS", "a block of %" PRIu64 " pages", b->pages);
        return 0;
    }
    if (!name || !is_printable(buf + BLOCK_HEAD, name)) {
        wrong(errp, "BLOCKS", "a name that is empty or not printable");
        return 0;
    }
    memcpy(b->name, buf + BLOCK_HEAD, name);
    b->name[name] = '\0';
    return BLOCK_HEAD + name;
}

static bool blocks_check_head(const RedirectBlocks *blocks, uint32_t first,
                              uint32_t count, Error **errp)
{
    if (first != blocks->n) {
        return wrong(errp, "BLOCKS", "from %" PRIu32 " on where %" PRIu32
                     " is next", first, blocks->n);
    }
    if (!count || count > blocks->expected - blocks->n) {
        return wrong(errp, "BLOCKS", "%" PRIu32 " more where %" PRIu32
                     " of %" PRIu32 " are there", count, blocks->n,
                     blocks->expected);
    }
    return true;
}

bool redirect_blocks_decode(RedirectBlocks *blocks, const uint8_t *buf,
                            size_t len, Error **errp)
{
    g_autofree RedirectBlock *more = NULL;
    uint32_t count, i;

    if (len < BLOCKS_HEAD) {
        return wrong(errp, "BLOCKS", "only %zu bytes", len);
    }
    count = ldl_be_p(buf + 4);
    if (!blocks_check_head(blocks, ldl_be_p(buf), count, errp)) {
        return false;
    }
    buf += BLOCKS_HEAD;
    len -= BLOCKS_HEAD;
    more = g_new0(RedirectBlock, count);
    for (i = 0; i < count; i++) {
        size_t used = block_decode(&more[i], buf, len, errp);

        if (!used) {
            return false;
        }
        buf += used;
        len -= used;
    }
    if (len) {
        return wrong(errp, "BLOCKS", "%zu bytes too many", len);
    }
    blocks->block = g_renew(RedirectBlock, blocks->block, blocks->n + count);
    memcpy(blocks->block + blocks->n, more, count * sizeof(*more));
    blocks->n += count;
    return true;
}

static void bitmap_head_encode(uint8_t *p, uint16_t type, uint16_t block,
                               uint64_t first, uint32_t n)
{
    stw_be_p(p, type);
    stw_be_p(p + 2, block);
    stl_be_p(p + 4, n);
    stq_be_p(p + 8, first);
}

void redirect_bitmap_encode(GByteArray *out, uint16_t block, uint64_t first,
                            uint32_t n, const unsigned long *map)
{
    size_t bytes = DIV_ROUND_UP(n, 8);
    uint8_t *p = grow(out, REDIRECT_BITMAP_HEAD + bytes);
    uint32_t i;

    assert(n && n <= REDIRECT_MAX_BITMAP_PAGES &&
           first % REDIRECT_BITMAP_ALIGN == 0);
    bitmap_head_encode(p, 0, block, first, n);
    p += REDIRECT_BITMAP_HEAD;
    for (i = 0; i < bytes; i++) {
        uint64_t bit = first + i * 8;

        p[i] = map[BIT_WORD(bit)] >> (bit % BITS_PER_LONG);
    }
    if (n % 8) {
        p[bytes - 1] &= (1u << (n % 8)) - 1;
    }
}

static bool bitmap_decode(RedirectBitmap *b, const RedirectBlocks *blocks,
                          const uint8_t *buf, size_t len, uint32_t max,
                          const char *name, Error **errp)
{
    b->block = lduw_be_p(buf + 2);
    b->n = ldl_be_p(buf + 4);
    b->first = ldq_be_p(buf + 8);
    b->bits = buf + REDIRECT_BITMAP_HEAD;
    if (!b->n || b->n > max) {
        return wrong(errp, name, "%" PRIu32 " pages, not 1 to %" PRIu32,
                     b->n, max);
    }
    if (len != REDIRECT_BITMAP_HEAD + DIV_ROUND_UP(b->n, 8)) {
        return wrong(errp, name, "%zu bytes for %" PRIu32 " pages", len,
                     b->n);
    }
    if (b->first % REDIRECT_BITMAP_ALIGN) {
        return wrong(errp, name, "it begins at page %" PRIu64, b->first);
    }
    if (b->n % 8 && b->bits[b->n / 8] >> (b->n % 8)) {
        return wrong(errp, name, "bits beyond its end");
    }
    if (blocks && (b->block >= blocks->n ||
                   b->first >= blocks->block[b->block].pages ||
                   b->n > blocks->block[b->block].pages - b->first)) {
        return wrong(errp, name, "pages %" PRIu64 " + %" PRIu32 " of block %u "
                     "are not there", b->first, b->n, b->block);
    }
    return true;
}

bool redirect_bitmap_decode(RedirectBitmap *bitmap,
                            const RedirectBlocks *blocks, const uint8_t *buf,
                            size_t len, Error **errp)
{
    if (len < REDIRECT_BITMAP_HEAD || lduw_be_p(buf)) {
        return wrong(errp, "BITMAP", "%zu bytes, or its reserved bytes are "
                     "not 0", len);
    }
    return bitmap_decode(bitmap, blocks, buf, len, REDIRECT_MAX_BITMAP_PAGES,
                         "BITMAP", errp);
}

uint64_t redirect_bitmap_or(unsigned long *map, const RedirectBitmap *b)
{
    uint64_t fresh = 0;

    for (uint32_t i = 0; i < DIV_ROUND_UP(b->n, 8); i++) {
        uint64_t bit = b->first + i * 8;
        unsigned long *word = &map[BIT_WORD(bit)];
        unsigned long add = (unsigned long)b->bits[i] << (bit % BITS_PER_LONG);

        fresh += ctpopl(add & ~*word);
        *word |= add;
    }
    return fresh;
}

size_t redirect_rp_encode_ready(uint8_t *buf, const RedirectReady *ready)
{
    size_t address = strlen(ready->address);

    assert(address && address <= REDIRECT_MAX_ADDRESS);
    stw_be_p(buf, REDIRECT_RP_READY);
    stw_be_p(buf + 2, ready->tls ? FLAG_TLS : 0);
    stw_be_p(buf + 4, address);
    memcpy(buf + READY_HEAD, ready->address, address);
    return READY_HEAD + address;
}

size_t redirect_rp_encode_refused(uint8_t *buf, const char *sentence)
{
    size_t len = strnlen(sentence, REDIRECT_MAX_SENTENCE);

    stw_be_p(buf, REDIRECT_RP_REFUSED);
    stw_be_p(buf + 2, len);
    memcpy(buf + REFUSED_HEAD, sentence, len);
    return REFUSED_HEAD + len;
}

size_t redirect_rp_encode_have(uint8_t *buf, const RedirectBitmap *have)
{
    size_t bytes = DIV_ROUND_UP(have->n, 8);

    assert(have->n && have->n <= REDIRECT_MAX_HAVE_PAGES);
    bitmap_head_encode(buf, REDIRECT_RP_HAVE, have->block, have->first,
                       have->n);
    memcpy(buf + REDIRECT_BITMAP_HEAD, have->bits, bytes);
    return REDIRECT_BITMAP_HEAD + bytes;
}

size_t redirect_rp_encode_relay(uint8_t *buf, const RedirectRelay *relay)
{
    stw_be_p(buf, REDIRECT_RP_RELAY);
    stw_be_p(buf + 2, relay->state);
    stl_be_p(buf + 4, 0);
    stq_be_p(buf + 8, relay->pages);
    stq_be_p(buf + 16, relay->zero);
    stq_be_p(buf + 24, relay->duplicates);
    stq_be_p(buf + 32, relay->bytes);
    return RELAY_LEN;
}

size_t redirect_rp_encode_accepted(uint8_t *buf)
{
    stw_be_p(buf, REDIRECT_RP_ACCEPTED);
    return 2;
}

static bool ready_decode(RedirectReady *ready, const uint8_t *buf, size_t len,
                         Error **errp)
{
    unsigned flags, address;

    if (len < READY_HEAD) {
        return wrong(errp, "READY", "only %zu bytes", len);
    }
    flags = lduw_be_p(buf + 2);
    address = lduw_be_p(buf + 4);
    if (flags & ~FLAG_TLS) {
        return wrong(errp, "READY", "unknown flags 0x%x", flags);
    }
    if (!address || address > REDIRECT_MAX_ADDRESS ||
        len != READY_HEAD + address) {
        return wrong(errp, "READY", "%zu bytes for an address of %u", len,
                     address);
    }
    if (!is_printable(buf + READY_HEAD, address)) {
        return wrong(errp, "READY", "its address is not printable");
    }
    ready->tls = flags & FLAG_TLS;
    memcpy(ready->address, buf + READY_HEAD, address);
    ready->address[address] = '\0';
    return true;
}

static bool refused_decode(char *sentence, const uint8_t *buf, size_t len,
                           Error **errp)
{
    size_t text = len >= REFUSED_HEAD ? lduw_be_p(buf + 2) : 0;

    if (len != REFUSED_HEAD + text || text > REDIRECT_MAX_SENTENCE) {
        return wrong(errp, "REFUSED", "%zu bytes for a sentence of %zu", len,
                     text);
    }
    /* It goes into logs: no control sequences of the peer's */
    for (size_t i = 0; i < text; i++) {
        uint8_t c = buf[REFUSED_HEAD + i];

        sentence[i] = is_printable(&c, 1) ? c : '?';
    }
    sentence[text] = '\0';
    return true;
}

static bool relay_decode(RedirectRelay *relay, const uint8_t *buf, size_t len,
                         Error **errp)
{
    if (len != RELAY_LEN || ldl_be_p(buf + 4)) {
        return wrong(errp, "RELAY", "%zu bytes, not %d, or its reserved bytes "
                     "are not 0", len, RELAY_LEN);
    }
    relay->state = lduw_be_p(buf + 2);
    relay->pages = ldq_be_p(buf + 8);
    relay->zero = ldq_be_p(buf + 16);
    relay->duplicates = ldq_be_p(buf + 24);
    relay->bytes = ldq_be_p(buf + 32);
    if (relay->state < REDIRECT_RELAY_CONNECTED ||
        relay->state > REDIRECT_RELAY_LOST) {
        return wrong(errp, "RELAY", "state %u", relay->state);
    }
    return true;
}

bool redirect_rp_decode(RedirectRp *rp, const RedirectBlocks *blocks,
                        const uint8_t *buf, size_t len, Error **errp)
{
    if (len < 2) {
        return wrong(errp, "message on the return path", "%zu bytes", len);
    }
    rp->type = lduw_be_p(buf);
    switch (rp->type) {
    case REDIRECT_RP_READY:
        return ready_decode(&rp->ready, buf, len, errp);
    case REDIRECT_RP_REFUSED:
        return refused_decode(rp->sentence, buf, len, errp);
    case REDIRECT_RP_HAVE:
        if (len < REDIRECT_BITMAP_HEAD) {
            return wrong(errp, "HAVE", "only %zu bytes", len);
        }
        return bitmap_decode(&rp->have, blocks, buf, len,
                             REDIRECT_MAX_HAVE_PAGES, "HAVE", errp);
    case REDIRECT_RP_RELAY:
        return relay_decode(&rp->relay, buf, len, errp);
    case REDIRECT_RP_ACCEPTED:
        if (len != 2) {
            return wrong(errp, "ACCEPTED", "%zu bytes", len);
        }
        return true;
    default:
        return wrong(errp, "message on the return path", "type %u", rp->type);
    }
}

char *redirect_address_print(const SocketAddress *address, Error **errp)
{
    const InetSocketAddress *inet = &address->u.inet;
    char *text;

    if (address->type == SOCKET_ADDRESS_TYPE_UNIX) {
        text = g_strdup_printf("unix:%s", address->u.q_unix.path);
    } else if (address->type == SOCKET_ADDRESS_TYPE_INET) {
        bool v6 = strchr(inet->host, ':');

        text = g_strdup_printf("tcp:%s%s%s:%s", v6 ? "[" : "", inet->host,
                               v6 ? "]" : "", inet->port);
    } else {
        error_setg(errp, "redirect: a relay goes over tcp or a unix socket, "
                   "not over '%s'", SocketAddressType_str(address->type));
        return NULL;
    }
    if (strlen(text) > REDIRECT_MAX_ADDRESS ||
        !is_printable((const uint8_t *)text, strlen(text))) {
        error_setg(errp, "redirect: an address that is too long or not "
                   "printable");
        g_free(text);
        return NULL;
    }
    return text;
}

SocketAddress *redirect_address_parse(const char *text, Error **errp)
{
    if (!strstart(text, "tcp:", NULL) && !strstart(text, "unix:", NULL)) {
        error_setg(errp, "redirect: '%s' is neither a tcp nor a unix address",
                   text);
        return NULL;
    }
    return socket_parse(text, errp);
}
