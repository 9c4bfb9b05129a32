# SPDX-License-Identifier: GPL-2.0-or-later
"""
What asynchronous page faults gain in post-copy on demand, under real KVM

The experiment of Yabusame (Hirofuchi, Nakada, Itoh, Sekiguchi, 2012), in the
KVM lab: one vCPU, four threads that touch a region each, once; nothing moves
but what the guest asks for.  The paper has 275 s without and 120 s with, for
4 GiB over Gigabit Ethernet with a ping of 100 us.

Of 262 us for a page, without, 133 are the link's there: the ping and 4 KiB at
1 Gbit/s.  The rest is work, which takes the lab many times as long, as every
instruction is emulated.  With a link of 100 us nothing but that work would be
measured.  So the link is slower, too: what a page takes without any link is
measured first, and its ratio to the paper's work is the scale.

Scaled by that, a page takes longer than a tick of the guest's clock, which is
not slowed, as on hardware it does not.  Without asynchronous page faults KVM
halts the vCPU, and each tick wakes it: the guest may run another thread, or
else enters and leaves at every tick, which takes the lab longer than the page.
So "off" has a vCPU that stands still until its page is there (-overcommit
cpu-pm=on), and the threads are such that only waiting takes the vCPU away from
them.  The row "halted" has KVM halt it, the rows "time slices" have that and
ordinary threads.  The row "Nagle" leaves Nagle's algorithm on, as QEMU 10.0
does.

Nothing else should run.
"""

import argparse
import atexit
from functools import partial
from pathlib import Path
import statistics
import sys
from typing import Any, Dict, List

from lib import binary

from suite import (Bars, Column, Figures, Results, Row, Suite, Verdict, count,
                   options_of, percent, seconds)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'lab'))

# pylint: disable=wrong-import-position
from outside.session import Session  # noqa: E402

HELP = 'post-copy on demand with asynchronous page faults, in the KVM lab'
# The paper's ratio
MARK = 2.3
# The paper's link, and what is not the link's of the 275 s for 4 GiB
PING_US = 100.0
MBIT = 1000.0
WORK_US = 275e6 / (4 << 18) - PING_US - 4096 * 8 / MBIT
CALIBRATIONS = 3
# What measure() in tests/lab/inside/asyncpf.py is told
ROWS: Dict[str, Dict[str, Any]] = {
    'asyncpf: off': {'async_pf': False},
    'asyncpf: on': {'async_pf': True},
    'asyncpf, Nagle: on': {'async_pf': True, 'nagle': True},
    'asyncpf, halted: off': {'async_pf': False, 'halted': True},
    'asyncpf, time slices: off': {'async_pf': False, 'halted': True,
                                  'slices': True},
    'asyncpf, time slices: on': {'async_pf': True, 'slices': True},
    'asyncpf, no link: off': {'async_pf': False, 'link': False},
    'asyncpf, no link: on': {'async_pf': True, 'link': False},
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--scale', type=float, metavar='N',
                        help='how many times slower the lab is than the '
                        "paper's hosts (measured)")
    parser.add_argument('--size', type=int, default=4, metavar='MIB',
                        help='memory that the threads touch (4)')


class Lab:
    """Measures, with a link that is as slow as the lab"""

    def __init__(self, options: argparse.Namespace):
        self._session = Session()
        self._size: int = options.size
        self._scale: float = options.scale or 0
        atexit.register(self._session.close)

    def scale(self) -> float:
        """Measured with the first row, the same for all"""
        if not self._scale:
            pages = [self._session.ask('asyncpf', async_pf=False, size=1,
                                       delay_us=0, mbit=0)['page_us']
                     for _ in range(CALIBRATIONS)]
            self._scale = statistics.median(pages) / WORK_US
        return self._scale

    def measure(self, how: Dict[str, Any]) -> Figures:
        """One run of a row"""
        scale = self.scale()
        link = {'delay_us': 0, 'mbit': 0} if how.get('link') is False else {
            'delay_us': round(scale * PING_US / 2), 'mbit': MBIT / scale}
        rest = {name: value for name, value in how.items() if name != 'link'}
        return {**self._session.ask('asyncpf', size=self._size, **link,
                                    **rest), 'scale': scale, **link}


def make(options: argparse.Namespace) -> Suite:
    """Off and on, and what explains them"""
    lab = Lab(options)
    return Suite(
        'asyncpf',
        [Row(name, partial(lab.measure, how)) for name, how in ROWS.items()],
        [seconds('total_ms', 'time'),
         Column('page_us', 'a page', lambda value: f'{value / 1000:.1f} ms'),
         percent('cpu', 'CPUs busy'), percent('vcpu', 'vCPU busy'),
         percent('threads', 'busiest migration thread'),
         count('requests', 'requests'),
         count('in_flight', 'most in flight'),
         count('notices', 'told the guest'), count('wrong', 'wrong pages'),
         Column('scale', 'scale', lambda value: f'{value:.0f}')],
        _judge,
        spoiled=lambda run: 'wrong pages' if run.get('wrong') else None,
        notes=['Time: until four threads of one vCPU have touched all of '
               f'{options.size} MiB.  The link has {PING_US:.0f} us there and '
               f'back and {MBIT:.0f} Mbit/s, both slower by the scale, as the '
               'lab is.'],
        plots=[Bars('total_ms', 'Time to touch all pages once', 's', 1e-3)],
        about={'options': options_of(options)}, binaries=[binary.ours()])


def _judge(results: Results) -> List[Verdict]:
    return [results.at_least('off takes longer than on', 'asyncpf: off',
                             'asyncpf: on', 'total_ms', MARK),
            results.at_most('on, without Nagle no slower than with',
                            'asyncpf: on', 'asyncpf, Nagle: on', 'total_ms',
                            1.0)]
