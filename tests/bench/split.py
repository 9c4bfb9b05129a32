# SPDX-License-Identifier: GPL-2.0-or-later
"""
Split memory against a host with room, and against one that swaps

A Linux guest under TCG or KVM goes by split memory to a host with too little
memory and one memory host; by stock QEMU's pre-copy to a host with room; and
by the same to a host with as little memory and a swap file, on this machine's
disk as it is and on one as slow as a SATA disk.  Measured are the migration,
idle and under load, what the guest gets done afterwards, and a fault against
the least that it can cost: userfaultfd and a round trip by TCP.  All hosts are
processes on this machine.  Swapping needs root.
"""

import argparse
import contextlib
from dataclasses import dataclass
from functools import partial
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from lib import binary, remote
from lib.binary import Binary
from lib.guest import PATTERNS, Guest, Load
from lib.machines import Machines
from lib.memhost import MemHost
from lib.migration import MIB, Migration, Settings
from lib.strategy import Strategy
from lib.vm import HERE

import faults
import lost
from memserver import free_port
from suite import (Bars, Column, Curve, Figures, Results, Row, Suite,
                   Unavailable, Verdict, count, mebibytes, milliseconds,
                   options_of, seconds, wrong_pages)
from swaphost import SATA, SwapHost, why_not


HELP = 'migration, faults and throughput of split memory, against swap'

SHARES = (30, 50, 80)
# Of which most is said: migrated to with so much of the memory local
HALF = 50
# Memory that the guest does not fill: its kernel, and what it keeps free
UNFILLED = 112
# What DESIGN.md wants
FAULT = 1.3                 # x the bare round trip
MIGRATION = 1.1             # x plain pre-copy to a host with room
THROUGHPUT = 0.8            # of all-local, by Zipf's law with half local

PAGER, BARE = 'fault: ours, remote pager', 'fault: bare round trip'


@dataclass(frozen=True)
class Way:
    """To where the guest goes, and how; @rates: of the disk to swap to"""
    name: str
    ours: bool = False
    swap: bool = False
    slow: bool = False


ROOM = Way('stock, all local')
SPLIT = Way('ours, split', ours=True)
SWAP = Way('stock, swap to this disk', swap=True)
SLOW = Way('stock, swap to a SATA disk', swap=True, slow=True)
SMALL = (SPLIT, SWAP, SLOW)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--memory', type=int, default=512, metavar='MIB',
                        help=f'of the guest; it fills all but {UNFILLED} '
                        '(512)')
    parser.add_argument('--dirty-rate', type=int, default=8, metavar='MIB',
                        help='that the guest dirties in a second, under load '
                        '(8)')
    parser.add_argument('--bandwidth', type=int, default=112, metavar='MIB',
                        help='of the migration in a second (112)')
    parser.add_argument('--bound', type=int, default=150, metavar='SECONDS',
                        help='after which a migration is cancelled (150)')
    parser.add_argument('--warm-up', type=float, default=10,
                        metavar='SECONDS', help='before throughput is '
                        'measured, for each pattern (10)')
    parser.add_argument('--seconds', type=float, default=10,
                        help='that throughput is measured (10)')
    parser.add_argument('--faults', type=int, default=20000, metavar='N',
                        help='to measure latencies of (20000)')
    parser.add_argument('--quick', action='store_true',
                        help='to try it: a smaller guest, only '
                        f'{HALF} %% local, a few seconds each')


def quick(options: argparse.Namespace) -> argparse.Namespace:
    """The same with the least of everything"""
    small = {'memory': 256, 'warm_up': 2.0, 'seconds': 3.0, 'faults': 2000}
    return argparse.Namespace(**{**vars(options), **small})


class Setting:
    """What all rows have in common"""

    def __init__(self, options: argparse.Namespace):
        self.options = quick(options) if options.quick else options
        self.shares = (HALF,) if options.quick else SHARES
        self.ours = binary.ours()
        self.stock = binary.stock(same_source=True)

    @property
    def fill(self) -> int:
        """MiB that the guest fills"""
        return int(self.options.memory) - UNFILLED

    def local(self, share: int) -> int:
        """Bytes of @share percent of what the guest fills"""
        return self.fill * MIB * share // 100

    def used(self, way: Way) -> Binary:
        """By which binary"""
        return self.ours if way.ours else self.stock

    def idle(self) -> Load:
        """Nothing happens"""
        return Load(fill=self.fill, load=0)

    def busy(self) -> Load:
        """Writes an eighth of it in random order, and reads all of it"""
        return Load(fill=self.fill, ws=self.fill // 8, random=1, read=1,
                    rate=self.options.dirty_rate)

    def reader(self) -> Load:
        """Is going to read"""
        return Load(fill=self.fill, load=0, pattern=PATTERNS['zipf'])


class Journey:
    """One guest, at its source yet, and the way that it is to go"""

    def __init__(self, setting: Setting, local: int, room: Machines,
                 swap: Optional[SwapHost], migration: Migration):
        self._setting = setting
        self._local = local
        self._room = room
        self._swap = swap
        self.migration = migration
        self.guest: Guest = room.guest

    def go(self) -> None:
        """Start it and see it end"""
        self.migration.start()
        # What cannot even be cancelled in time hangs.
        self.migration.wait_end(timeout=4 * self._setting.options.bound)

    def leave(self) -> None:
        """Be where it went to, and nowhere else"""
        if self.migration.states[-1] != 'completed':
            raise RuntimeError(f'the migration is {self.migration.states[-1]}'
                               f': {self.migration.source.migration()}')
        self._room.end(self.migration.source)

    def resident(self) -> int:
        """Bytes of guest memory, with what the pager has staged"""
        machine = self.migration.destination
        found = remote.paged_rss(machine)
        if not found:
            size = self._setting.options.memory * MIB
            # Others may be as large, but hardly as full.
            found = max(mapping.rss for mapping in remote.mappings(machine)
                        if mapping.size == size)
        return found

    def fit(self) -> None:
        """Have no more memory to swap in than main-memory would be"""
        if self._swap:
            self._swap.fit(self._local, self.resident())

    def swapped(self) -> Optional[int]:
        """Bytes, None where there is no swap"""
        return self._swap.swapped() if self._swap else None

    def memory(self) -> Dict[str, Any]:
        """What query-remote-memory says where it went to"""
        return remote.query(self.migration.destination)


def _split_of(local: int, uri: str) -> Strategy:
    return Strategy(split={'main-memory': local,
                           'memory-hosts': [{'uri': uri}]})


@contextlib.contextmanager
def journey(setting: Setting, way: Way, load: Load,
            share: int) -> Iterator[Journey]:
    """With @share percent of memory at its end, unless all of it is there"""
    options, local = setting.options, setting.local(share)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        host, strategy, swap = HERE, None, None
        if way.swap:
            swap = enter(SwapHost(options.memory * MIB,
                                  SATA if way.slow else None))
            host = swap.host
        elif way.ours:
            memory = enter(MemHost(setting.ours, options.memory,
                                   f'tcp:127.0.0.1:{free_port()}'))
            strategy = _split_of(local, memory.uri)
        room = enter(Machines(setting.used(way), load, options.memory))
        migration = Migration(
            room.start(), room.expect(host=host), room.guest,
            Settings(way.name, strategy, bandwidth=options.bandwidth,
                     max_seconds=options.bound, transport='tcp'))
        if swap:
            swap.limit(local)
        yield Journey(setting, local, room, swap, migration)


def measure_migration(setting: Setting, way: Way, load: Load) -> Figures:
    """One run: the way there"""
    with journey(setting, way, load, HALF) as trip:
        work = lost.Work(trip.guest) if load.load else None
        began = time.time()
        trip.go()
        # What faults cost it comes after the end.
        missed = work.figures(trip.migration.started,
                              time.monotonic()) if work else {}
        resumed = trip.migration.resumed_s
        record = trip.migration.record(verify=False)
        swapped = trip.swapped()
        # Reads all of it, at last: for minutes from a slow disk
        wrong = trip.guest.verify(10 * setting.options.bound).total
    figures: Dict[str, Any] = {**record.as_dict(), **missed}
    if not record.completed:
        figures['total_ms'] = figures['lost_ms'] = None
    figures['resumed_ms'] = (resumed - began) * 1000 if resumed else None
    return {**figures, 'wrong_pages': wrong, 'swapped': swapped}


def _beat_after(guest: Guest, wait: float) -> Any:
    """The first heartbeat that comes @wait seconds from now or later"""
    until = time.monotonic() + wait
    while True:
        beat = guest.wait_beats(1)
        if beat.host_s >= until:
            return beat


def measure_throughput(setting: Setting, way: Way, share: int) -> Figures:
    """One run: what the guest gets done afterwards"""
    figures: Dict[str, Any] = {'percent local': share}
    options = setting.options
    with journey(setting, way, setting.reader(), min(share, 99)) as trip:
        trip.go()
        trip.leave()
        trip.fit()
        for name, pattern in PATTERNS.items():
            trip.guest.set(options.bound, pattern=pattern, load=1)
            _beat_after(trip.guest, options.warm_up)
            trip.fit()
            first = trip.guest.wait_beats(1)
            last = _beat_after(trip.guest, options.seconds)
            figures[name] = ((last.ops - first.ops)
                             / (last.host_s - first.host_s))
        figures['wrong_pages'] = last.wrong
        figures['swapped'] = trip.swapped()
        figures['resident'] = trip.resident()
    return figures


def measure_faults(setting: Setting) -> Figures:
    """One run: latencies of the remote pager"""
    options = setting.options
    with journey(setting, SPLIT, setting.reader(), HALF) as trip:
        trip.go()
        trip.leave()
        trip.guest.set(pattern=PATTERNS['uniform'], load=1)
        _beat_after(trip.guest, options.warm_up)
        before = faults.histogram(trip.memory())
        counts = faults.since(before, before)
        while sum(counts.values()) < options.faults:
            beat = _beat_after(trip.guest, 0.25)
            counts = faults.since(before, faults.histogram(trip.memory()))
    return {**faults.figures(counts), 'wrong_pages': beat.wrong}


def measure_bare(setting: Setting) -> Figures:
    """One run: a bare round trip"""
    return faults.bare(setting.options.faults)


def _where_possible(way: Way, measure: Callable[[], Figures]) -> Figures:
    why = why_not(SATA if way.slow else None) if way.swap else ''
    if why:
        raise Unavailable(why)
    return measure()


def after(way: Way, share: int) -> str:
    """Name of a row with throughput"""
    return f'then, {share} % local: {way.name}' if way != ROOM \
        else f'then: {way.name}'


def _rows(setting: Setting) -> List[Row]:
    rows: List[Tuple[str, Way, Callable[[], Figures]]] = [
        (BARE, ROOM, partial(measure_bare, setting)),
        (PAGER, SPLIT, partial(measure_faults, setting))]
    for kind, load in (('idle', setting.idle()), ('loaded', setting.busy())):
        rows += [(f'{kind}: {way.name}', way,
                  partial(measure_migration, setting, way, load))
                 for way in (ROOM, *SMALL)]
    rows += [(after(way, share), way,
              partial(measure_throughput, setting, way, share))
             for way, share in ((ROOM, 100), *(
                 (way, share) for share in setting.shares for way in SMALL))]
    return [Row(name, partial(_where_possible, way, measure))
            for name, way, measure in rows]


def _microseconds(key: str, head: str) -> Column:
    return Column(key, head, '{:.1f} us'.format)


def _rate(key: str, head: str) -> Column:
    return Column(key, head, '{:.0f}/s'.format)


COLUMNS = [
    _microseconds('p50_us', 'p50'), _microseconds('p99_us', 'p99'),
    _microseconds('touch_p50_us', 'touch p50'),
    seconds('total_ms', 'total'), seconds('resumed_ms', 'until it ran'),
    milliseconds('downtime_ms', 'downtime'),
    seconds('lost_ms', 'time lost'), mebibytes('bytes', 'sent'),
    milliseconds('stall_ms', 'longest stall'),
    *(_rate(name, name) for name in PATTERNS),
    mebibytes('resident', 'resident'), mebibytes('swapped', 'swapped'),
    count('wrong_pages', 'wrong'),
]
PLOTS = [
    Bars('p50_us', 'Fault, median', 'us'),
    Bars('p99_us', 'Fault, 99th percentile', 'us'),
    Bars('resumed_ms', 'Migration of an idle guest', 's', 1e-3, 'idle'),
    Bars('resumed_ms', 'Migration of a loaded guest', 's', 1e-3, 'loaded'),
    Bars('lost_ms', 'Time that a loaded guest lost', 's', 1e-3, 'loaded'),
    *(Curve(name, f'Reads afterwards, {name}', '1000 pages/s', 1e-3, 'then',
            x='percent local', groups=[way.name for way in (*SMALL, ROOM)])
      for name in PATTERNS),
]


def judge(results: Results) -> List[Verdict]:
    """What DESIGN.md promises"""
    local, half = after(ROOM, 100), after(SPLIT, HALF)
    return [
        results.at_most('p50 of a fault, against a bare round trip', PAGER,
                        BARE, 'p50_us', FAULT),
        *(results.at_most(f'{kind} guest: total time, against a host with '
                          'room', f'{kind}: {SPLIT.name}',
                          f'{kind}: {ROOM.name}', 'total_ms', MIGRATION)
          for kind in ('idle', 'loaded')),
        results.at_least(f'{HALF} % local: reads by Zipf, against all local',
                         half, local, 'zipf', THROUGHPUT),
        *(results.at_least(f'{HALF} % local: {name} reads, against {way.name}',
                           half, after(way, HALF), name, 1)
          for way in (SWAP, SLOW) for name in PATTERNS),
    ]


def make(options: argparse.Namespace) -> Suite:
    """The rows: faults, migrations, throughput afterwards"""
    setting = Setting(options)
    options = setting.options
    return Suite(
        'split', _rows(setting), COLUMNS, judge, wrong_pages,
        notes=[
            f'Guest of {options.memory} MiB, {setting.fill} MiB filled, one '
            'vCPU; so many percent of these are main-memory, or what the '
            'memory cgroup has room for beyond QEMU itself (and 8 MiB for it '
            'to grow in a migration); '
            f'{HALF} % where nothing else is said.  Migrated at '
            f'{options.bandwidth} MiB/s; loaded: an eighth written at random '
            f'at {options.dirty_rate} MiB/s, all the rest read.  Cancelled '
            f'after {options.bound} s.  SATA disk: {SATA.bytes // 10**6} MB/s '
            f'and {SATA.operations} operations/s.',
            'total: by the source, for which it ends when all is sent; until '
            'it ran: at the destination, which may be slower to take it.  '
            f'time lost: {lost.MEANING}',
            'Fault: from when it is read from the userfaultfd to when its '
            f'page is there, of {options.faults} faults of a guest that reads '
            'uniformly; touch: as the program sees it that touches the page.',
            'then: pages of 4 KiB that the guest reads and verifies in a '
            f'second, for {options.seconds:g} s after {options.warm_up:g} s '
            'of the same pattern; Zipf: exponent 0.99.'],
        plots=PLOTS,
        about={'options': options_of(options)},
        binaries=[setting.ours, setting.stock])
