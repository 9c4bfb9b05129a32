/*
 * The savevm section "ram-strategy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Saving runs on the migration thread, loading on the incoming coroutine
 * of the main thread.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "qemu/thread.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "run.h"
#include "section.h"
#include "trace.h"

/* Main thread only */
static struct {
    bool loaded;
    StrategyConfig config;
} incoming;

static void put_message(QEMUFile *f, uint16_t type, uint16_t flags,
                        const void *payload, uint32_t len)
{
    qemu_put_be16(f, type);
    qemu_put_be16(f, flags);
    qemu_put_be32(f, len);
    qemu_put_buffer(f, payload, len);
}

static int section_save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    uint8_t config[STRATEGY_WIRE_CONFIG_LEN];

    strategy_config_encode(strategy_run_config(), config);
    put_message(f, STRATEGY_MSG_CONFIG, STRATEGY_MSG_REQUIRED,
                config, sizeof(config));
    put_message(f, STRATEGY_MSG_END, 0, NULL, 0);
    return 0;
}

static int section_save_complete(QEMUFile *f, void *opaque)
{
    put_message(f, STRATEGY_MSG_END, 0, NULL, 0);
    return 0;
}

static bool section_is_active(void *opaque)
{
    return strategy_run_active();
}

static bool load_message(uint16_t type, uint16_t flags, const uint8_t *payload,
                         uint32_t len, Error **errp)
{
    switch (type) {
    case STRATEGY_MSG_CONFIG:
        if (!strategy_config_decode(&incoming.config, payload, len, errp)) {
            return false;
        }
        incoming.loaded = true;
        trace_strategy_load(RamStrategyMode_str(incoming.config.mode),
                            incoming.config.passes,
                            incoming.config.background);
        return true;
    default:
        if (flags & STRATEGY_MSG_REQUIRED) {
            error_setg(errp, "ram-strategy: the source requires message %u, "
                       "which this QEMU does not know: it is of a later "
                       "version", type);
            return false;
        }
        return true;
    }
}

/* Returns 1 for a message, 0 for the end of the list, negative on error */
static int get_message(QEMUFile *f, Error **errp)
{
    uint16_t type = qemu_get_be16(f);
    uint16_t flags = qemu_get_be16(f);
    uint32_t len = qemu_get_be32(f);
    g_autofree uint8_t *payload = NULL;

    if (qemu_file_get_error(f)) {
        error_setg(errp, "ram-strategy: the stream ended in a message");
        return -EIO;
    }
    if (len > STRATEGY_MSG_MAX_LEN) {
        error_setg(errp, "ram-strategy: message %u of %" PRIu32 " bytes, more "
                   "than %d are not allowed", type, len, STRATEGY_MSG_MAX_LEN);
        return -EINVAL;
    }
    if (type == STRATEGY_MSG_END && len) {
        error_setg(errp, "ram-strategy: end message of %" PRIu32 " bytes",
                   len);
        return -EINVAL;
    }
    payload = g_malloc(len);
    if (qemu_get_buffer(f, payload, len) != len) {
        error_setg(errp, "ram-strategy: the stream ended in message %u", type);
        return -EIO;
    }
    if (type == STRATEGY_MSG_END) {
        return 0;
    }
    return load_message(type, flags, payload, len, errp) ? 1 : -EINVAL;
}

static int section_load_state(QEMUFile *f, void *opaque, int version_id)
{
    Error *local_err = NULL;
    int ret;

    do {
        ret = get_message(f, &local_err);
    } while (ret > 0);
    if (ret < 0) {
        error_report_err(local_err);
    }
    return ret;
}

static const SaveVMHandlers section_handlers = {
    .is_active = section_is_active,
    .save_setup = section_save_setup,
    .save_live_complete_precopy = section_save_complete,
    .load_state = section_load_state,
};

void strategy_section_register(void)
{
    static bool registered;

    if (!registered) {
        register_savevm_live(STRATEGY_SECTION, 0, STRATEGY_SECTION_VERSION,
                             &section_handlers, NULL);
        registered = true;
    }
}

RamStrategyInfo *strategy_section_query(void)
{
    RamStrategyInfo *info;

    if (!incoming.loaded) {
        return NULL;
    }
    info = g_new0(RamStrategyInfo, 1);
    info->mode = incoming.config.mode;
    info->background = incoming.config.background;
    info->switched = postcopy_state_get() >= POSTCOPY_INCOMING_LISTENING;
    info->reason = g_strdup("chosen by the source");
    return info;
}
