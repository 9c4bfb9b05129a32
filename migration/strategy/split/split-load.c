/*
 * Split memory: what the destination loads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * From the messages of the section to the pager.  The set-up comes before
 * any page, so that a host that cannot do it says so while the guest still
 * runs at the source; the end of the map comes when all pages are there and
 * before any device state is loaded.  Main thread.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "split.h"
#include "wire.h"
#include "../pager/pager.h"
#include "../trace.h"

static struct {
    SplitSetup *setup;
    SplitLayout *layout;        /* from the set-up to the end of the map */
} incoming;

static void incoming_clear(void)
{
    g_clear_pointer(&incoming.setup, split_setup_free);
    g_clear_pointer(&incoming.layout, split_layout_free);
}

/*
 * Their room is for others, which come after this in the stream.  Should one
 * of these come again, it does so later, too.
 */
static void discard(unsigned block, uint64_t first, uint64_t n)
{
    trace_split_load_discard(incoming.setup->blocks[block].idstr, first, n);
    pager_discard(block, first, n);
}

static bool load_setup(const StrategyMessage *m, Error **errp)
{
    if (incoming.setup) {
        error_setg(errp, "ram-strategy: split memory is set up twice");
        return false;
    }
    incoming.setup = split_wire_get_setup(m->payload, m->len, errp);
    if (!incoming.setup || !pager_prepare(incoming.setup, errp)) {
        incoming_clear();
        return false;
    }
    /* Now that the sizes of the blocks are known to be real */
    incoming.layout = split_layout_new(incoming.setup);
    incoming.layout->left = discard;
    trace_split_load_setup(incoming.setup->main_memory,
                           incoming.setup->n_hosts, incoming.setup->n_blocks);
    return true;
}

static bool load_commit(const StrategyMessage *m, Error **errp)
{
    if (!split_wire_get_commit(incoming.layout, m->payload, m->len, errp)) {
        return false;
    }
    trace_split_load_commit(split_layout_local(incoming.layout),
                            incoming.layout->last_version);
    if (!pager_attach(incoming.layout, errp)) {
        return false;
    }
    incoming_clear();
    return true;
}

bool split_load(const StrategyMessage *m, Error **errp)
{
    if (m->type == STRATEGY_MSG_SPLIT_SETUP) {
        return load_setup(m, errp);
    }
    if (!incoming.layout) {
        error_setg(errp, "ram-strategy: message %u of split memory without "
                   "its set-up", m->type);
        return false;
    }
    switch (m->type) {
    case STRATEGY_MSG_SPLIT_EXTENTS:
        return split_wire_get_extents(incoming.layout, incoming.setup->n_hosts,
                                      m->payload, m->len, errp);
    case STRATEGY_MSG_SPLIT_LOCAL:
        return split_wire_get_local(incoming.layout, m->payload, m->len, errp);
    case STRATEGY_MSG_SPLIT_REMOTE:
        return split_wire_get_remote(incoming.layout, m->payload, m->len,
                                     errp);
    case STRATEGY_MSG_SPLIT_COMMIT:
        return load_commit(m, errp);
    default:
        return strategy_message_unknown(m, errp);
    }
}

void split_load_check(QEMUFile *f)
{
    int type;

    if (!incoming.setup) {
        return;
    }
    type = qemu_peek_byte(f, 0);
    if (!qemu_file_get_error(f) &&
        (type == QEMU_VM_SECTION_FULL || type == QEMU_VM_EOF)) {
        error_report("ram-strategy: split memory: the end of the map is "
                     "missing");
        qemu_file_set_error(f, -EINVAL);
    }
}

void split_load_cleanup(bool completed)
{
    if (!completed) {
        pager_abort();
    }
    incoming_clear();
}
