# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest's life, stage by stage, and the time that each of them costs it

One Linux guest, which writes and verifies its memory all along, goes from host
to host.  Ours: under load to another host by strategy auto; by split memory to
a host that has too little; there main-memory is cut further; all is gathered;
and on its way to one host it is redirected to another.  Stock QEMU does what it
can do of that: under load by pre-copy, which is cancelled in the end, and by
post-copy; to a host with room by pre-copy; and instead of a redirect it cancels
and begins anew.  In the end the guest verifies all of its pages.

Hosts are network namespaces, over links that are limited by tbf.  Needs root.
"""

import argparse
from collections import deque
import contextlib
from dataclasses import dataclass, field
from functools import partial
import time
from typing import (Any, Callable, Deque, Dict, Iterator, List, Optional,
                    Tuple, Union)

from lib import binary, remote
from lib.binary import Binary
from lib.guest import Load, longest_stall_ms
from lib.links import Links, Rate
from lib.machines import Machines
from lib.memhost import MemHost
from lib.migration import MIB, Migration, Settings
from lib.strategy import Strategy
from lib.vm import VM

import lost
from redirect import NEVER_SLOWER, REDIRECT, RESTART, Journey
from split import MIGRATION
from suite import (Bars, Figures, Lines, Results, Row, Suite, Verdict, count,
                   mebibytes, milliseconds, options_of, seconds, wrong_pages)


HELP = 'one guest from auto to split, resize, gather and redirect'

POSTCOPY = ['postcopy-ram']
MEMORY_PORT = 7001
# Memory that the guest does not fill: its kernel, and what it keeps free
UNFILLED = 112
# Percent of what it fills that are local at first, and then
SPLIT, CUT = 50, 35
# Of the first pass, when the destination changes
SHARE = 0.5
# As documented: what may be resident beyond main-memory
OVERHEAD = 1.02

# In the order of the guest's life, for the rows
OURS = AUTO, SPLITS, CUTS, GATHERS, REDIRECTS, LIFE = (
    'ours, 1: auto, under load', 'ours, 2: split, to a small host',
    'ours, 3: main-memory is cut', 'ours, 4: gathered',
    'ours, 5: redirected', 'ours, its whole life')
STOCK = PRECOPY, BY_POSTCOPY, CALM, RESTARTS, STOCK_LIFE = (
    'stock, 1: pre-copy, under load', 'stock, 2: post-copy, under load',
    'stock, 3: pre-copy, to a host with room',
    'stock, 4: cancelled and begun anew', 'stock, its whole life')


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--memory', type=int, default=512, metavar='MIB',
                        help=f'of the guest; it fills all but {UNFILLED} '
                        '(512)')
    parser.add_argument('--dirty-rate', type=int, default=4, metavar='MIB',
                        help='that the guest dirties in a second where it is '
                        'not under load (4)')
    parser.add_argument('--rate', type=int, default=64, metavar='MIB',
                        help='that a host can send in a second; it receives '
                        'twice as much (64)')
    parser.add_argument('--bound', type=int, default=40, metavar='SECONDS',
                        help='after which a pre-copy is cancelled (40)')


@dataclass
class Life:
    """
    One guest and its hosts, at the first of them yet

    Each method below is a stage, and returns its figures.
    """
    options: argparse.Namespace
    room: Machines
    links: Links
    memory: Optional[MemHost]
    host: str = 'first'
    at: VM = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.room.start(host=self.links.host(self.host))

    def watched(self, sender: str, act: Callable[[], Dict[str, Any]]
                ) -> Figures:
        """Do it; what it cost the guest, and what @sender sent"""
        guest = self.room.guest
        work = lost.Work(guest)
        sent = self.links.sent(sender)
        began = time.monotonic()
        figures = act()
        ended = time.monotonic()
        sent = self.links.sent(sender) - sent
        missed = work.figures(began, ended)
        beats = guest.beats_since(began)
        return {'completed': True, 'total_ms': (ended - began) * 1000,
                'bytes': sent, 'resident': remote.paged_rss(self.at) or None,
                'stall_ms': longest_stall_ms(beats, guest.beat_ms),
                'wrong_pages': beats[-1].wrong, **missed, **figures}

    def move(self, to: str, settings: Settings) -> Figures:
        """To another host; stays where it is when that does not succeed"""
        migration = Migration(self.at,
                              self.room.expect(host=self.links.host(to)),
                              self.room.guest, settings)

        def act() -> Dict[str, Any]:
            migration.start()
            migration.wait_end()
            record = migration.record(verify=False)
            return {'completed': record.completed,
                    'outcome': record.outcome,
                    'downtime_ms': record.downtime_ms,
                    # That of a migration that was cancelled is its bound's.
                    'total_ms': record.total_ms if record.completed else None}

        source = self.host
        figures = {**self.watched(source, act)}
        if figures['completed']:
            self.room.end(self.at)
            self.at, self.host = migration.destination, to
            figures['resident'] = remote.paged_rss(self.at) or None
        else:
            self.room.end(migration.destination)
            figures['lost_ms'] = None
        return figures

    def settings(self, name: str, **more: Any) -> Settings:
        """How to migrate, within the bounds that all have"""
        return Settings(name, bandwidth=self.options.rate, transport='tcp',
                        max_seconds=self.options.bound, **more)

    def calm(self, act: Callable[[], Figures]) -> Figures:
        """From now on the guest writes at a rate that a link can carry"""
        self.room.guest.set(rate=self.options.dirty_rate, random=1, read=1)
        return act()

    def local(self, percent: int) -> int:
        """In bytes, of what the guest fills"""
        return int(self.options.memory - UNFILLED) * MIB * percent // 100

    def split(self) -> Figures:
        """To a host that has half of the memory it needs"""
        assert self.memory
        size = self.local(SPLIT)
        strategy = Strategy(split={'main-memory': size,
                                   'memory-hosts': [{'uri': self.memory.uri}]})
        figures = self.move('small', self.settings('split',
                                                   strategy=strategy))
        if not figures['completed']:
            raise RuntimeError(f'the migration is {figures["outcome"]}')
        return {**figures, 'main_memory': size}

    def cut(self) -> Figures:
        """Somebody else needs memory there"""
        size = self.local(CUT)

        def act() -> Dict[str, Any]:
            self.at.cmd('migrate-set-parameters',
                        strategy={'split': {'main-memory': size}})
            deadline = time.monotonic() + remote.PATIENCE
            while True:
                said = remote.query(self.at)
                if said['main-memory'] == size and size >= sum(
                        said[part] for part in ('unmanaged', 'resident',
                                                'staged')):
                    return {'main_memory': size}
                if time.monotonic() > deadline:
                    raise RuntimeError(f'does not shrink to {size}: {said}')
                self.room.guest.wait_beats(1)

        return self.watched(self.host, act)

    def gather(self) -> Figures:
        """There is room for all of it after all"""
        memory = self.memory
        assert memory

        def act() -> Dict[str, Any]:
            remote.gather(self.at)
            return {}

        figures = self.watched('memory', act)
        left = [*remote.leftovers(self.at), *map(str, memory.sessions())]
        if left:
            raise RuntimeError(f'gathered, but there is: {left}')
        return figures

    def change(self, way: str) -> Figures:
        """To one host, and half-way to another; from when that is said"""
        trip = Journey(self.room, self.links, way, self.at,
                       (self.host, 'wrong', 'last'))
        began = time.monotonic()
        order = trip.go(SHARE)
        trip.change()
        # Has the guest verify all of its pages
        figures = trip.figures(order, began, self.options.dirty_rate)
        self.at, self.host = trip.hosts['last'], 'last'
        return {**figures, 'total_ms': figures['time_ms']}


Stage = Tuple[str, Callable[[Life], Figures]]


def our_stages() -> List[Stage]:
    """What ours does, and in which row it stands"""
    return [
        (AUTO, lambda life: life.move('second', life.settings(
            'auto', strategy=Strategy('auto'), capabilities=POSTCOPY))),
        (SPLITS, lambda life: life.calm(life.split)),
        (CUTS, lambda life: life.cut()),
        (GATHERS, lambda life: life.gather()),
        (REDIRECTS, lambda life: life.change(REDIRECT))]


def stock_stages() -> List[Stage]:
    """What stock QEMU does"""
    return [
        (PRECOPY, lambda life: life.move('second',
                                         life.settings('precopy'))),
        (BY_POSTCOPY, lambda life: life.move('second', life.settings(
            'postcopy', capabilities=POSTCOPY, switch_at_pass=1))),
        (CALM, lambda life: life.calm(lambda: life.move(
            'small', life.settings('precopy')))),
        (RESTARTS, lambda life: life.change(RESTART))]


@contextlib.contextmanager
def living(used: Binary, ours: bool,
           options: argparse.Namespace) -> Iterator[Life]:
    """A guest under load, and all hosts that it will ever need"""
    rate = Rate(options.rate, 2 * options.rate)
    fill = options.memory - UNFILLED
    load = Load(fill=fill, ws=fill // 4)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        links = enter(Links({name: rate for name in (
            'first', 'second', 'small', 'memory', 'wrong', 'last')}))
        memory = enter(MemHost(
            used, options.memory,
            f'tcp:{links.address("memory")}:{MEMORY_PORT}',
            links.prefix('memory'))) if ours else None
        yield Life(options, enter(Machines(used, load, options.memory)),
                   links, memory)


def whole(stages: List[Figures], wrong: int) -> Figures:
    """Sums over what succeeded, and the guest's verdict in the end"""
    done = [figures for figures in stages if figures['completed']]
    return {'completed': True, 'wrong_pages': wrong,
            **{key: sum(float(figures.get(key) or 0)  # type: ignore
                        for figures in done)
               for key in ('total_ms', 'lost_ms', 'downtime_ms', 'bytes')},
            'stall_ms': max(float(figures['stall_ms'])  # type: ignore
                            for figures in done)}


class Lives:
    """
    Each row is a stage of a life: that of the first row that asks is lived
    whole, and the others are given their part of it
    """

    def __init__(self, stages: List[Stage], life: str,
                 begin: Callable[[], 'contextlib.AbstractContextManager[Life]']
                 ):
        self._stages = stages
        self._life = life
        self._begin = begin
        self._waiting: Dict[str, Deque[Union[Figures, Exception]]] = {
            name: deque() for name, _ in (*stages, (life, None))}

    def rows(self) -> List[Row]:
        """In the order of the life"""
        return [Row(name, partial(self._take, name))
                for name in self._waiting]

    def _take(self, name: str) -> Figures:
        waiting = self._waiting[name]
        if not waiting:
            self._live()
        found = waiting.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _live(self) -> None:
        """Figures, or the failure after which there are none, for each"""
        lived: List[Figures] = []
        try:
            with self._begin() as life:
                for name, stage in self._stages:
                    lived.append(stage(life))
                    self._waiting[name].append(lived[-1])
                wrong = life.room.guest.verify().total
            # A life that did not end well has no figures of its own
            self._waiting[self._life].append(whole(lived, wrong))
        except Exception as exc:  # pylint: disable=broad-except
            for name in list(self._waiting)[len(lived):]:
                self._waiting[name].append(exc)


COLUMNS = [
    seconds('total_ms', 'stage'),
    milliseconds('downtime_ms', 'downtime'),
    seconds('lost_ms', 'time lost'),
    milliseconds('stall_ms', 'longest stall'),
    mebibytes('bytes', 'sent'),
    mebibytes('resident', 'resident'),
    count('wrong_pages', 'wrong'),
]


def _small(results: Results, row: str) -> Verdict:
    ratio = results.ratio(row, row, 'resident', 'main_memory')
    return Verdict(f'{row}: resident at most {OVERHEAD:g} x main-memory',
                   None if ratio is None else ratio <= OVERHEAD,
                   'not measured' if ratio is None else f'{ratio:.3f} x',
                   (row,))


def judge(results: Results) -> List[Verdict]:
    """That it gets through, and what DESIGN.md promises of the stages"""
    return [
        results.every(f'{PRECOPY}: does not complete', PRECOPY, 'completed',
                      False),
        *(results.every(f'{row}: completes', row, 'completed')
          for row in OURS),
        _small(results, SPLITS), _small(results, CUTS),
        results.at_most('total time of split, against pre-copy to a host '
                        'with room', SPLITS, CALM, 'total_ms', MIGRATION),
        results.at_most('redirect, against cancel-and-restart', REDIRECTS,
                        RESTARTS, 'total_ms', NEVER_SLOWER)]


def make(options: argparse.Namespace) -> Suite:
    """The rows: the stages of both lives, and each as a whole"""
    ours, stock = binary.ours(), binary.stock(same_source=True)
    rows: List[Row] = []
    for used, is_ours, stages, life in (
            (ours, True, our_stages(), LIFE),
            (stock, False, stock_stages(), STOCK_LIFE)):
        lives = Lives(stages, life, partial(living, used, is_ours, options))
        rows += lives.rows()
    fill = options.memory - UNFILLED
    return Suite(
        'lifecycle', rows, COLUMNS, judge,
        wrong_pages,
        notes=[
            f'Guest of {options.memory} MiB, {fill} MiB filled; under load: '
            f'{fill // 4} MiB of that written as fast as it goes; later at '
            f'{options.dirty_rate} MiB/s, in random order, and all the rest '
            f'read.  A host sends {options.rate} MiB/s and receives twice as '
            f'much.  main-memory: {SPLIT} %, then {CUT} % of what is filled.  '
            f'Pre-copy is cancelled after {options.bound} s.',
            'stage: until the source is done; until query-remote-memory tells '
            'of no more than the new main-memory; until all is gathered; '
            f'from the order, with {SHARE:.0%} sent, until it ran where it '
            'was to go in the end.  sent: by the host that it leaves, as its '
            'network card counts, gathered: by the memory host.',
            f'time lost: {lost.MEANING}  Next to what it did just before the '
            'stage.  Whole life: the sums of the stages that completed; all '
            'pages verified at the end.'],
        plots=[Bars('lost_ms', 'Guest time lost in each stage', 's', 1e-3),
               Bars('total_ms', 'Time of each stage', 's', 1e-3),
               Lines('throughput', 'Throughput of the guest, ours',
                     'of normal', 1, 'ours, '),
               Lines('throughput', 'Throughput of the guest, stock',
                     'of normal', 1, 'stock, ')],
        about={'options': options_of(options)}, binaries=[ours, stock])
