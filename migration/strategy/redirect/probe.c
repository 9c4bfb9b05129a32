/*
 * Redirect: the stream to a new destination, while it only has the set-up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "crypto/random.h"
#include "io/channel-buffer.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "qemu/uuid.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "migration/strategy.h"
#include "../message.h"
#include "../trace.h"
#include "probe.h"

/* Migration thread only */
static struct {
    QEMUFile *file;             /* NULL: there is none */
    JSONWriter *vmdesc;
    RedirectHandshake *handshake;
    RedirectSession session;
    const RedirectBlocks *blocks;
    int64_t rtt_ms;
} probe;

static bool session_new(uint32_t number, Error **errp)
{
    RedirectSession *session = &probe.session;
    QemuUUID uuid;

    qemu_uuid_generate(&uuid);
    memcpy(session->uuid, uuid.data, sizeof(session->uuid));
    session->number = number;
    return qcrypto_random_bytes(session->key, sizeof(session->key),
                                errp) == 0;
}

void redirect_blocks_put(QEMUFile *f, const RedirectBlocks *blocks)
{
    g_autoptr(GByteArray) buf = g_byte_array_new();

    for (uint32_t i = 0; i < blocks->n;) {
        g_byte_array_set_size(buf, 0);
        i += redirect_blocks_encode(buf, blocks, i);
        strategy_message_put(f, STRATEGY_MSG_REDIRECT_BLOCKS,
                             STRATEGY_MSG_REQUIRED, buf->data, buf->len);
    }
}

void redirect_save_setup(QEMUFile *f)
{
    g_autoptr(GByteArray) buf = g_byte_array_new();
    RedirectSetup setup = {
        .session = probe.session,
        .blocks = probe.blocks->n,
    };

    redirect_setup_encode(buf, &setup);
    strategy_message_put(f, STRATEGY_MSG_REDIRECT_SETUP, STRATEGY_MSG_REQUIRED,
                         buf->data, buf->len);
    redirect_blocks_put(f, probe.blocks);
}

/* What migration_thread() sends before its loop; BQL.  @ping: up to PING */
static int probe_save(QEMUFile *f, size_t *ping, Error **errp)
{
    qemu_savevm_state_header(f);
    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, 1);
    qemu_fflush(f);
    *ping = QIO_CHANNEL_BUFFER(qemu_file_get_ioc(f))->usage;
    if (migrate_postcopy()) {
        qemu_savevm_send_postcopy_advise(f);
    }
    return qemu_savevm_state_setup(f, errp) ?: qemu_fflush(f);
}

void redirect_forget_error(const Error *only)
{
    MigrationState *s = migrate_get_current();

    QEMU_LOCK_GUARD(&s->error_mutex);
    if (s->error && (!only || g_str_equal(error_get_pretty(s->error),
                                          error_get_pretty(only)))) {
        g_clear_pointer(&s->error, error_free);
    }
}

bool redirect_probe_begin(QIOChannel *ioc, const RedirectBlocks *blocks,
                          uint32_t number, Error **errp)
{
    MigrationState *s = migrate_get_current();
    JSONWriter *vmdesc = s->vmdesc;
    QIOChannelBuffer *buf;
    Error *err = NULL;
    QEMUFile *f;
    size_t ping;
    int ret;

    if (!session_new(number, errp)) {
        return false;
    }
    probe.blocks = blocks;
    probe.file = qemu_file_new_output(ioc);
    qemu_file_set_blocking(probe.file, true);

    /* With the BQL held, nobody is to wait for the new destination */
    buf = qio_channel_buffer_new(64 * KiB);
    f = qemu_file_new_output(QIO_CHANNEL(buf));
    bql_lock();
    s->vmdesc = vmdesc ? json_writer_new(false) : NULL;
    strategy_repeats_setup_now = true;
    ret = probe_save(f, &ping, &err);
    strategy_repeats_setup_now = false;
    probe.vmdesc = s->vmdesc;
    s->vmdesc = vmdesc;
    bql_unlock();
    if (!ret) {
        probe.handshake =
            redirect_handshake_start(ioc, g_steal_pointer(&buf->data),
                                     buf->usage, ping);
    }
    qemu_fclose(f);
    object_unref(OBJECT(buf));
    if (ret) {
        if (!err) {
            error_setg_errno(&err, -ret, "Cannot set the stream up");
        }
        redirect_forget_error(err);
        error_propagate(errp, err);
        return false;
    }
    trace_redirect_probe(blocks->n);
    return true;
}

void redirect_probe_drop(void)
{
    if (!probe.file) {
        return;
    }
    qemu_file_shutdown(probe.file);
    redirect_handshake_free(g_steal_pointer(&probe.handshake));
    qemu_fclose(g_steal_pointer(&probe.file));
    g_clear_pointer(&probe.vmdesc, json_writer_free);
}

RedirectAnswer redirect_probe_poll(RedirectReady *ready, Error **errp)
{
    return redirect_handshake_poll(probe.handshake, ready, &probe.rtt_ms,
                                   errp);
}

void redirect_probe_answered(void)
{
    redirect_handshake_free(g_steal_pointer(&probe.handshake));
}

const RedirectSession *redirect_probe_session(void)
{
    return &probe.session;
}

int64_t redirect_probe_rtt_ms(void)
{
    return probe.rtt_ms;
}

QEMUFile *redirect_probe_file(void)
{
    return probe.file;
}

QEMUFile *redirect_probe_take(JSONWriter **vmdesc)
{
    *vmdesc = g_steal_pointer(&probe.vmdesc);
    return g_steal_pointer(&probe.file);
}
