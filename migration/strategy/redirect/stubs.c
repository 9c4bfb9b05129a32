/*
 * Redirect: destinations on hosts without the page link
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "relay-ram.h"
#include "sink-ram.h"

bool redirect_sink_active;

static bool not_here(Error **errp)
{
    error_setg(errp, "redirect: needs a Linux host");
    return false;
}

bool redirect_relay_message(const StrategyMessage *m, Error **errp)
{
    return not_here(errp);
}

bool redirect_relay_ordered(void)
{
    return false;
}

void redirect_relay_begin(void (*done)(void))
{
}

bool redirect_relay_running(void)
{
    return false;
}

RamStrategyRedirectInfo *redirect_relay_info(void)
{
    return NULL;
}

bool redirect_sink_message(const StrategyMessage *m, Error **errp)
{
    return not_here(errp);
}

void redirect_sink_source_page(QEMUFile *f, int flags, RAMBlock *block,
                               ram_addr_t offset)
{
}

void redirect_sink_end(void)
{
}

RamStrategyRedirectInfo *redirect_sink_info(void)
{
    return NULL;
}
