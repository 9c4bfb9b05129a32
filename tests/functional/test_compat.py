#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Our binary and stock QEMU 10.0 migrate to each other when no strategy is set

And when one is set, a stock destination, which does not know of strategies,
fails and leaves the guest unharmed at the source.
"""

from functools import partial
import os
import signal
import sys
from typing import List, Optional

from lib import scenario
from lib.guest import Load
from lib.machines import Machines
from lib.migration import CANCELLED, MIB, Migration, Settings
from lib.scenario import BANDWIDTH, HEAVY, LIGHT
from lib.strategy import STRATEGY_SECTION, Strategy
from lib.tap import Tap, check, check_equal, note

tap = Tap()

POSTCOPY = ['postcopy-ram']


def directions(title: str, load: Load, how: Settings,
               full: bool = False) -> None:
    """From ours to stock and from stock to ours"""
    def to_stock() -> None:
        stock = scenario.stock_binary()
        note(f'stock is {stock.path}, {stock.version()}')
        note(str(scenario.migrate(load, how,
                                  scenario.our_binary(False), stock)))

    def from_stock() -> None:
        note(str(scenario.migrate(load, how, scenario.stock_binary(),
                                  scenario.our_binary(False))))

    tap.add(f'{title}, ours to stock', to_stock, full)
    tap.add(f'{title}, stock to ours', from_stock, full)


directions('pre-copy', LIGHT, Settings('precopy', bandwidth=BANDWIDTH))
directions('post-copy', HEAVY, Settings('postcopy', None, POSTCOPY,
                                        bandwidth=BANDWIDTH,
                                        switch_at_pass=1))
directions('post-copy after a pass', HEAVY,
           # Not to be over before the command comes
           Settings('hybrid', None, POSTCOPY, bandwidth=BANDWIDTH // 4,
                    downtime_limit=1, switch_at_pass=2), full=True)
directions('post-copy with preemption over tcp', HEAVY,
           Settings('preempt', None, POSTCOPY + ['postcopy-preempt'],
                    bandwidth=BANDWIDTH, switch_at_pass=1, transport='tcp'),
           full=True)
directions('pre-copy with XBZRLE', LIGHT,
           Settings('xbzrle', None, ['xbzrle'], bandwidth=BANDWIDTH),
           full=True)
directions('pre-copy over multifd', LIGHT,
           Settings('multifd', None, ['multifd'], bandwidth=BANDWIDTH),
           full=True)


@tap.test('mode precopy is no strategy: stock takes it')
def explicit_precopy() -> None:
    scenario.migrate(LIGHT, Settings('precopy', Strategy('precopy'),
                                     bandwidth=BANDWIDTH),
                     scenario.our_binary(), scenario.stock_binary())


def refused(mode: str, full: bool, strategy: Optional[Strategy] = None,
            capabilities: Optional[List[str]] = None) -> None:
    """A stock destination cannot take @mode, and says so"""
    def run() -> None:
        how = Settings(mode, strategy or Strategy(mode),
                       capabilities or POSTCOPY, bandwidth=BANDWIDTH)
        with Machines(scenario.our_binary(), HEAVY, scenario.MEMORY) as room:
            source = room.start()
            destination = room.expect(scenario.stock_binary())
            migration = Migration(source, destination, room.guest, how)
            migration.start()
            check_equal(migration.wait_end(), 'failed', 'end')
            record = migration.record()
            note(record.outcome)
            scenario.check_stayed(room, migration, record)
            destination.stop_process()
            said = destination.get_log() or ''
            check(STRATEGY_SECTION in said,
                  f'the destination says nothing of the section: {said}')
            room.end(destination)

            # The next destination may know better.
            again = Migration(source, room.expect(), room.guest, how)
            scenario.check_completed(room, again, again.run())
    tap.add(f'{mode} to a destination without strategies fails, the guest '
            'goes on', run, full)


refused('hybrid', False)
refused('postcopy', False)
refused('auto', True)


def enough(migration: Migration) -> bool:
    """Whether pages have gone"""
    ram = migration.source.migration().get('ram', {})
    return int(ram.get('transferred', 0)) > MIB


@tap.test('a cancelled migration leaves no acknowledgement behind')
def stale_acknowledgement() -> None:
    """The next destination has to acknowledge the strategy by itself"""
    crawl = Settings('hybrid', Strategy('hybrid'), POSTCOPY, bandwidth=4)
    how = Settings('postcopy', Strategy('postcopy'), POSTCOPY,
                   bandwidth=BANDWIDTH)
    with Machines(scenario.our_binary(), HEAVY, scenario.MEMORY) as room:
        source, knows = room.start(), room.expect()
        for _ in range(2):
            first = Migration(source, knows, room.guest, crawl)
            first.start()
            first.wait_state('active')
            first.wait_for('pages sent', partial(enough, first))
            first.cancel()
            check(first.wait_end() in CANCELLED, 'it was not cancelled')
            room.end(knows)
            knows = room.expect()
        room.end(knows)

        stock = room.expect(scenario.stock_binary())
        migration = Migration(source, stock, room.guest, how)
        pid = stock.get_pid() or 0
        check(pid, 'the destination does not run')
        migration.start(lambda: os.kill(pid, signal.SIGSTOP))
        try:
            # Nobody has acknowledged anything, so the guest runs on.
            room.guest.wait_beats(3)
        finally:
            os.kill(pid, signal.SIGCONT)
        check_equal(migration.wait_end(), 'failed', 'end')
        scenario.check_stayed(room, migration, migration.record())


if __name__ == '__main__':
    sys.exit(tap.main())
