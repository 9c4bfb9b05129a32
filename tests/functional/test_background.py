#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Post-copy with "background" off moves what the guest asks for and nothing else

It stays in post-copy for as long as it is left so, without pushing, without
spinning and without ending; set to on, it finishes.
"""

import os
import sys
import time
from typing import Dict, Tuple

from lib import scenario
from lib.guest import Load
from lib.machines import Machines
from lib.migration import Migration, Settings
from lib.strategy import Report, Strategy
from lib.tap import Tap, check, check_equal, note
from lib.vm import VM

tap = Tap()

DEMAND_ONLY = Settings('demand only', Strategy('postcopy', background=False),
                       ['postcopy-ram'], bandwidth=scenario.BANDWIDTH)
BACKGROUND_ON = Strategy(background=True).arguments()
# Heartbeats of one look at a guest; there are 50 in a second
LOOK = 50
# Looks in which an idle guest must have come to need no more pages
MANY_LOOKS = 120
# Share of a CPU that the waiting threads may use; one that spins has all of
# it, or what is left on a busy host.
WAITING = 0.05
TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')

Ticks = Dict[str, Tuple[str, int]]


def requests(migration: Migration) -> int:
    """Pages that the guest asked for so far"""
    return int(migration.source.migration()['ram']['postcopy-requests'])


def sent(migration: Migration) -> int:
    """Bytes that went so far"""
    return int(migration.source.migration()['ram']['transferred'])


def in_flight(migration: Migration) -> Report:
    """What the destination says of the strategy"""
    report = Report.of(migration.destination.migration())
    assert report
    return report


def begin(room: Machines) -> Migration:
    """A migration in post-copy, with the guest at the destination"""
    migration = Migration(room.start(), room.expect(), room.guest,
                          DEMAND_ONLY)
    migration.start()
    migration.wait_postcopy()
    room.guest.wait_beats(2)
    return migration


def settle(room: Machines, migration: Migration) -> None:
    """Wait until the idle guest has all pages that it needs for that"""
    for _ in range(MANY_LOOKS):
        before = requests(migration)
        room.guest.wait_beats(LOOK)
        if requests(migration) == before:
            return
    check(False, f'an idle guest asks for page after page: '
          f'{migration.source.migration()}')


def busy_threads(machine: VM, before: Ticks, seconds: float,
                 only: str) -> Dict[str, float]:
    """Threads named @only... that ran more than waiting takes"""
    busy = {}
    for tid, (name, ticks) in machine.thread_ticks().items():
        ran = ticks - before.get(tid, (name, 0))[1]
        share = ran / TICKS_PER_SECOND / seconds
        if name.startswith(only) and share > WAITING:
            busy[name] = share
    return busy


def check_waits(migration: Migration) -> None:
    """It has not ended, though there is something that could be pushed"""
    answer = migration.source.migration()
    check_equal(answer['status'], 'postcopy-active', 'status')
    left = answer['ram']['remaining']
    check(left > 0, 'there is nothing left to push')
    note(f'{left} bytes left, {requests(migration)} requests')


def finish(room: Machines, migration: Migration) -> None:
    """Let the rest be pushed"""
    migration.source.cmd('migrate-set-parameters', BACKGROUND_ON)
    migration.wait_end()
    record = migration.record()
    note(str(record))
    check(record.switched, 'it was in post-copy')
    scenario.check_completed(room, migration, record)


@tap.test('background off: waits without work, pushes nothing, does not end')
def waits() -> None:
    with Machines(scenario.our_binary(), scenario.IDLE,
                  scenario.MEMORY) as room:
        migration = begin(room)
        settle(room, migration)
        source = migration.source
        destination = migration.destination
        # A guest at rest may still need a page now and then, so compare
        # what was sent with what was asked for.
        asked, bytes_before = requests(migration), sent(migration)
        began = time.monotonic()
        at_source = source.thread_ticks()
        at_destination = destination.thread_ticks()
        check(any(name.startswith('mig/') for name, _ in at_source.values()),
              f'no migration thread among {at_source}')
        room.guest.wait_beats(4 * LOOK)
        seconds = time.monotonic() - began
        check_equal(busy_threads(source, at_source, seconds, ''), {},
                    'busy threads of the source')
        check_equal(busy_threads(destination, at_destination, seconds,
                                 'mig/'), {},
                    'busy migration threads of the destination')
        new = requests(migration) - asked
        grown = sent(migration) - bytes_before
        # A page and its header; some slack for what is sent with it
        check(grown <= (new + 4) * 8192,
              f'{grown} bytes were sent for {new} requests')
        check_waits(migration)
        finish(room, migration)


def at_work(load: Load) -> None:
    """All pages come, and come right; @load is off at first"""
    with Machines(scenario.our_binary(), load, scenario.MEMORY) as room:
        migration = begin(room)
        asked = requests(migration)
        # Reading static pages leaves no page of the guest's out.
        room.guest.set(load=1, read=4)
        room.guest.wait_ops(load.ws * 256)
        room.guest.set(load=0)
        verdict = room.guest.verify()
        check_equal(verdict.total, 0, 'pages found wrong on demand')
        check(requests(migration) > asked, 'no page was asked for')
        check(in_flight(migration).requests_peak, 'no request was in flight')
        status = migration.source.migration()['status']
        check_equal(status, 'postcopy-active', 'status')
        finish(room, migration)
        check_equal(in_flight(migration).requests_in_flight, 0,
                    'requests in flight at the end')


@tap.test('background off: a guest at work gets its pages, all of them right')
def works() -> None:
    at_work(Load(fill=48, ws=8, load=0))


@tap.test('background off in hybrid: the rest of the passes waits too',
          full=True)
def hybrid() -> None:
    how = Settings('hybrid', Strategy('hybrid', passes=1, background=False),
                   ['postcopy-ram'], bandwidth=scenario.BANDWIDTH,
                   downtime_limit=0)
    # All of its working set is dirty at the end of the pass.
    load = Load(fill=scenario.FILL, ws=64, rate=scenario.BANDWIDTH)
    with Machines(scenario.our_binary(), load, scenario.MEMORY) as room:
        migration = Migration(room.start(), room.expect(), room.guest, how)
        migration.start()
        migration.wait_postcopy()
        room.guest.set(load=0)
        settle(room, migration)
        check_waits(migration)
        room.guest.set(load=1)
        finish(room, migration)


@tap.test('background turned off in post-copy, and on again', full=True)
def off_and_on() -> None:
    how = Settings('postcopy', Strategy('postcopy', background=True),
                   ['postcopy-ram'], bandwidth=2)
    with Machines(scenario.our_binary(), scenario.IDLE,
                  scenario.MEMORY) as room:
        migration = Migration(room.start(), room.expect(), room.guest, how)
        migration.start()
        migration.wait_postcopy()
        migration.source.cmd('migrate-set-parameters',
                             Strategy(background=False).arguments())
        settle(room, migration)
        before, asked = sent(migration), requests(migration)
        room.guest.wait_beats(2 * LOOK)
        grown = sent(migration) - before
        check(grown <= (requests(migration) - asked + 4) * 8192,
              f'{grown} bytes were sent')
        migration.source.cmd('migrate-set-parameters',
                             {'max-postcopy-bandwidth': 0})
        finish(room, migration)


if __name__ == '__main__':
    sys.exit(tap.main())
