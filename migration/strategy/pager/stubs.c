/*
 * Remote pager: where there is no userfaultfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-strategy.h"
#include "pager.h"

bool pager_prepare(const SplitSetup *s, Error **errp)
{
    error_setg(errp, "split memory needs Linux at the destination");
    return false;
}

void pager_discard(unsigned block, uint64_t first, uint64_t n)
{
    g_assert_not_reached();
}

bool pager_attach(const SplitLayout *l, Error **errp)
{
    g_assert_not_reached();
}

void pager_abort(void)
{
}

bool pager_attached(void)
{
    return false;
}

bool pager_set_main_memory(uint64_t bytes, Error **errp)
{
    return true;
}

bool pager_vcpu_stuck(int tid)
{
    return false;
}

bool pager_vm_can_reset(void)
{
    return true;
}

void pager_vcpus_resumed(void)
{
}

bool pager_vm_stopping(void)
{
    return false;
}

bool pager_vm_stopped(void)
{
    return false;
}

void pager_init(void)
{
}

RemoteMemoryInfo *qmp_query_remote_memory(Error **errp)
{
    RemoteMemoryInfo *r = g_new0(RemoteMemoryInfo, 1);

    r->state = REMOTE_MEMORY_STATE_NONE;
    return r;
}

void qmp_remote_memory_gather(Error **errp)
{
    error_setg(errp, "The memory of this VM is not split");
}
