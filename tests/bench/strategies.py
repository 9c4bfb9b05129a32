# SPDX-License-Identifier: GPL-2.0-or-later
"""
Strategies against stock QEMU, by an idle and by a write-heavy Linux guest

Each run boots a fresh guest and migrates it once over a link of a fixed
bandwidth.  A migration that does not complete within a bound is cancelled and
reported as such.
"""

import argparse
from dataclasses import replace
from functools import partial
import time
from typing import Any, Callable, Dict, List, NamedTuple

from lib import binary, machines
from lib.binary import Binary
from lib.guest import Load
from lib.migration import MIB, Migration, Settings
from lib.strategy import Strategy

import lost
from suite import (Bars, Figures, Lines, Results, Row, Suite, Verdict, count,
                   mebibytes, milliseconds, options_of, seconds, wrong_pages)


HELP = 'total time, downtime, bytes and longest stall per strategy'

POSTCOPY = ['postcopy-ram']
XBZRLE = ['xbzrle']
# What "no strategy set" may differ from stock by
NEAR = 0.02
# Bytes that auto may send of a guest it cannot keep up with, in its memory
AUTO_BYTES = 1.6


class Way(NamedTuple):
    """A way to migrate: with which binary, and how"""
    ours: bool
    settings: Settings


WAYS = (
    Way(False, Settings('precopy')),
    Way(False, Settings('postcopy', None, POSTCOPY, switch_at_pass=1)),
    Way(False, Settings('hybrid by hand', None, POSTCOPY, switch_at_pass=2)),
    Way(False, Settings('xbzrle', None, XBZRLE)),
    Way(True, Settings('none set, precopy')),
    Way(True, Settings('none set, postcopy', None, POSTCOPY,
                       switch_at_pass=1)),
    Way(True, Settings('precopy', Strategy('precopy'))),
    Way(True, Settings('postcopy', Strategy('postcopy'), POSTCOPY)),
    Way(True, Settings('hybrid', Strategy('hybrid', passes=1), POSTCOPY)),
    Way(True, Settings('auto', Strategy('auto'), POSTCOPY)),
    Way(True, Settings('delta', Strategy('precopy'), XBZRLE,
                       {'xbzrle-cache-size': 0})),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--memory', type=int, default=512, metavar='MIB',
                        help='of the guest (512)')
    parser.add_argument('--fill', type=int, default=256, metavar='MIB',
                        help='of it that hold data (256)')
    parser.add_argument('--working-set', type=int, default=128,
                        metavar='MIB',
                        help='of these that the heavy guest writes (128)')
    parser.add_argument('--bandwidth', type=int, default=64, metavar='MIB',
                        help='of the link in a second (64)')
    parser.add_argument('--bound', type=int, default=60, metavar='SECONDS',
                        help='after which a migration is cancelled (60)')


def measure(binary_used: Binary, load: Load, memory: int,
            settings: Settings) -> Figures:
    """One run"""
    with machines.Machines(binary_used, load, memory) as room:
        migration = Migration(room.start(), room.expect(), room.guest,
                              settings)
        work = lost.Work(room.guest)
        migration.start()
        migration.wait_end()
        missed = work.figures(migration.started, time.monotonic())
        record = migration.record()
    figures: Dict[str, Any] = {**record.as_dict(), **missed}
    # The time of a migration that was cancelled is that of its bound.
    if not record.completed:
        figures['total_ms'] = figures['lost_ms'] = None
    return figures


COLUMNS = [
    seconds('total_ms', 'total'),
    milliseconds('downtime_ms', 'downtime'),
    seconds('lost_ms', 'time lost'),
    mebibytes('bytes', 'sent'),
    count('passes', 'passes'),
    seconds('switch_ms', 'to post-copy at'),
    count('requests', 'requests'),
    milliseconds('stall_ms', 'longest stall'),
    count('wrong_pages', 'wrong'),
]
PLOTS = [
    Bars('total_ms', 'Total time, heavy guest', 's', 1e-3, 'heavy'),
    Bars('total_ms', 'Total time, idle guest', 's', 1e-3, 'idle'),
    Bars('downtime_ms', 'Downtime, heavy guest', 'ms', 1, 'heavy'),
    Bars('lost_ms', 'Guest time lost', 's', 1e-3, 'heavy'),
    Bars('stall_ms', 'Longest stall, heavy guest', 'ms', 1, 'heavy'),
    Bars('bytes', 'Sent, heavy guest', 'MiB', 1 / MIB, 'heavy'),
    Lines('throughput', 'Throughput of the heavy guest, ours',
          'of normal', 1, 'heavy: ours'),
    Lines('throughput', 'Throughput of the heavy guest, stock',
          'of normal', 1, 'heavy: stock'),
]


def _near(results: Results, row: str, reference: str) -> List[Verdict]:
    return [results.within(f'{row}: {what} as of {reference}', row, reference,
                           key, NEAR)
            for key, what in (('total_ms', 'total time'), ('bytes', 'bytes'))]


def judge(memory: int) -> Callable[[Results], List[Verdict]]:
    """The figures that DESIGN.md promises"""
    def verdicts(results: Results) -> List[Verdict]:
        row = 'heavy: ours, auto'
        most = max(results[row].values('bytes'), default=None) \
            if row in results else None
        return [
            *_near(results, 'idle: ours, none set, precopy',
                   'idle: stock, precopy'),
            *_near(results, 'idle: ours, none set, postcopy',
                   'idle: stock, postcopy'),
            *(results.every(f'{stock}: does not complete', stock,
                            'completed', False)
              for stock in ('heavy: stock, precopy', 'heavy: stock, xbzrle')),
            results.every(f'{row}: completes', row, 'completed'),
            Verdict(f'{row}: at most {AUTO_BYTES} x RAM are sent in any run',
                    None if most is None
                    else most <= AUTO_BYTES * memory * MIB,
                    'not measured' if most is None
                    else f'{most / memory / MIB:.2f} x RAM', (row,)),
        ]
    return verdicts


def make(options: argparse.Namespace) -> Suite:
    """The rows: every way, with an idle and with a heavy guest"""
    ours, stock = binary.ours(), binary.stock(same_source=True)
    loads = {'idle': Load(fill=options.fill, ws=options.working_set, load=0),
             'heavy': Load(fill=options.fill, ws=options.working_set)}
    rows = []
    for kind, load in loads.items():
        for way in WAYS:
            settings = replace(way.settings, bandwidth=options.bandwidth,
                               max_seconds=options.bound)
            used = ours if way.ours else stock
            rows.append(Row(
                f'{kind}: {"ours" if way.ours else "stock"}, '
                f'{way.settings.name}',
                partial(measure, used, load, options.memory, settings)))
    return Suite(
        'strategies', rows, COLUMNS, judge(options.memory),
        wrong_pages,
        notes=[
            f'Guest of {options.memory} MiB, {options.fill} MiB filled; '
            f'heavy: {options.working_set} MiB of that written as fast as it '
            f'goes.  Link of {options.bandwidth} MiB/s, downtime limit '
            f'300 ms.  Cancelled after {options.bound} s.',
            'longest stall: that the guest had, seen from inside or outside, '
            'downtime included.  downtime: from the STOP event of the source '
            'to the RESUME event of the destination.',
            f'time lost: {lost.MEANING}'],
        plots=PLOTS,
        about={'options': options_of(options)}, binaries=[ours, stock])
