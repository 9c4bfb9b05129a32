# SPDX-License-Identifier: GPL-2.0-or-later
"""
What asynchronous page faults gain in post-copy on demand, under real KVM

The experiment of Yabusame (Hirofuchi, Nakada, Itoh, Sekiguchi, 2012), in the
KVM lab: one vCPU, four threads that touch a region each, once; nothing moves
but what the guest asks for.  The paper has 275 s without and 120 s with.

The link has 1 Gbit/s and a round trip of --rtt ms.  Gigabit Ethernet has 0.1;
but the lab is some tens of times slower than hardware, and two CPUs of it do
the work of source, destination, network and guest: with a link that is not
slower, too, nothing but that work would be measured.  The rows with "Nagle"
leave Nagle's algorithm on, as QEMU 10.0 does.  Nothing else should run.
"""

import argparse
import atexit
from functools import partial
from pathlib import Path
import sys
from typing import Any, List

from suite import Bars, Results, Row, Suite, Verdict, count, seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'lab'))

# pylint: disable=wrong-import-position
from outside.session import Session  # noqa: E402

HELP = 'post-copy on demand with asynchronous page faults, in the KVM lab'
# The paper's ratio
MARK = 2.3
OFF, ON = 'off', 'on'
NAGLE = ', Nagle'


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--rtt', default='10', metavar='MS[,MS]...',
                        help='round trips of the link (10)')
    parser.add_argument('--size', type=int, default=4, metavar='MIB',
                        help='memory that the threads touch (4)')


def make(options: argparse.Namespace) -> Suite:
    """For each round trip: off and on, without Nagle and with"""
    session = Session()
    atexit.register(session.close)
    rows: List[Row] = []
    trips = [float(text) for text in options.rtt.split(',')]
    for rtt in trips:
        for nagle in (False, True):
            for on in (False, True):
                rows.append(Row(_name(rtt, on, nagle), partial(
                    session.ask, 'asyncpf', async_pf=on, size=options.size,
                    delay_us=int(rtt * 500), nagle=nagle)))
    return Suite(
        'asyncpf', rows,
        [seconds('total_ms', 'time'), count('requests', 'requests'),
         count('in_flight', 'most in flight'),
         count('notices', 'told the guest'), count('wrong', 'wrong pages')],
        partial(_judge, trips),
        spoiled=lambda run: 'wrong pages' if run.get('wrong') else None,
        notes=['Time: until four threads of one vCPU have touched all of '
               f'{options.size} MiB, at 1 Gbit/s.'],
        plots=[Bars('total_ms', 'Time to touch all pages once', 's', 1e-3)])


def _name(rtt: float, on: bool, nagle: bool) -> str:
    return f'{rtt:g} ms, {ON if on else OFF}{NAGLE if nagle else ""}'


def _judge(trips: List[float], results: Results) -> List[Verdict]:
    verdicts: List[Any] = []
    for rtt in trips:
        verdicts.append(results.at_least(
            f'{rtt:g} ms: off takes longer than on',
            _name(rtt, False, False), _name(rtt, True, False), 'total_ms',
            MARK))
        verdicts.append(results.at_most(
            f'{rtt:g} ms: on, without Nagle no slower than with',
            _name(rtt, True, False), _name(rtt, True, True), 'total_ms', 1.0))
    return verdicts
