# SPDX-License-Identifier: GPL-2.0-or-later
"""
Asynchronous page faults in post-copy on demand

Times are for scripts/bench asyncpf.  Here: do they reach the guest, and does
it lose nothing by them?
"""

from inside import asyncpf
from lib.tap import Tap, check, check_equal, note


# Of pages that are touched, how many the guest must hear of: that its kernel
# touches some first, where it cannot wait, is the rest.
MOST = 0.5


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    @tap.test('asynchronous page faults: told the guest of missing pages',
              full=True)
    def told() -> None:
        size = 1
        figures = asyncpf.measure(async_pf=True, size=size, delay_us=1000)
        note(str(figures))
        check(figures['notices'] > MOST * size * 256,
              'few of them reached the guest')
        check(figures['in_flight'] >= asyncpf.THREADS,
              'the threads did not wait at the same time')
        check_equal(figures['wrong'], 0, 'wrong pages')

    @tap.test('asynchronous page faults, off: none', full=True)
    def untold() -> None:
        figures = asyncpf.measure(async_pf=False, size=1, delay_us=1000)
        note(str(figures))
        check_equal(figures['notices'], 0, 'told the guest')
        check(figures['in_flight'] < asyncpf.THREADS,
              'the threads waited at the same time')
        check_equal(figures['wrong'], 0, 'wrong pages')
