/*
 * memserver: what a memory host's status looks like to a person and a program
 *
 * Pure: from the structs of the protocol to text.  The JSON members are listed
 * in docs/tools/qemu-memserver.rst and stay as they are; new ones may come.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "status.h"

static char *uuid_text(const uint8_t *bytes)
{
    QemuUUID uuid;

    memcpy(uuid.data, bytes, sizeof(uuid.data));
    return qemu_uuid_unparse_strdup(&uuid);
}

static void put_number(QDict *dict, const char *name, uint64_t value)
{
    qdict_put_int(dict, name, MIN(value, INT64_MAX));
}

static QDict *session_json(const PageLinkSessionStatus *s)
{
    g_autofree char *uuid = uuid_text(s->uuid);
    QDict *dict = qdict_new();

    qdict_put_str(dict, "uuid", uuid);
    qdict_put_str(dict, "name", s->name);
    put_number(dict, "epoch", s->epoch);
    put_number(dict, "connections", s->connections);
    put_number(dict, "blocks", s->blocks);
    put_number(dict, "pages", s->pages);
    put_number(dict, "zero-pages", s->zero_pages);
    put_number(dict, "bytes", s->used_pages * PAGELINK_PAGE_SIZE);
    put_number(dict, "quota-bytes", s->quota_pages * PAGELINK_PAGE_SIZE);
    put_number(dict, "puts", s->puts);
    put_number(dict, "gets", s->gets);
    put_number(dict, "stale", s->stale);
    put_number(dict, "refused", s->refused);
    put_number(dict, "bytes-in", s->bytes_in);
    put_number(dict, "bytes-out", s->bytes_out);
    put_number(dict, "in-rate", s->in_rate);
    put_number(dict, "out-rate", s->out_rate);
    put_number(dict, "idle-ms", s->idle_ms);
    put_number(dict, "age-ms", s->age_ms);
    return dict;
}

static char *status_json(const PageLinkStatus *st,
                         const PageLinkSessionStatus *sessions, uint32_t n)
{
    g_autoptr(QDict) dict = qdict_new();
    g_autoptr(GString) text = NULL;
    QList *list = qlist_new();
    uint32_t i;

    put_number(dict, "uptime-ms", st->uptime_ms);
    put_number(dict, "threads", st->threads);
    put_number(dict, "connections", st->connections);
    put_number(dict, "max-bytes", st->max_pages * PAGELINK_PAGE_SIZE);
    put_number(dict, "bytes", st->used_pages * PAGELINK_PAGE_SIZE);
    put_number(dict, "pages", st->pages);
    put_number(dict, "zero-pages", st->zero_pages);
    put_number(dict, "bytes-in", st->bytes_in);
    put_number(dict, "bytes-out", st->bytes_out);
    put_number(dict, "in-rate", st->in_rate);
    put_number(dict, "out-rate", st->out_rate);
    put_number(dict, "refused", st->refused);
    put_number(dict, "session-count", st->sessions);
    for (i = 0; i < n; i++) {
        qlist_append(list, session_json(&sessions[i]));
    }
    qdict_put(dict, "sessions", list);
    text = qobject_to_json_pretty(QOBJECT(dict), true);
    return g_strdup_printf("%s\n", text->str);
}

static void append_sizes(GString *out, const char *label, uint64_t used,
                         uint64_t max)
{
    g_autofree char *u = size_to_str(used);
    g_autofree char *m = size_to_str(max);

    g_string_append_printf(out, "%s %s of %s", label, u, m);
}

static void append_session(GString *out, const PageLinkSessionStatus *s)
{
    g_autofree char *uuid = uuid_text(s->uuid);
    g_autofree char *bytes = size_to_str(s->used_pages * PAGELINK_PAGE_SIZE);
    g_autofree char *in = size_to_str(s->in_rate);
    g_autofree char *rate_out = size_to_str(s->out_rate);

    g_string_append_printf(out, "%-36s  %-16.16s %5" PRIu64 " %5" PRIu32
                           " %10" PRIu64 " %10" PRIu64 " %10s %9s/s %9s/s"
                           " %8" PRIu64 "\n", uuid,
                           s->name[0] ? s->name : "-", s->epoch,
                           s->connections, s->pages, s->zero_pages, bytes, in,
                           rate_out, s->idle_ms / 1000);
}

static char *status_table(const PageLinkStatus *st,
                          const PageLinkSessionStatus *sessions, uint32_t n)
{
    GString *out = g_string_new(NULL);
    g_autofree char *in = size_to_str(st->in_rate);
    g_autofree char *rate_out = size_to_str(st->out_rate);
    uint32_t i;

    append_sizes(out, "memory:     ", st->used_pages * PAGELINK_PAGE_SIZE,
                 st->max_pages * PAGELINK_PAGE_SIZE);
    g_string_append_printf(out, "\n"
                           "pages:       %" PRIu64 " stored, %" PRIu64
                           " zero\n"
                           "rates:       %s/s in, %s/s out\n"
                           "connections: %" PRIu32 "\n"
                           "refused:     %" PRIu64 "\n"
                           "threads:     %" PRIu32 "\n"
                           "uptime:      %" PRIu64 " s\n"
                           "sessions:    %" PRIu32 "\n",
                           st->pages, st->zero_pages, in, rate_out,
                           st->connections, st->refused, st->threads,
                           st->uptime_ms / 1000, st->sessions);
    if (n) {
        g_string_append_printf(out, "\n%-36s  %-16s %5s %5s %10s %10s %10s "
                               "%11s %11s %8s\n", "SESSION", "NAME", "EPOCH",
                               "CONNS", "PAGES", "ZERO", "MEMORY", "IN",
                               "OUT", "IDLE(s)");
    }
    for (i = 0; i < n; i++) {
        append_session(out, &sessions[i]);
    }
    return g_string_free(out, false);
}

char *ms_status_format(const PageLinkStatus *status,
                       const PageLinkSessionStatus *sessions, uint32_t n,
                       bool json)
{
    return json ? status_json(status, sessions, n) :
           status_table(status, sessions, n);
}
