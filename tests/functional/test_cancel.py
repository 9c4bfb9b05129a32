#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A migration can be cancelled in each phase, and the guest never minds

After each cancellation the guest, still at the source, verifies all of its
pages; then the same source migrates by another strategy, which shows that
nothing of the first attempt was left behind.
"""

import sys
from typing import Callable, List

from lib import scenario
from lib.machines import Machines
from lib.migration import CANCELLED, Migration, Settings
from lib.strategy import Strategy
from lib.tap import Tap, check, check_equal
from lib.vm import ExecuteError

tap = Tap()

POSTCOPY = ['postcopy-ram']
# So slow that no phase is over before it is cancelled
CRAWL = 4
# So slow that a guest that a busy machine makes slow is still faster
SLOW = scenario.BANDWIDTH // 4


def at_once(migration: Migration) -> None:
    """Before it has done anything"""
    del migration


def first_pass(migration: Migration) -> None:
    """When pages are on their way"""
    migration.wait_state('active')

    def sent() -> bool:
        ram = migration.source.migration().get('ram', {})
        return int(ram.get('transferred', 0)) > 65536

    migration.wait_for('page sent', sent)


def later_pass(migration: Migration) -> None:
    """When pages are sent again; the downtime limit keeps it from ending"""
    migration.wait_pass(3)


def before_switchover(migration: Migration) -> None:
    """When the VM has been stopped"""
    migration.wait_state('pre-switchover')


def too_late(room: Machines, migration: Migration, strategy: Strategy,
             exc: ExecuteError) -> None:
    """
    Mode postcopy may have switched before the cancellation came: then that
    is refused, and the migration goes on
    """
    check_equal(strategy.mode, 'postcopy', f'mode when it says: {exc}')
    check('ostcopy' in str(exc), f'the refusal says: {exc}')
    migration.source.cmd('migrate-set-parameters',
                         {'max-postcopy-bandwidth': 0})
    migration.wait_end()
    scenario.check_completed(room, migration, migration.record())


def case(title: str, strategy: Strategy, capabilities: List[str],
         phase: Callable[[Migration], None], bandwidth: int,
         full: bool = False) -> None:
    """Cancel in @phase, then migrate for good"""
    def run() -> None:
        # Pre-copy does not look for what is dirty with a limit of 0
        never = 0 if capabilities[:1] == POSTCOPY else 1
        first = Settings(title, strategy, capabilities, bandwidth=bandwidth,
                         downtime_limit=never if phase is later_pass else 300)
        second = Settings('the next migration', Strategy('auto'), POSTCOPY,
                          bandwidth=scenario.BANDWIDTH)
        with Machines(scenario.our_binary(), scenario.HEAVY,
                      scenario.MEMORY) as room:
            source, destination = room.start(), room.expect()
            if phase is before_switchover:
                room.guest.set(load=0)
            migration = Migration(source, destination, room.guest, first)
            migration.start()
            phase(migration)
            try:
                migration.cancel()
            except ExecuteError as exc:
                too_late(room, migration, strategy, exc)
                return
            check(migration.wait_end() in CANCELLED, 'it was not cancelled')
            room.guest.set(load=1)
            scenario.check_stayed(room, migration, migration.record())
            room.end(destination)

            migration = Migration(source, room.expect(), room.guest, second)
            record = migration.run()
            scenario.check_completed(room, migration, record)
    tap.add(title, run, full)


case('auto, cancelled at once', Strategy('auto'), POSTCOPY, at_once, CRAWL)
case('postcopy, cancelled at once', Strategy('postcopy'), POSTCOPY, at_once,
     CRAWL, full=True)
case('hybrid, cancelled in its first pass', Strategy('hybrid', passes=2),
     POSTCOPY, first_pass, CRAWL)
case('hybrid, cancelled in a later pass', Strategy('hybrid', passes=1000),
     POSTCOPY, later_pass, SLOW)
case('auto, cancelled in its first pass', Strategy('auto'), POSTCOPY,
     first_pass, CRAWL, full=True)
case('precopy, cancelled in a later pass', Strategy('precopy'), [],
     later_pass, SLOW, full=True)
case('delta, cancelled in a later pass', Strategy('precopy'), ['xbzrle'],
     later_pass, SLOW, full=True)
case('hybrid, cancelled before the switchover',
     Strategy('hybrid', passes=1000), POSTCOPY + ['pause-before-switchover'],
     before_switchover, scenario.BANDWIDTH, full=True)
case('auto, cancelled before the switchover', Strategy('auto'),
     POSTCOPY + ['pause-before-switchover'], before_switchover,
     scenario.BANDWIDTH)


@tap.test('in post-copy it is refused, and the migration goes on')
def in_postcopy() -> None:
    how = Settings('postcopy', Strategy('postcopy', background=False),
                   POSTCOPY, bandwidth=scenario.BANDWIDTH)
    with Machines(scenario.our_binary(), scenario.IDLE,
                  scenario.MEMORY) as room:
        migration = Migration(room.start(), room.expect(), room.guest, how)
        migration.start()
        migration.wait_postcopy()
        try:
            migration.source.cmd('migrate_cancel')
        except ExecuteError as exc:
            check('ostcopy' in str(exc), f'the refusal says: {exc}')
        else:
            check(False, 'it was not refused')
        room.guest.wait_beats(2)
        migration.source.cmd('migrate-set-parameters',
                             Strategy(background=True).arguments())
        migration.wait_end()
        scenario.check_completed(room, migration, migration.record())


if __name__ == '__main__':
    sys.exit(tap.main())
