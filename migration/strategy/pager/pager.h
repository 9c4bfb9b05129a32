/*
 * Remote pager: the main host's side of split memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For as long as a VM's memory is split, the pager is what makes it whole:
 * it serves page faults from the memory hosts and keeps what is resident
 * under main-memory.  This is its face to the rest of QEMU: RAMBlocks, the
 * state of the VM, the monitor.  What it does is in engine.h.
 *
 * There is one pager for a process.  It is
 *
 *   idle --pager_prepare()--> prepared --pager_attach()--> attached
 *
 * and idle again after pager_abort(), or when a gather is done.
 *
 * Main thread with the BQL for all functions, if nothing else is said.
 */
#ifndef MIGRATION_STRATEGY_PAGER_H
#define MIGRATION_STRATEGY_PAGER_H

#include "../split/layout.h"

/*
 * pager_prepare: can this host run the split VM that @s tells of?
 *
 * Tests userfaultfd and its features, finds the RAMBlocks and whether they
 * can be paged, connects to every memory host (as a reader, which changes
 * nothing there), and has transparent huge pages off in the blocks, so that
 * RAM that arrives takes what it needs and no more.  To be called before any
 * page is loaded.  Waits for the network: at most for the time out of a
 * page link per host.
 *
 * On error, nothing is changed.  @s is copied.
 */
bool pager_prepare(const SplitSetup *s, Error **errp);

/*
 * pager_discard: pages of the block with that number in the set-up, which
 * was prepared, have left this host
 */
void pager_discard(unsigned block, uint64_t first, uint64_t n);

/*
 * pager_attach: all RAM has arrived; serve faults from now on
 *
 * To be called before any device state is loaded, since that touches RAM.
 * Takes the sessions over from the source with epoch + 1, discards what is
 * not local, registers userfaultfd.  On error (a host was lost, say) the
 * migration has to fail; the source still has all: call pager_abort().
 *
 * @l stays the caller's.
 */
bool pager_attach(const SplitLayout *l, Error **errp);

/*
 * pager_abort: the incoming migration has failed, or was given up
 *
 * Before the guest has run.  In any state; does nothing when idle.  Sessions
 * that were taken over are ended, others are the source's to end.
 */
void pager_abort(void);

/* pager_attached: is there remote memory?  Any thread. */
bool pager_attached(void);

/*
 * pager_set_main_memory: for migrate-set-parameters on the split VM
 *
 * @bytes: all that may be resident, unmanaged RAM included
 *
 * Takes effect in the background.  Does nothing while not attached.
 */
bool pager_set_main_memory(uint64_t bytes, Error **errp);

/*
 * pager_vcpu_stuck: while the VM is being stopped: does thread @tid wait for a
 * page that may never come?
 *
 * A vCPU that does has not stopped, but runs no instruction of the guest until
 * pager_vcpus_resumed(), and nobody may wait for it.
 */
bool pager_vcpu_stuck(int tid);

/*
 * pager_vm_can_reset: false while a page is waited for that may never come, or
 * a memory host is away; true if no reset is requested
 *
 * Who waits for a page may hold locks, and has an instruction to end.  If all
 * is well, vCPUs are told to stop, and false is returned until they have: then
 * nobody can come to wait while the VM is being reset.  The main loop is run
 * again, soon.
 */
bool pager_vm_can_reset(void);

/* pager_vcpus_resumed: no vCPU needs to stay stopped any more */
void pager_vcpus_resumed(void);

/*
 * pager_vm_stopping: the vCPUs have stopped, devices are to be told
 *
 * Waits until nobody waits for a page that may still come.  True if they must
 * not be told now, since some would wait for requests that wait for pages that
 * are lost; they are told as soon as these are back.
 */
bool pager_vm_stopping(void);

/*
 * pager_vm_stopped: somebody has stopped the VM
 *
 * True if nobody may wait for its block devices: their requests may wait for
 * pages that are lost.
 */
bool pager_vm_stopped(void);

/* pager_init: once, when the migration objects are made */
void pager_init(void);

#endif
