# SPDX-License-Identifier: GPL-2.0-or-later
"""
What asynchronous page faults gain in post-copy on demand

The experiment of Yabusame (Hirofuchi et al., 2012): a guest with one vCPU is
started at the destination with none of its memory, and four of its threads
touch a region each, once, from its first page to its last.  Nothing moves but
what the guest asks for.  With asynchronous page faults KVM tells the guest of
a page that is not there, and the guest runs another thread until it comes: up
to four pages are under way at once in place of one.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
import time
from typing import Any, Dict

from lib import scenario
from lib.guest import Load
from lib.machines import Machines
from lib.migration import Migration, Settings
from lib.strategy import Report, Strategy
from lib.vm import VM

from .network import Link


# QEMU's models have the feature, but not the interrupt without which Linux
# since 5.8 leaves it alone.
CPUS = {True: 'qemu64,kvm-asyncpf=on,kvm-asyncpf-int=on',
        False: 'qemu64,kvm-asyncpf=off,kvm-asyncpf-int=off'}
THREADS = 4
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


def measure(async_pf: bool, size: int, delay_us: int, mbit: int = 1000,
            nagle: bool = False) -> Dict[str, Any]:
    """
    One run

    @size: MiB that the threads touch all together
    @delay_us: of one way; @mbit: of the link
    @nagle: leave it on, as QEMU does that is not ours
    """
    load = Load(fill=size, ws=size, threads=THREADS, load=0, rounds=1)
    how = Settings('asyncpf', Strategy('postcopy', background=False),
                   ['postcopy-ram'], transport='tcp')
    binary = scenario.our_binary()
    if nagle:
        binary = replace(binary, environment={'LD_PRELOAD': NO_NODELAY})
    with ExitStack() as stack:
        link = stack.enter_context(Link(delay_us, mbit))
        room = stack.enter_context(Machines(binary, load, MEMORY,
                                            cpu=CPUS[async_pf]))
        source = room.start(host=link.hosts[0])
        there = room.expect(host=link.hosts[1])
        migration = Migration(source, there, room.guest, how)
        migration.start()
        migration.wait_state('postcopy-active')
        room.guest.runs_in(there)
        room.guest.wait_beats(4)
        before = _notices(there)
        asked = _requests(migration)
        room.guest.set(beat=2000)
        began = time.monotonic()
        room.guest.set(load=1)
        room.guest.command('rest', PATIENCE)
        ended = time.monotonic()
        report = Report.of(there.migration())
        assert report
        figures = {
            'total_ms': (ended - began) * 1000,
            'requests': _requests(migration) - asked,
            'notices': _notices(there) - before,
            'in_flight': report.requests_peak,
        }
        room.guest.set(beat=load.beat)
        source.cmd('migrate-set-parameters',
                   Strategy(background=True).arguments())
        migration.wait_end()
        figures['wrong'] = room.guest.verify().total
        return figures
