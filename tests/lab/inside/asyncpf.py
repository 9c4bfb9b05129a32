# SPDX-License-Identifier: GPL-2.0-or-later
"""
What asynchronous page faults gain in post-copy on demand

The experiment of Yabusame (Hirofuchi et al., 2012): a guest with one vCPU is
started at the destination with none of its memory, and four of its threads
touch a region each, once, from its first page to its last.  Nothing moves but
what the guest asks for.  With asynchronous page faults KVM tells the guest of
a page that is not there, and the guest runs another thread until it comes: up
to four pages are under way at once in place of one.

Where the guest is not told, KVM halts the vCPU, and each interrupt wakes it:
at its clock's tick the guest may run another thread by itself, or else enters
and leaves for nothing.  On hardware some fifteen pages come between two ticks,
so that this hardly matters.  In the lab a page takes longer than a tick.  So
the threads are of the class SCHED_FIFO, from which no tick takes the vCPU, and
the vCPU is one that stands still until its page is there.
"""

from contextlib import ExitStack
from dataclasses import replace
import os
from pathlib import Path
import time
from typing import Any, Dict, Tuple

from lib import scenario
from lib.guest import Load
from lib.machines import Machines
from lib.migration import Migration, MigrationError, Settings
from lib.strategy import Report, Strategy
from lib.vm import VM

from .network import Link


# QEMU's models have the feature, but not the interrupt without which Linux
# since 5.8 leaves it alone.
CPUS = {True: 'qemu64,kvm-asyncpf=on,kvm-asyncpf-int=on',
        False: 'qemu64,kvm-asyncpf=off,kvm-asyncpf-int=off'}
# KVM does not halt a vCPU that may halt without KVM seeing it
STANDS_STILL = ('-overcommit', 'cpu-pm=on')
THREADS = 4
PAGES_PER_MIB = 256
# MiB
MEMORY = 192
NO_NODELAY = '/lab/no-nodelay.so'
# A hang; what is measured ends in a fraction of it.
PATIENCE = 600.0


def _notices(machine: VM) -> int:
    """Asynchronous page faults that KVM told the guest of so far"""
    folder = next(Path('/sys/kernel/debug/kvm').glob(
        f'{machine.get_pid()}-*'))
    return int((folder / 'pf_guest').read_text('ascii'))


def _requests(migration: Migration) -> int:
    return int(migration.source.migration()['ram']['postcopy-requests'])


def _check_window(migration: Migration, pages: int, requests: int) -> None:
    """
    In the window that was measured, each page was touched for the first time
    since the guest is at the destination, and had to be asked for
    """
    guest = migration.guest
    touched = guest.wait_beats(1).ops
    boots = sum('guest: ready ' in line for line in guest.lines)
    answer = migration.source.migration()
    if (touched == pages <= requests and boots == 1
            and answer['status'] == 'postcopy-active'):
        return
    raise MigrationError(
        f'the threads touched {touched} of {pages} pages and {requests} were '
        f'asked for meanwhile, the guest booted {boots} times; states '
        f'{migration.states}, the source says {answer}, the destination '
        f'{migration.destination.migration()}, the guest '
        f'{guest.lines[-8:]}')


def _cpu_ticks() -> Tuple[int, int]:
    """Of this host's CPUs: in which they ran, and all"""
    line = Path('/proc/stat').read_text('ascii').split('\n', 1)[0]
    ticks = [int(word) for word in line.split()[1:]]
    idle = ticks[3] + ticks[4]
    return sum(ticks[:8]) - idle, sum(ticks[:8])


class Work:
    """How long threads run from now on, as shares of the time"""

    def __init__(self, source: VM, there: VM):
        self._machines = (source, there)
        self._ticks = self._threads()
        self._cpu = _cpu_ticks()
        self.began = time.monotonic()

    def _threads(self) -> Dict[Tuple[str, str], int]:
        return {(name, tid): ticks for machine in self._machines
                for tid, (name, ticks) in machine.thread_ticks().items()}

    def figures(self) -> Dict[str, float]:
        """Until now: all CPUs, the vCPU, the busiest thread of migration"""
        seconds = time.monotonic() - self.began
        busy, ticks = (now - then
                       for now, then in zip(_cpu_ticks(), self._cpu))
        shares = {key: (now - self._ticks.get(key, 0))
                  / os.sysconf('SC_CLK_TCK') / seconds
                  for key, now in self._threads().items()}
        return {'cpu': busy / ticks,
                'vcpu': max(share for (name, _), share in shares.items()
                            if name.startswith('CPU ')),
                'threads': max(share for (name, _), share in shares.items()
                               if name.startswith('mig/'))}


# pylint: disable=too-many-arguments,too-many-locals
def measure(async_pf: bool, size: int, delay_us: int, mbit: float = 1000,
            nagle: bool = False, slices: bool = False,
            halted: bool = False) -> Dict[str, Any]:
    """
    One run

    @size: MiB that the threads touch all together
    @delay_us: of one way; @mbit: of the link, 0 is unlimited
    @nagle: leave it on, as QEMU does that is not ours
    @slices: let the guest divide the time among its threads as ever
    @halted: without asynchronous page faults, let KVM halt the vCPU
    """
    load = Load(fill=size, ws=size, threads=THREADS, load=0, rounds=1,
                fifo=int(not slices))
    how = Settings('asyncpf', Strategy('postcopy', background=False),
                   ['postcopy-ram'], transport='tcp')
    binary = scenario.our_binary()
    if nagle:
        binary = replace(binary, environment={'LD_PRELOAD': NO_NODELAY})
    with ExitStack() as stack:
        link = stack.enter_context(Link(delay_us, mbit))
        room = stack.enter_context(Machines(
            binary, load, MEMORY, cpu=CPUS[async_pf],
            extra=() if async_pf or halted else STANDS_STILL))
        source = room.start(host=link.hosts[0])
        there = room.expect(host=link.hosts[1])
        migration = Migration(source, there, room.guest, how)
        migration.start()
        migration.wait_postcopy()
        # What it takes to obey is there before it counts
        room.guest.wait_beats(4)
        room.guest.set(beat=2000)
        before = _notices(there)
        asked = _requests(migration)
        work = Work(source, there)
        room.guest.set(PATIENCE, load=1)
        room.guest.command('rest', PATIENCE)
        seconds = time.monotonic() - work.began
        shares = work.figures()
        report = Report.of(there.migration())
        assert report
        requests = _requests(migration) - asked
        notices = _notices(there) - before
        _check_window(migration, size * PAGES_PER_MIB, requests)
        figures = {
            'total_ms': seconds * 1000,
            'page_us': seconds * 1e6 / requests,
            **shares,
            'requests': requests,
            'notices': notices,
            'in_flight': report.requests_peak,
        }
        room.guest.set(beat=load.beat)
        source.cmd('migrate-set-parameters',
                   Strategy(background=True).arguments())
        migration.wait_end()
        figures['wrong'] = room.guest.verify().total
        return figures
