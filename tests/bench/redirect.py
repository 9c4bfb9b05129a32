# SPDX-License-Identifier: GPL-2.0-or-later
"""
A migration to B that is to go to C instead: redirected, or begun anew by stock

Four network namespaces: source A, old destination B, new destination C and a
switch, over links that are limited by tbf.  When A has sent a share f of its
memory to B, it is told to go to C: ours by migrate-redirect, stock QEMU by
migrate_cancel and migrate.  What is measured counts from then on.
"""

import argparse
from functools import partial
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from lib import binary, machines
from lib.binary import Binary
from lib.guest import Load, longest_stall_ms
from lib.links import Links, Rate
from lib.machines import Machines
from lib.migration import MIB, Settings
from lib.redirection import Redirection
from lib.strategy import Strategy
from lib.vm import VM

import lost
from suite import (Bars, Curve, Figures, Results, Row, Suite, Verdict, count,
                   mebibytes, milliseconds, options_of, seconds, wrong_pages)


HELP = 'time, bytes and stall of a redirect against cancel-and-restart'

SHARES = (0.25, 0.5, 0.75, 0.9)
REDIRECT, RESTART = WAYS = ('redirect', 'restart')
# What issue and DESIGN.md want
AGAINST_RESTART = 0.6       # at half-way, with equal links
NEVER_SLOWER = 1.05         # than a restart, anywhere
NEAR_IDEAL = 1.15
MORE_BYTES = 0.05           # of the memory, beyond what A has to send


class Topology(NamedTuple):
    """Links, as multiples of --rate"""
    name: str
    a_out: float
    b_out: float
    c_into: float


TOPOLOGIES = (Topology('equal links', 1, 1, 2),
              Topology('C is the bottleneck', 1, 1, 1),
              Topology('A is slow', 0.5, 1, 2))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--memory', type=int, default=1024, metavar='MIB',
                        help='of the guest, nearly all written once (1024)')
    parser.add_argument('--working-set', type=int, default=32, metavar='MIB',
                        help='of it that is kept dirty (32)')
    parser.add_argument('--dirty-rate', type=int, default=4, metavar='MIB',
                        help='that the guest dirties in a second (4)')
    parser.add_argument('--rate', type=int, default=64, metavar='MIB',
                        help='of a link in a second (64)')


class Order(NamedTuple):
    """How things stood when the destination was to change"""
    at: float               # monotonic
    wall: float             # as events count
    sent: int               # bytes that A had sent
    share: float            # of the memory that A had been through


class Journey:
    """
    One guest on its way to B

    @source: where it runs, which is started unless given
    @names: of A, B and C on @links
    """

    def __init__(self, room: Machines, links: Links, way: str,
                 source: Optional[VM] = None,
                 names: Tuple[str, str, str] = ('a', 'b', 'c')):
        self.room = room
        self.links = links
        self.way = way
        self.a, _, self.c = names
        self.source = source or room.start(host=links.host(self.a))
        self.hosts = {name: room.expect(host=links.host(name))
                      for name in names[1:]}
        # Stock QEMU knows no strategy.
        self.settings = Settings(way, Strategy('precopy', redirectable=True)
                                 if way == REDIRECT else None)
        self.migration = Redirection(self.source, self.hosts, room.guest,
                                     self.settings, links)
        self.work = lost.Work(room.guest)
        self.began_with = links.sent(self.a)

    def go(self, share: float) -> Order:
        """Start, and come to @share of the first pass"""
        self.migration.start()
        self.migration.listen_on(self.c)
        while True:
            ram = self.source.migration().get('ram', {})
            done = 1 - ram['remaining'] / ram['total'] if ram else 0.0
            if done >= share:
                return Order(time.monotonic(), time.time(),
                             self.links.sent(self.a) - self.began_with, done)
            self.migration.step(0.01)

    def change(self) -> None:
        """Go to C, the way that it is to be done"""
        if self.way == REDIRECT:
            self.redirect()
        else:
            self.restart()

    def redirect(self) -> None:
        """Go to C instead"""
        why = self.migration.redirect(self.c)
        if why:
            raise RuntimeError(f'no redirect: {why}')

    def restart(self) -> None:
        """Forget B, begin anew with C, which listens already"""
        self.migration.cancel()
        self.migration.wait_end()
        uri = self.links.uri(self.c)
        self.migration = Redirection(self.source,
                                     {self.c: self.hosts[self.c]},
                                     self.room.guest, self.settings,
                                     self.links)
        self.migration.started = time.monotonic()
        self.source.forget_events()
        self.source.cmd('migrate', uri=uri)

    def figures(self, order: Order, began: float,
                dirty_rate: int) -> Dict[str, Any]:
        """Wait for the end; what happened since @order"""
        self.migration.wait_end()
        ended = time.monotonic()
        sent = self.links.sent(self.a) - self.began_with - order.sent
        missed = self.work.figures(order.at, ended)
        resumed = self.migration.resumed_s
        record = self.migration.record()
        stall = longest_stall_ms(self.room.guest.beats_since(order.at),
                                 self.room.guest.beat_ms)
        return {
            'completed': record.completed,
            'wrong_pages': record.wrong_pages,
            'time_ms': (resumed - order.wall) * 1000 if resumed else None,
            'bytes': sent,
            'dirtied': dirty_rate * MIB * (ended - began),
            'stall_ms': stall,
            'share': order.share,
            'data': order.sent / order.share,
            'relay': str(self.migration.redirect_info(self.source)),
            **missed,
        }


def ideal_ms(links: Topology, data: float, share: float,
             rate: float) -> float:
    """When all links carry what only they can, at once"""
    rate *= MIB / 1000
    return max((1 - share) * data / (links.a_out * rate),
               share * data / (links.b_out * rate),
               data / (links.c_into * rate))


def measure(used: Binary, topology: Topology, share: float, way: str,
            options: argparse.Namespace) -> Figures:
    """One run"""
    rates = {'a': Rate(topology.a_out * options.rate),
             'b': Rate(topology.b_out * options.rate),
             'c': Rate(None, topology.c_into * options.rate)}
    load = Load(fill=0, ws=options.working_set, rate=options.dirty_rate)
    with Links(rates) as links, \
            machines.Machines(used, load, options.memory) as room:
        journey = Journey(room, links, way)
        began = time.monotonic()
        order = journey.go(share)
        journey.change()
        figures = journey.figures(order, began, options.dirty_rate)
    figures['ideal_ms'] = ideal_ms(topology, figures['data'],
                                   figures['share'], options.rate)
    return figures


def name_of(topology: Topology, share: float, way: str) -> str:
    """Of a row"""
    return f'{topology.name}: {way} at {share:g}'


COLUMNS = [
    seconds('time_ms', 'until it ran on C'),
    seconds('ideal_ms', 'ideal'),
    seconds('lost_ms', 'time lost'),
    mebibytes('bytes', 'left A'),
    milliseconds('stall_ms', 'longest stall'),
    count('wrong_pages', 'wrong'),
]


def _against_restart(results: Results, topology: Topology, share: float,
                     times: float) -> Verdict:
    return results.at_most(
        f'{topology.name}, f = {share:g}: time against a restart',
        name_of(topology, share, REDIRECT),
        name_of(topology, share, RESTART), 'time_ms', times)


def _near_ideal(results: Results, topology: Topology,
                share: float) -> Verdict:
    row = name_of(topology, share, REDIRECT)
    ratio = results.ratio(row, row, 'time_ms', 'ideal_ms')
    return Verdict(f'{row}: time at most {NEAR_IDEAL:g} x the ideal',
                   None if ratio is None else ratio <= NEAR_IDEAL,
                   'not measured' if ratio is None else f'{ratio:.3f} x',
                   (row,))


def _few_bytes(results: Results, topology: Topology, share: float,
               memory: int) -> Verdict:
    row = name_of(topology, share, REDIRECT)
    have, dirtied, went = (results.median(row, key)
                           for key in ('bytes', 'dirtied', 'share'))
    claim = (f'{row}: A sends at most (1 - f) RAM + dirtied + '
             f'{MORE_BYTES:.0%} of RAM')
    if have is None or dirtied is None or went is None:
        return Verdict(claim, None, 'not measured', (row,))
    most = (1 - went + MORE_BYTES) * memory * MIB + dirtied
    return Verdict(claim, have <= most,
                   f'{have / MIB:.0f} of {most / MIB:.0f} MiB', (row,))


def judge(memory: int) -> Callable[[Results], List[Verdict]]:
    """What is wanted"""
    def verdicts(results: Results) -> List[Verdict]:
        wanted = [_against_restart(results, TOPOLOGIES[0], 0.5,
                                   AGAINST_RESTART)]
        for topology in TOPOLOGIES:
            for share in SHARES:
                wanted += [
                    _against_restart(results, topology, share, NEVER_SLOWER),
                    _near_ideal(results, topology, share),
                    _few_bytes(results, topology, share, memory)]
        return wanted
    return verdicts


def _spoiled(figures: Figures) -> Optional[str]:
    return wrong_pages(figures) or (
        None if figures.get('completed') else 'it did not complete')


def _rows(used: Dict[str, Binary],
          options: argparse.Namespace) -> List[Row]:
    chosen: List[Tuple[Topology, float, str]] = [
        (topology, share, way) for topology in TOPOLOGIES
        for share in SHARES for way in WAYS]
    return [Row(name_of(*which),
                partial(measure, used[which[-1]], *which, options))
            for which in chosen]


def make(options: argparse.Namespace) -> Suite:
    """The rows: every topology, share and way"""
    used = {REDIRECT: binary.ours(), RESTART: binary.stock(same_source=True)}
    return Suite(
        'redirect', _rows(used, options), COLUMNS, judge(options.memory),
        _spoiled,
        notes=[
            f'Guest of {options.memory} MiB, nearly all of it written once, '
            f'{options.working_set} MiB of it again at '
            f'{options.dirty_rate} MiB/s.  A link carries {options.rate} '
            'MiB/s: A and B can send that, C can receive twice as much '
            '(equal links), as much (C is the bottleneck); or A can send half '
            'of it (A is slow).',
            'until it ran on C: from the order to the RESUME event of C.  '
            'ideal: when A sends what it has not sent, and B what it has, at '
            'once, and the links do nothing else.  left A: as its network '
            'card counts.  dirtied: since the migration began.  time lost: '
            f'from the order on, {lost.MEANING}'],
        plots=[Curve('time_ms', f'Redirect, {topology.name}',
                     'seconds until it ran on C', 1e-3, topology.name,
                     x='share', groups=WAYS, ideal='ideal_ms')
               for topology in TOPOLOGIES]
        + [Bars('lost_ms', 'Guest time lost after the order', 's', 1e-3)],
        about={'options': options_of(options)},
        binaries=list(used.values()))
