/*
 * Unit tests of split memory's messages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: what is put is got, in fixed bytes; a message that is cut short
 * anywhere, too long, or wrong in any field is an error and changes nothing.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "migration/strategy/split/wire.h"

static SplitSetup *make_setup(void)
{
    SplitSetup *s = split_setup_new(2, 2);

    memset(s->uuid, 0xaa, sizeof(s->uuid));
    memset(s->key, 0xbb, sizeof(s->key));
    s->epoch = 1;
    s->main_memory = 0x10000000;
    s->tls = true;
    s->hosts[0] = (SplitHost) {
        .uri = g_strdup("tcp:h:1"), .capacity = 4096,
    };
    s->hosts[1] = (SplitHost) {
        .uri = g_strdup("unix:/x"), .capacity = 1,
        .tls_hostname = g_strdup("m"),
    };
    s->blocks[0] = (SplitBlock) {
        .id = 0, .idstr = g_strdup("pc.ram"), .pages = 1000,
    };
    s->blocks[1] = (SplitBlock) {
        .id = 1, .idstr = g_strdup("d"), .pages = 3,
    };
    return s;
}

/* Where the fields of make_setup()'s message are */
enum {
    EPOCH = 32, MAIN = 40, EXTENT_BITS = 48, FLAGS = 49, REPLICAS = 50,
    HOSTS = 51, BLOCKS = 52, RESERVED = 54,
    HOST0 = 56, HOST1 = HOST0 + 10 + 7, BLOCK0 = HOST1 + 10 + 7 + 1,
    BLOCK1 = BLOCK0 + 12 + 6, SETUP_END = BLOCK1 + 12 + 1,
};

static void test_setup(void)
{
    g_autoptr(SplitSetup) s = make_setup();
    g_autoptr(GByteArray) a = split_wire_put_setup(s, &error_abort);
    g_autoptr(GByteArray) b = NULL;
    g_autoptr(SplitSetup) t = split_wire_get_setup(a->data, a->len,
                                                   &error_abort);

    g_assert_cmpuint(a->len, ==, SETUP_END);
    g_assert_cmpuint(t->epoch, ==, 1);
    g_assert_cmpuint(t->main_memory, ==, s->main_memory);
    g_assert_true(t->tls);
    g_assert_cmpuint(t->n_hosts, ==, 2);
    g_assert_cmpstr(t->hosts[0].uri, ==, "tcp:h:1");
    g_assert_null(t->hosts[0].tls_hostname);
    g_assert_cmpstr(t->hosts[1].tls_hostname, ==, "m");
    g_assert_cmpuint(t->hosts[0].capacity, ==, 4096);
    g_assert_cmpuint(t->n_blocks, ==, 2);
    g_assert_cmpstr(t->blocks[0].idstr, ==, "pc.ram");
    g_assert_cmpuint(t->blocks[1].pages, ==, 3);
    g_assert_cmpuint(t->blocks[1].id, ==, 1);
    b = split_wire_put_setup(t, &error_abort);
    g_assert_cmpmem(a->data, a->len, b->data, b->len);
}

/* The bytes themselves: they may never change */
static void test_setup_fixed(void)
{
    static const uint8_t tail[] = {
        0, 0, 0, 0, 0, 0, 0, 1,  0, 0, 0, 0, 0x10, 0, 0, 0,
        20, 1, 1, 2,  0, 2, 0, 0,
        0, 0, 0, 0, 0, 0, 0x10, 0,  7, 0,  't', 'c', 'p', ':', 'h', ':', '1',
        0, 0, 0, 0, 0, 0, 0, 1,  7, 1,  'u', 'n', 'i', 'x', ':', '/', 'x', 'm',
        0, 0, 0, 0, 0, 0, 3, 0xe8,  0, 0, 6, 0,  'p', 'c', '.', 'r', 'a', 'm',
        0, 0, 0, 0, 0, 0, 0, 3,  0, 0, 1, 0,  'd',
    };
    g_autoptr(SplitSetup) s = make_setup();
    g_autoptr(GByteArray) a = split_wire_put_setup(s, &error_abort);

    g_assert_cmpmem(a->data, 16, s->uuid, 16);
    g_assert_cmpmem(a->data + 16, 16, s->key, 16);
    g_assert_cmpmem(a->data + 32, a->len - 32, tail, sizeof(tail));
}

static void assert_setup_refused(const uint8_t *buf, size_t len,
                                 const char *named)
{
    g_autofree uint8_t *exact = g_memdup2(buf, len);
    Error *err = NULL;

    g_assert_null(split_wire_get_setup(exact, len, &err));
    if (!strstr(error_get_pretty(err), named)) {
        g_test_message("expected '%s', got '%s'", named,
                       error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
}

static void test_setup_refused(void)
{
    static const struct {
        unsigned at;
        unsigned bytes;
        uint64_t value;
        const char *named;
    } cases[] = {
        { EPOCH, 8, 0, "epoch" },
        { EPOCH, 8, UINT64_MAX, "epoch" },
        { MAIN, 8, 0, "without memory" },
        { EXTENT_BITS, 1, 21, "extents" },
        { FLAGS, 1, 2, "flags" },
        { FLAGS, 1, 0x81, "flags" },
        { REPLICAS, 1, 0, "replicas" },
        { REPLICAS, 1, 2, "replicas" },
        { HOSTS, 1, 0, "number of memory hosts" },
        { HOSTS, 1, 65, "number of memory hosts" },
        { HOSTS, 1, 255, "number of memory hosts" },
        { BLOCKS, 2, 0, "number of RAM blocks" },
        { BLOCKS, 2, 1025, "number of RAM blocks" },
        { RESERVED, 2, 1, "flags" },
        { HOST0, 8, 0, "capacity" },
        { HOST0 + 8, 1, 0, "address" },
        { HOST0 + 10, 1, '\n', "address" },
        { HOST0 + 16, 1, 0, "address" },
        { HOST0 + 10, 1, 0x7f, "address" },
        { HOST1 + 17, 1, 1, "name" },
        { BLOCK0, 8, 0, "size" },
        { BLOCK0, 8, 0x100000001, "size" },
        { BLOCK0 + 8, 2, 1, "name" },
        { BLOCK0 + 10, 1, 0, "name" },
        { BLOCK0 + 11, 1, 1, "name" },
        { BLOCK0 + 12, 1, 0xc3, "name" },
        { BLOCK1 + 10, 1, 2, "name" },
        { BLOCKS, 2, 3, "cut short" },
        { BLOCKS, 2, 1, "too long" },
    };
    g_autoptr(SplitSetup) s = make_setup();
    g_autoptr(GByteArray) a = split_wire_put_setup(s, &error_abort);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree uint8_t *buf = g_memdup2(a->data, a->len);

        stn_be_p(buf + cases[i].at, cases[i].bytes, cases[i].value);
        assert_setup_refused(buf, a->len, cases[i].named);
    }
    for (size_t len = 0; len < a->len; len++) {
        assert_setup_refused(a->data, len, "split memory");
    }
    g_byte_array_append(a, (const uint8_t *)"", 1);
    assert_setup_refused(a->data, a->len, "too long");

    g_free(s->blocks[1].idstr);
    s->blocks[1].idstr = g_strdup("pc.ram");
    g_byte_array_unref(a);
    a = split_wire_put_setup(s, &error_abort);
    assert_setup_refused(a->data, a->len, "twice");
}

/* More blocks than a message has room for */
static void test_setup_too_long(void)
{
    g_autoptr(SplitSetup) s = split_setup_new(1, 1000);
    Error *err = NULL;

    s->hosts[0].uri = g_strdup("unix:/x");
    for (unsigned i = 0; i < s->n_blocks; i++) {
        s->blocks[i].idstr = g_strdup_printf("%0*u", 200, i);
    }
    g_assert_null(split_wire_put_setup(s, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "too many"));
    error_free(err);
    g_free(s->hosts[0].uri);
    s->hosts[0].uri = g_strnfill(256, 'x');
    err = NULL;
    g_assert_null(split_wire_put_setup(s, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "address"));
    error_free(err);
}

static SplitLayout *make_layout(void)
{
    g_autoptr(SplitSetup) s = make_setup();

    return split_layout_new(s);
}

static void fill_layout(SplitLayout *l)
{
    for (unsigned i = 0; i < 1000; i += 3) {
        set_bit(i, l->blocks[0].local);
    }
    set_bit(2, l->blocks[1].local);
    /* Extents 0, 1 and 3 have a host */
    for (unsigned i = 1; i < 500; i += 3) {
        set_bit(i, l->blocks[0].remote);
    }
    memcpy(l->blocks[0].host, "\0\1\xff\1", 4);
    l->last_version = 77;
}

static bool same_layout(const SplitLayout *a, const SplitLayout *b)
{
    return bitmap_equal(a->blocks[0].local, b->blocks[0].local, 1000) &&
           bitmap_equal(a->blocks[1].local, b->blocks[1].local, 3) &&
           bitmap_equal(a->blocks[0].remote, b->blocks[0].remote, 1000) &&
           bitmap_equal(a->blocks[1].remote, b->blocks[1].remote, 3) &&
           !memcmp(a->blocks[0].host, b->blocks[0].host, 4) &&
           !memcmp(a->blocks[1].host, b->blocks[1].host, 1);
}

/* In parts, and over what was there */
static void test_map(void)
{
    static const struct {
        unsigned block, first, n;
    } local[] = { { 0, 64, 128 }, { 0, 192, 808 }, { 0, 0, 64 }, { 1, 0, 3 } },
      extents[] = { { 0, 1, 3 }, { 0, 0, 1 }, { 1, 0, 1 } };
    g_autoptr(SplitLayout) l = make_layout();
    g_autoptr(SplitLayout) m = make_layout();
    uint8_t commit[SPLIT_WIRE_COMMIT_LEN];

    fill_layout(l);
    bitmap_fill(m->blocks[0].local, 1000);
    for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
        g_autoptr(GByteArray) a = split_wire_put_local(
            l, local[i].block, local[i].first, local[i].n);

        g_autoptr(GByteArray) b = split_wire_put_remote(
            l, local[i].block, local[i].first, local[i].n);

        g_assert_true(split_wire_get_local(m, a->data, a->len, &error_abort));
        g_assert_true(split_wire_get_remote(m, b->data, b->len, &error_abort));
    }
    for (size_t i = 0; i < ARRAY_SIZE(extents); i++) {
        g_autoptr(GByteArray) a = split_wire_put_extents(
            l, extents[i].block, extents[i].first, extents[i].n);

        g_assert_true(split_wire_get_extents(m, 2, a->data, a->len,
                                             &error_abort));
    }
    g_assert_true(same_layout(l, m));
    split_wire_put_commit(l, commit);
    g_assert_true(split_wire_get_commit(m, commit, sizeof(commit),
                                        &error_abort));
    g_assert_cmpuint(m->last_version, ==, 77);
}

static GString *left;

static void on_left(unsigned block, uint64_t first, uint64_t n)
{
    g_string_append_printf(left, "%u:%" PRIu64 "+%" PRIu64 " ", block, first,
                           n);
}

/* What a map takes from the main host, and nothing else, is told */
static void test_map_left(void)
{
    g_autoptr(SplitLayout) l = make_layout();
    g_autoptr(SplitLayout) m = make_layout();
    g_autoptr(GByteArray) a = NULL;
    g_autoptr(GByteArray) b = NULL;

    left = g_string_new(NULL);
    bitmap_set(l->blocks[0].local, 60, 100);
    bitmap_set(l->blocks[0].local, 999, 1);
    a = split_wire_put_local(l, 0, 0, 1000);
    m->left = on_left;
    g_assert_true(split_wire_get_local(m, a->data, a->len, &error_abort));
    g_assert_cmpstr(left->str, ==, "");
    bitmap_clear(l->blocks[0].local, 60, 10);
    bitmap_clear(l->blocks[0].local, 130, 2);
    bitmap_clear(l->blocks[0].local, 999, 1);
    bitmap_set(l->blocks[0].local, 500, 10);
    b = split_wire_put_local(l, 0, 64, 936);
    g_assert_true(split_wire_get_local(m, b->data, b->len, &error_abort));
    g_assert_cmpstr(left->str, ==, "0:64+6 0:130+2 0:999+1 ");
    /* Where the message says nothing, nothing changes */
    g_assert_true(test_bit(60, m->blocks[0].local));
    g_string_free(left, true);
}

static void test_map_fixed(void)
{
    static const uint8_t local[] = {
        0, 1, 0, 0,  0, 0, 0, 3,  0, 0, 0, 0, 0, 0, 0, 0,
        4, 0, 0, 0, 0, 0, 0, 0,
    }, extents[] = {
        0, 0, 0, 0,  0, 0, 0, 2,  0, 0, 0, 0, 0, 0, 0, 1,  1, 0xff,
    }, commit[] = {
        0, 0, 0, 0, 0, 0, 1, 0x4f,  0, 0, 0, 0, 0, 0, 0, 167,
        0, 0, 0, 0, 0, 0, 0, 77,
    };
    g_autoptr(SplitLayout) l = make_layout();
    g_autoptr(GByteArray) a = NULL;
    g_autoptr(GByteArray) b = NULL;
    uint8_t buf[SPLIT_WIRE_COMMIT_LEN];

    fill_layout(l);
    a = split_wire_put_local(l, 1, 0, 3);
    g_assert_cmpmem(a->data, a->len, local, sizeof(local));
    b = split_wire_put_extents(l, 0, 1, 2);
    g_assert_cmpmem(b->data, b->len, extents, sizeof(extents));
    split_wire_put_commit(l, buf);
    g_assert_cmpmem(buf, sizeof(buf), commit, sizeof(commit));
}

typedef bool GetChunk(SplitLayout *l, const uint8_t *buf, size_t len,
                      Error **errp);

static bool get_extents(SplitLayout *l, const uint8_t *buf, size_t len,
                        Error **errp)
{
    return split_wire_get_extents(l, 2, buf, len, errp);
}

static void assert_chunk_refused(GetChunk *get, const uint8_t *buf, size_t len,
                                 const char *named)
{
    g_autoptr(SplitLayout) l = make_layout();
    g_autoptr(SplitLayout) before = make_layout();
    g_autofree uint8_t *exact = g_memdup2(buf, len);
    Error *err = NULL;

    fill_layout(l);
    fill_layout(before);
    g_assert_false(get(l, exact, len, &err));
    if (!strstr(error_get_pretty(err), named)) {
        g_test_message("expected '%s', got '%s'", named,
                       error_get_pretty(err));
        g_test_fail();
    }
    error_free(err);
    g_assert_true(same_layout(l, before));
}

static void test_map_refused(void)
{
    static const struct {
        GetChunk *get;
        unsigned at;
        unsigned bytes;
        uint64_t value;
        const char *named;
    } cases[] = {
        { split_wire_get_local, 0, 2, 2, "no RAM block" },
        { split_wire_get_local, 0, 2, 0xffff, "no RAM block" },
        { split_wire_get_local, 2, 2, 1, "no RAM block" },
        { split_wire_get_local, 4, 4, 0, "no RAM block" },
        { split_wire_get_local, 4, 4, 63, "beyond" },
        { split_wire_get_local, 4, 4, 65, "beyond" },
        { split_wire_get_local, 4, 4, 0xffffffff, "beyond" },
        { split_wire_get_local, 8, 8, 960, "beyond" },
        { split_wire_get_local, 8, 8, 1024, "beyond" },
        { split_wire_get_local, 8, 8, 32, "beyond" },
        { split_wire_get_local, 8, 8, UINT64_MAX - 63, "beyond" },
        { get_extents, 0, 2, 3, "no RAM block" },
        { get_extents, 2, 2, 1, "no RAM block" },
        { get_extents, 4, 4, 0, "no RAM block" },
        { get_extents, 4, 4, 1, "beyond" },
        { get_extents, 4, 4, 0xffffffff, "beyond" },
        { get_extents, 8, 8, 3, "beyond" },
        { get_extents, 8, 8, UINT64_MAX, "beyond" },
        { get_extents, 16, 1, 2, "unknown memory host" },
        { get_extents, 17, 1, 0xfe, "unknown memory host" },
    };
    g_autoptr(SplitLayout) l = make_layout();
    g_autoptr(GByteArray) local = NULL;
    g_autoptr(GByteArray) extents = NULL;
    g_autoptr(GByteArray) tail = NULL;

    local = split_wire_put_local(l, 0, 64, 64);
    extents = split_wire_put_extents(l, 0, 1, 2);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool is_local = cases[i].get == split_wire_get_local;
        GByteArray *a = is_local ? local : extents;
        g_autofree uint8_t *buf = g_memdup2(a->data, a->len);

        stn_be_p(buf + cases[i].at, cases[i].bytes, cases[i].value);
        assert_chunk_refused(cases[i].get, buf, a->len, cases[i].named);
    }
    for (size_t len = 0; len < local->len; len++) {
        assert_chunk_refused(split_wire_get_local, local->data, len,
                             "split memory");
    }
    for (size_t len = 0; len < extents->len; len++) {
        assert_chunk_refused(get_extents, extents->data, len, "split memory");
    }
    /* Block 1 has 3 pages */
    tail = split_wire_put_local(l, 1, 0, 3);
    tail->data[SPLIT_WIRE_CHUNK_LEN] = 8;
    assert_chunk_refused(split_wire_get_local, tail->data, tail->len, "bits");
    tail->data[SPLIT_WIRE_CHUNK_LEN] = 0;
    tail->data[tail->len - 1] = 0x80;
    assert_chunk_refused(split_wire_get_local, tail->data, tail->len, "bits");
}

/* Longer than a message may be, in a block that has as many pages */
static void test_map_too_long(void)
{
    g_autoptr(SplitSetup) s = make_setup();
    g_autoptr(SplitLayout) l = NULL;
    g_autofree uint8_t *buf = g_malloc0(SPLIT_WIRE_MAX_LEN);
    uint32_t pages = SPLIT_WIRE_MAX_PAGES + 64;
    uint32_t extents = SPLIT_WIRE_MAX_EXTENTS + 1;

    s->blocks[0].pages = (uint64_t)SPLIT_WIRE_MAX_EXTENTS * 2 *
                         SPLIT_EXTENT_PAGES;
    l = split_layout_new(s);
    stl_be_p(buf + 4, pages - 64);
    g_assert_true(split_wire_get_local(l, buf, SPLIT_WIRE_CHUNK_LEN +
                                       pages / 8 - 8, &error_abort));
    stl_be_p(buf + 4, pages);
    g_assert_false(split_wire_get_local(l, buf, SPLIT_WIRE_CHUNK_LEN +
                                        pages / 8, NULL));
    g_assert_false(split_wire_get_remote(l, buf, SPLIT_WIRE_CHUNK_LEN +
                                         pages / 8, NULL));
    stl_be_p(buf + 4, extents - 1);
    g_assert_true(get_extents(l, buf, SPLIT_WIRE_CHUNK_LEN + extents - 1,
                              &error_abort));
    stl_be_p(buf + 4, extents);
    g_assert_false(get_extents(l, buf, SPLIT_WIRE_CHUNK_LEN + extents, NULL));
}

static void assert_commit_refused(SplitLayout *l, const char *named)
{
    uint8_t buf[SPLIT_WIRE_COMMIT_LEN];
    Error *err = NULL;

    split_wire_put_commit(l, buf);
    g_assert_false(split_wire_get_commit(l, buf, sizeof(buf), &err));
    g_assert_nonnull(strstr(error_get_pretty(err), named));
    error_free(err);
}

/* Totals that are right, of a map that is not */
static void test_places_refused(void)
{
    g_autoptr(SplitLayout) l = make_layout();

    fill_layout(l);
    set_bit(3, l->blocks[0].remote);
    assert_commit_refused(l, "two places");
    clear_bit(3, l->blocks[0].remote);
    set_bit(767, l->blocks[0].remote);
    assert_commit_refused(l, "without a memory host");
    clear_bit(767, l->blocks[0].remote);
    set_bit(0, l->blocks[1].remote);
    assert_commit_refused(l, "without a memory host");
}

static void test_commit_refused(void)
{
    g_autoptr(SplitLayout) l = make_layout();
    uint8_t good[SPLIT_WIRE_COMMIT_LEN + 1] = {};

    fill_layout(l);
    split_wire_put_commit(l, good);
    for (unsigned at = 0; at < SPLIT_WIRE_COMMIT_LEN; at += 8) {
        uint8_t buf[SPLIT_WIRE_COMMIT_LEN];
        Error *err = NULL;

        memcpy(buf, good, sizeof(buf));
        stq_be_p(buf + at, at == 16 ? UINT64_MAX : ldq_be_p(buf + at) + 1);
        g_assert_false(split_wire_get_commit(l, buf, sizeof(buf), &err));
        error_free(err);
    }
    for (unsigned len = 0; len <= sizeof(good); len++) {
        g_autofree uint8_t *buf = g_memdup2(good, len);

        g_assert_cmpint(split_wire_get_commit(l, buf, len, NULL), ==,
                        len == SPLIT_WIRE_COMMIT_LEN);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/strategy/split/wire/setup", test_setup);
    g_test_add_func("/strategy/split/wire/setup/fixed", test_setup_fixed);
    g_test_add_func("/strategy/split/wire/setup/refused", test_setup_refused);
    g_test_add_func("/strategy/split/wire/setup/too-long", test_setup_too_long);
    g_test_add_func("/strategy/split/wire/map", test_map);
    g_test_add_func("/strategy/split/wire/map/left", test_map_left);
    g_test_add_func("/strategy/split/wire/map/fixed", test_map_fixed);
    g_test_add_func("/strategy/split/wire/map/refused", test_map_refused);
    g_test_add_func("/strategy/split/wire/map/too-long", test_map_too_long);
    g_test_add_func("/strategy/split/wire/commit/places", test_places_refused);
    g_test_add_func("/strategy/split/wire/commit/refused", test_commit_refused);
    return g_test_run();
}
