/*
 * Unit tests of the messages of the section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Property: a list reads back as it was written; one that is cut short
 * anywhere, or that lies, is an error and nothing else; what a later
 * version adds is skipped, unless it says that it must not be.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qapi/error.h"
#include "io/channel-buffer.h"
#include "migration/strategy/message.h"

typedef struct {
    int seen;
    int refuse_at;              /* 0: never */
    uint64_t sum;
} Reader;

static bool on_message(const StrategyMessage *m, void *opaque, Error **errp)
{
    Reader *r = opaque;

    r->seen++;
    r->sum += m->type;
    for (uint32_t i = 0; i < m->len; i++) {
        r->sum += m->payload[i];
    }
    if (r->seen == r->refuse_at) {
        error_setg(errp, "refused");
        return false;
    }
    return strategy_message_unknown(m, errp);
}

/* Read @len bytes as a list; the error goes to @err */
static bool read_list(const void *data, size_t len, Reader *r, Error **errp)
{
    QIOChannelBuffer *bioc = qio_channel_buffer_new(len);
    QEMUFile *f;
    bool ok;

    bioc->usage = len;
    if (len) {
        memcpy(bioc->data, data, len);
    }
    f = qemu_file_new_input(QIO_CHANNEL(bioc));
    object_unref(OBJECT(bioc));
    ok = strategy_message_get_all(f, on_message, r, errp);
    qemu_fclose(f);
    return ok;
}

static void assert_refused(const void *data, size_t len, const char *named)
{
    Reader r = {};
    Error *err = NULL;

    g_assert_false(read_list(data, len, &r, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), named));
    error_free(err);
}

static GByteArray *write_list(void)
{
    QIOChannelBuffer *bioc = qio_channel_buffer_new(64);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(bioc));
    GByteArray *list = g_byte_array_new();

    strategy_message_put(f, 7, 0, "abc", 3);
    strategy_message_put(f, 9, 0, NULL, 0);
    strategy_message_put_end(f);
    qemu_fflush(f);
    g_byte_array_append(list, bioc->data, bioc->usage);
    object_unref(OBJECT(bioc));
    qemu_fclose(f);
    return list;
}

static void test_round_trip(void)
{
    g_autoptr(GByteArray) list = write_list();
    Reader r = {};

    g_assert_cmpuint(list->len, ==, 3 * 8 + 3);
    g_assert_true(read_list(list->data, list->len, &r, &error_abort));
    g_assert_cmpint(r.seen, ==, 2);
    g_assert_cmpuint(r.sum, ==, 7 + 9 + 'a' + 'b' + 'c');
}

static void test_cut_short(void)
{
    g_autoptr(GByteArray) list = write_list();

    for (size_t len = 0; len < list->len; len++) {
        assert_refused(list->data, len, "ended");
    }
}

static void test_callback_refuses(void)
{
    g_autoptr(GByteArray) list = write_list();
    Reader r = { .refuse_at = 1 };
    Error *err = NULL;

    g_assert_false(read_list(list->data, list->len, &r, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "refused");
    g_assert_cmpint(r.seen, ==, 1);
    error_free(err);
}

static void test_lies(void)
{
    static const struct {
        uint8_t bytes[8];
        const char *named;
    } cases[] = {
        { { 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff }, "bytes" },
        { { 0, 1, 0, 0, 0, 1, 0, 1 }, "bytes" },
        { { 0, 0, 0, 0, 0, 0, 0, 1 }, "end" },
        { { 0, 0, 0, 1, 0, 0, 0, 0 }, "end" },
        { { 0, 5, 0, 1, 0, 0, 0, 0 }, "later version" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_refused(cases[i].bytes, sizeof(cases[i].bytes),
                       cases[i].named);
    }
}

static void test_endless(void)
{
    g_autofree uint8_t *list = g_malloc0((STRATEGY_MSG_MAX_COUNT + 1) * 8);

    for (int i = 0; i < STRATEGY_MSG_MAX_COUNT + 1; i++) {
        stw_be_p(list + i * 8, 3);
    }
    assert_refused(list, (STRATEGY_MSG_MAX_COUNT + 1) * 8, "more than");
}

static void test_longest(void)
{
    g_autofree uint8_t *list = g_malloc0(STRATEGY_MSG_MAX_LEN + 16);
    Reader r = {};

    stw_be_p(list, 3);
    stl_be_p(list + 4, STRATEGY_MSG_MAX_LEN);
    g_assert_true(read_list(list, STRATEGY_MSG_MAX_LEN + 16, &r,
                            &error_abort));
    g_assert_cmpint(r.seen, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    g_test_add_func("/strategy/message/round-trip", test_round_trip);
    g_test_add_func("/strategy/message/cut-short", test_cut_short);
    g_test_add_func("/strategy/message/callback-refuses",
                    test_callback_refuses);
    g_test_add_func("/strategy/message/lies", test_lies);
    g_test_add_func("/strategy/message/endless", test_endless);
    g_test_add_func("/strategy/message/longest", test_longest);
    return g_test_run();
}
