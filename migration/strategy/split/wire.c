/*
 * Split memory: its messages in the section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "wire.h"

/* What is left of a payload; every take checks that there is enough */
typedef struct Reader {
    const uint8_t *p;
    size_t left;
} Reader;

static const uint8_t *take(Reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (n > r->left) {
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static void put_be16(GByteArray *a, uint16_t v)
{
    uint8_t buf[2];

    stw_be_p(buf, v);
    g_byte_array_append(a, buf, sizeof(buf));
}

static void put_be64(GByteArray *a, uint64_t v)
{
    uint8_t buf[8];

    stq_be_p(buf, v);
    g_byte_array_append(a, buf, sizeof(buf));
}

static void put_u8(GByteArray *a, uint8_t v)
{
    g_byte_array_append(a, &v, 1);
}

static void put_host(GByteArray *a, const SplitHost *h)
{
    const char *name = h->tls_hostname ?: "";

    put_be64(a, h->capacity);
    put_u8(a, strlen(h->uri));
    put_u8(a, strlen(name));
    g_byte_array_append(a, (const uint8_t *)h->uri, strlen(h->uri));
    g_byte_array_append(a, (const uint8_t *)name, strlen(name));
}

GByteArray *split_wire_put_setup(const SplitSetup *s, Error **errp)
{
    g_autoptr(GByteArray) a = g_byte_array_new();
    unsigned i;

    g_byte_array_append(a, s->uuid, sizeof(s->uuid));
    g_byte_array_append(a, s->key, sizeof(s->key));
    put_be64(a, s->epoch);
    put_be64(a, s->main_memory);
    put_u8(a, SPLIT_EXTENT_BITS);
    put_u8(a, s->tls ? SPLIT_WIRE_TLS : 0);
    put_u8(a, s->replicas);
    put_u8(a, s->n_hosts);
    put_be16(a, s->n_blocks);
    put_be16(a, 0);
    for (i = 0; i < s->n_hosts; i++) {
        if (strlen(s->hosts[i].uri) > SPLIT_MAX_URI ||
            (s->hosts[i].tls_hostname &&
             strlen(s->hosts[i].tls_hostname) > SPLIT_MAX_URI)) {
            error_setg(errp, "split memory: more than %d characters in the "
                       "address of memory host %s", SPLIT_MAX_URI,
                       s->hosts[i].uri);
            return NULL;
        }
        put_host(a, &s->hosts[i]);
    }
    for (i = 0; i < s->n_blocks; i++) {
        const SplitBlock *b = &s->blocks[i];

        put_be64(a, b->pages);
        put_be16(a, 0);
        put_u8(a, strlen(b->idstr));
        put_u8(a, 0);
        g_byte_array_append(a, (const uint8_t *)b->idstr, strlen(b->idstr));
    }
    if (a->len > SPLIT_WIRE_MAX_LEN) {
        error_setg(errp, "split memory: %u blocks of RAM are too many",
                   s->n_blocks);
        return NULL;
    }
    return g_steal_pointer(&a);
}

static bool refuse(Error **errp, const char *what)
{
    error_setg(errp, "ram-strategy: split memory: %s", what);
    return false;
}

/* A string of printable ASCII; NULL if it is something else */
static char *take_text(Reader *r, uint8_t len)
{
    const uint8_t *p = take(r, len);

    if (!p) {
        return NULL;
    }
    for (unsigned i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e) {
            return NULL;
        }
    }
    return g_strndup((const char *)p, len);
}

static bool get_host(Reader *r, SplitHost *h, Error **errp)
{
    const uint8_t *p = take(r, 10);

    if (!p) {
        return refuse(errp, "the list of memory hosts is cut short");
    }
    h->capacity = ldq_be_p(p);
    h->uri = take_text(r, p[8]);
    if (!h->uri || !p[8]) {
        return refuse(errp, "a memory host without a valid address");
    }
    if (p[9]) {
        h->tls_hostname = take_text(r, p[9]);
        if (!h->tls_hostname) {
            return refuse(errp, "a memory host without a valid name");
        }
    }
    if (!h->capacity) {
        return refuse(errp, "a memory host without capacity");
    }
    return true;
}

static bool get_block(Reader *r, SplitSetup *s, unsigned id, Error **errp)
{
    SplitBlock *b = &s->blocks[id];
    const uint8_t *p = take(r, 12);

    if (!p) {
        return refuse(errp, "the list of RAM blocks is cut short");
    }
    b->id = id;
    b->pages = ldq_be_p(p);
    b->idstr = take_text(r, p[10]);
    if (!b->idstr || !p[10] || lduw_be_p(p + 8) || p[11]) {
        return refuse(errp, "a RAM block without a valid name");
    }
    if (!b->pages || b->pages > PAGELINK_MAX_BLOCK_PAGES) {
        return refuse(errp, "a RAM block of an impossible size");
    }
    for (unsigned i = 0; i < id; i++) {
        if (!strcmp(s->blocks[i].idstr, b->idstr)) {
            return refuse(errp, "a RAM block that is listed twice");
        }
    }
    return true;
}

static bool check_setup_head(const uint8_t *p, Error **errp)
{
    if (p[48] != SPLIT_EXTENT_BITS) {
        return refuse(errp, "extents of a size that this QEMU does not know");
    }
    if (p[49] & ~SPLIT_WIRE_TLS || lduw_be_p(p + 54)) {
        return refuse(errp, "flags that this QEMU does not know");
    }
    if (p[50] != 1) {
        return refuse(errp, "replicas, which this QEMU does not know");
    }
    if (!p[51] || p[51] > SPLIT_MAX_HOSTS) {
        return refuse(errp, "an impossible number of memory hosts");
    }
    if (!lduw_be_p(p + 52) || lduw_be_p(p + 52) > SPLIT_MAX_BLOCKS) {
        return refuse(errp, "an impossible number of RAM blocks");
    }
    if (!ldq_be_p(p + 32) || ldq_be_p(p + 32) == UINT64_MAX) {
        return refuse(errp, "an impossible epoch");
    }
    if (!ldq_be_p(p + 40)) {
        return refuse(errp, "a main host without memory");
    }
    return true;
}

SplitSetup *split_wire_get_setup(const uint8_t *buf, size_t len, Error **errp)
{
    g_autoptr(SplitSetup) s = NULL;
    Reader r = { buf, len };
    const uint8_t *p = take(&r, SPLIT_WIRE_SETUP_LEN);

    if (!p) {
        refuse(errp, "the set-up is cut short");
        return NULL;
    }
    if (!check_setup_head(p, errp)) {
        return NULL;
    }
    s = split_setup_new(p[51], lduw_be_p(p + 52));
    memcpy(s->uuid, p, sizeof(s->uuid));
    memcpy(s->key, p + 16, sizeof(s->key));
    s->epoch = ldq_be_p(p + 32);
    s->main_memory = ldq_be_p(p + 40);
    s->tls = p[49] & SPLIT_WIRE_TLS;
    s->replicas = p[50];
    for (unsigned i = 0; i < s->n_hosts; i++) {
        if (!get_host(&r, &s->hosts[i], errp)) {
            return NULL;
        }
    }
    for (unsigned i = 0; i < s->n_blocks; i++) {
        if (!get_block(&r, s, i, errp)) {
            return NULL;
        }
    }
    if (r.left) {
        refuse(errp, "the set-up is too long");
        return NULL;
    }
    return g_steal_pointer(&s);
}

static GByteArray *put_chunk(unsigned block, uint64_t first, uint32_t n,
                             uint32_t bytes)
{
    GByteArray *a = g_byte_array_new();

    g_byte_array_set_size(a, SPLIT_WIRE_CHUNK_LEN + bytes);
    stw_be_p(a->data, block);
    stw_be_p(a->data + 2, 0);
    stl_be_p(a->data + 4, n);
    stq_be_p(a->data + 8, first);
    return a;
}

GByteArray *split_wire_put_extents(const SplitLayout *l, unsigned block,
                                   uint64_t first, uint32_t n)
{
    GByteArray *a = put_chunk(block, first, n, n);

    assert(n && n <= SPLIT_WIRE_MAX_EXTENTS);
    assert(first + n <= split_extents(l->blocks[block].pages));
    memcpy(a->data + SPLIT_WIRE_CHUNK_LEN, l->blocks[block].host + first, n);
    return a;
}

static GByteArray *put_pages(const SplitLayout *l, unsigned block,
                             const unsigned long *map, uint64_t first,
                             uint32_t n)
{
    unsigned words = DIV_ROUND_UP(n, 64);
    GByteArray *a = put_chunk(block, first, n, words * 8);
    g_autofree unsigned long *bits = bitmap_new(words * 64);
    g_autofree unsigned long *le = bitmap_new(words * 64);

    assert(n && n <= SPLIT_WIRE_MAX_PAGES);
    assert(first % SPLIT_WIRE_PAGE_ALIGN == 0);
    assert(first + n <= l->blocks[block].pages);
    bitmap_copy(bits, map + BIT_WORD(first), n);
    bitmap_to_le(le, bits, words * 64);
    memcpy(a->data + SPLIT_WIRE_CHUNK_LEN, le, words * 8);
    return a;
}

GByteArray *split_wire_put_local(const SplitLayout *l, unsigned block,
                                 uint64_t first, uint32_t n)
{
    return put_pages(l, block, l->blocks[block].local, first, n);
}

GByteArray *split_wire_put_remote(const SplitLayout *l, unsigned block,
                                  uint64_t first, uint32_t n)
{
    return put_pages(l, block, l->blocks[block].remote, first, n);
}

typedef struct Chunk {
    unsigned block;
    uint64_t first;
    uint32_t n;
    const uint8_t *data;
    size_t bytes;               /* of data */
} Chunk;

static bool get_chunk(const SplitLayout *l, Chunk *c, const uint8_t *buf,
                      size_t len, Error **errp)
{
    if (len < SPLIT_WIRE_CHUNK_LEN) {
        return refuse(errp, "a part of the map is cut short");
    }
    *c = (Chunk) {
        .block = lduw_be_p(buf),
        .n = ldl_be_p(buf + 4),
        .first = ldq_be_p(buf + 8),
        .data = buf + SPLIT_WIRE_CHUNK_LEN,
        .bytes = len - SPLIT_WIRE_CHUNK_LEN,
    };
    if (c->block >= l->n_blocks || lduw_be_p(buf + 2) || !c->n) {
        return refuse(errp, "a part of the map for no RAM block");
    }
    return true;
}

/* Whether @first and @n are within @total, which is no huge number */
static bool within(uint64_t first, uint32_t n, uint64_t total)
{
    return first < total && n <= total - first;
}

bool split_wire_get_extents(SplitLayout *l, unsigned n_hosts,
                            const uint8_t *buf, size_t len, Error **errp)
{
    Chunk c;

    if (!get_chunk(l, &c, buf, len, errp)) {
        return false;
    }
    if (!within(c.first, c.n, split_extents(l->blocks[c.block].pages)) ||
        c.n != c.bytes || c.n > SPLIT_WIRE_MAX_EXTENTS) {
        return refuse(errp, "extents beyond a RAM block");
    }
    for (uint32_t i = 0; i < c.n; i++) {
        if (c.data[i] >= n_hosts && c.data[i] != SPLIT_HOST_NONE) {
            return refuse(errp, "an extent at an unknown memory host");
        }
    }
    memcpy(l->blocks[c.block].host + c.first, c.data, c.n);
    return true;
}

/* Tell of the pages in @old that are not in @bits; clobbers @old */
static void tell_left(const SplitLayout *l, const Chunk *c,
                      unsigned long *old, const unsigned long *bits)
{
    uint64_t from, to;

    bitmap_andnot(old, old, bits, c->n);
    for (from = find_first_bit(old, c->n); from < c->n;
         from = find_next_bit(old, c->n, to)) {
        to = find_next_zero_bit(old, c->n, from);
        l->left(c->block, c->first + from, to - from);
    }
}

static bool get_pages(SplitLayout *l, bool remote, const uint8_t *buf,
                      size_t len, Error **errp)
{
    unsigned long *map;
    g_autofree unsigned long *bits = NULL;
    g_autofree unsigned long *le = NULL;
    unsigned words;
    uint64_t pages;
    Chunk c;

    if (!get_chunk(l, &c, buf, len, errp)) {
        return false;
    }
    pages = l->blocks[c.block].pages;
    words = DIV_ROUND_UP(c.n, 64);
    if (!within(c.first, c.n, pages) || words * 8ULL != c.bytes ||
        c.n > SPLIT_WIRE_MAX_PAGES ||
        c.first % SPLIT_WIRE_PAGE_ALIGN ||
        (c.n % SPLIT_WIRE_PAGE_ALIGN && c.first + c.n != pages)) {
        return refuse(errp, "pages beyond a RAM block");
    }
    le = bitmap_new(words * 64);
    bits = bitmap_new(words * 64);
    memcpy(le, c.data, c.bytes);
    bitmap_from_le(bits, le, words * 64);
    if (find_next_bit(bits, words * 64, c.n) < words * 64) {
        return refuse(errp, "bits that stand for no page");
    }
    map = remote ? l->blocks[c.block].remote : l->blocks[c.block].local;
    if (!remote && l->left) {
        bitmap_copy(le, map + BIT_WORD(c.first), c.n);
        tell_left(l, &c, le, bits);
    }
    bitmap_copy(map + BIT_WORD(c.first), bits, c.n);
    return true;
}

bool split_wire_get_local(SplitLayout *l, const uint8_t *buf, size_t len,
                          Error **errp)
{
    return get_pages(l, false, buf, len, errp);
}

bool split_wire_get_remote(SplitLayout *l, const uint8_t *buf, size_t len,
                           Error **errp)
{
    return get_pages(l, true, buf, len, errp);
}

void split_wire_put_commit(const SplitLayout *l, uint8_t *buf)
{
    stq_be_p(buf, split_layout_local(l));
    stq_be_p(buf + 8, split_layout_remote(l));
    stq_be_p(buf + 16, l->last_version);
}

/* Is each page in one place, which exists? */
static bool check_places(const SplitBlockLayout *b, Error **errp)
{
    uint64_t page = find_first_bit(b->remote, b->pages);

    if (bitmap_intersects(b->local, b->remote, b->pages)) {
        return refuse(errp, "a page in two places");
    }
    while (page < b->pages) {
        if (b->host[page / SPLIT_EXTENT_PAGES] == SPLIT_HOST_NONE) {
            return refuse(errp, "a remote page without a memory host");
        }
        /* The next extent */
        page = find_next_bit(b->remote, b->pages,
                             ROUND_UP(page + 1, SPLIT_EXTENT_PAGES));
    }
    return true;
}

bool split_wire_get_commit(SplitLayout *l, const uint8_t *buf, size_t len,
                           Error **errp)
{
    if (len != SPLIT_WIRE_COMMIT_LEN) {
        return refuse(errp, "an end of the map of an impossible size");
    }
    if (ldq_be_p(buf) != split_layout_local(l) ||
        ldq_be_p(buf + 8) != split_layout_remote(l)) {
        return refuse(errp, "the map has not arrived as it was sent");
    }
    for (unsigned i = 0; i < l->n_blocks; i++) {
        if (!check_places(&l->blocks[i], errp)) {
            return false;
        }
    }
    if (ldq_be_p(buf + 16) == UINT64_MAX) {
        return refuse(errp, "no version is left");
    }
    l->last_version = ldq_be_p(buf + 16);
    return true;
}
