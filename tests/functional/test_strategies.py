#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every strategy moves a Linux guest, idle and busy, and loses nothing

Each test boots a guest, migrates it once and has the guest verify all of its
pages.  What a strategy decided is checked where the load leaves no doubt: a
heavy guest dirties memory many times as fast as the link carries it, an idle
one next to none.
"""

import os
import re
import sys
import time
from typing import Any, Callable, List

from lib import paths, readme, scenario
from lib.guest import PATIENCE, Load
from lib.machines import Machines
from lib.migration import MIB, Migration, Record, Settings
from lib.scenario import BANDWIDTH, HEAVY, IDLE, LIGHT, SPARSE
from lib.strategy import Strategy
from lib.tap import Tap, check, check_equal, note

tap = Tap()

POSTCOPY = ['postcopy-ram']
XBZRLE = ['xbzrle']
SIZED_BY_ITSELF = {'xbzrle-cache-size': 0}


# Nothing fits a limit of 0: what a guest dirties is too much however slow it
# is on a busy machine.  And one of some seconds is enough for an idle guest
# however slow the link is there, though not for the whole of its memory.
NOTHING_FITS = {'downtime_limit': 0}
AN_IDLE_REST_FITS = {'downtime_limit': 2000}


def settings(name: str, strategy: Strategy, capabilities: List[str],
             **more: Any) -> Settings:
    """With the link of these tests"""
    return Settings(name, strategy, capabilities, bandwidth=BANDWIDTH, **more)


def case(title: str, load: Load, how: Settings,
         *expected: Callable[[Record], None], full: bool = False) -> None:
    """One migration that must complete, and what else must be true of it"""
    def run() -> None:
        record = scenario.migrate(load, how)
        note(str(record))
        for expectation in expected:
            expectation(record)
    tap.add(title, run, full)


def stayed_precopy(record: Record) -> None:
    """It never went through post-copy, and says so"""
    check(not record.switched, f'it switched: {record}')
    check_equal(record.requests, 0, 'page requests')


def switched(record: Record) -> None:
    """It went through post-copy, and says when and why"""
    check(record.switched, f'it did not switch: {record}')
    check(record.switch_ms is not None, 'it does not say when it switched')
    check(record.switch_reason, 'it does not say why it switched')
    check(record.sentence, 'it does not say why in words')


def passes(count: int) -> Callable[[Record], None]:
    """It finished that many passes"""
    return lambda record: check_equal(record.passes, count, 'passes')


def sent_at_most(times: float) -> Callable[[Record], None]:
    """Bytes, as a multiple of the guest's memory"""
    def expectation(record: Record) -> None:
        check(record.bytes <= times * scenario.MEMORY * MIB,
              f'{record.bytes} bytes are more than {times} times the memory')
    return expectation


case('precopy, idle guest', IDLE,
     settings('precopy', Strategy('precopy'), []), stayed_precopy)
case('precopy, busy guest that the link can follow', LIGHT,
     settings('precopy', Strategy('precopy'), []), stayed_precopy, full=True)
case('postcopy, idle guest', IDLE,
     settings('postcopy', Strategy('postcopy'), POSTCOPY),
     switched, passes(0), sent_at_most(1.05))
case('postcopy, heavy guest', HEAVY,
     settings('postcopy', Strategy('postcopy'), POSTCOPY),
     switched, passes(0), sent_at_most(1.05))
case('postcopy over tcp with preemption, heavy guest', HEAVY,
     settings('postcopy', Strategy('postcopy'),
              POSTCOPY + ['postcopy-preempt'], transport='tcp'),
     switched, passes(0), full=True)
case('hybrid of an idle guest ends as pre-copy', IDLE,
     settings('hybrid', Strategy('hybrid', passes=1), POSTCOPY,
              **AN_IDLE_REST_FITS),
     stayed_precopy)
case('hybrid, heavy guest, one pass', HEAVY,
     settings('hybrid', Strategy('hybrid', passes=1), POSTCOPY,
              **NOTHING_FITS), switched, passes(1), sent_at_most(1.6))
case('hybrid, heavy guest, three passes', HEAVY,
     settings('hybrid', Strategy('hybrid', passes=3), POSTCOPY,
              **NOTHING_FITS), switched, passes(3), full=True)
case('auto of an idle guest stays with pre-copy', IDLE,
     settings('auto', Strategy('auto'), POSTCOPY, **AN_IDLE_REST_FITS),
     stayed_precopy)
case('auto of an idle guest stays with pre-copy on a slow link', IDLE,
     Settings('auto', Strategy('auto'), POSTCOPY, bandwidth=12),
     stayed_precopy, full=True)
case('auto of an idle guest stays with pre-copy under a tight limit', IDLE,
     Settings('auto', Strategy('auto'), POSTCOPY, bandwidth=12,
              parameters={'downtime-limit': 30}),
     stayed_precopy, full=True)
case('auto of a guest that the link can follow stays with pre-copy', LIGHT,
     settings('auto', Strategy('auto'), POSTCOPY), stayed_precopy, full=True)
case('auto, heavy guest, completes by post-copy and says why', HEAVY,
     settings('auto', Strategy('auto'), POSTCOPY, **NOTHING_FITS),
     switched, sent_at_most(1.6))
case('auto, heavy guest with two writers and two vCPUs over tcp',
     Load(fill=scenario.FILL, ws=32, threads=2, random=1, read=1),
     settings('auto', Strategy('auto'), POSTCOPY, transport='tcp',
              **NOTHING_FITS), switched, full=True)
case('delta with a cache sized by itself, a few bytes of each page', SPARSE,
     settings('delta', Strategy('precopy'), XBZRLE,
              parameters=SIZED_BY_ITSELF), stayed_precopy)
case('delta with a cache sized by itself, idle guest', IDLE,
     settings('delta', Strategy('precopy'), XBZRLE,
              parameters=SIZED_BY_ITSELF), stayed_precopy, full=True)
case('delta in the passes of hybrid, heavy guest', HEAVY,
     settings('hybrid with delta', Strategy('hybrid', passes=3),
              POSTCOPY + XBZRLE, parameters=SIZED_BY_ITSELF,
              **NOTHING_FITS), switched, full=True)
case('auto stays with pre-copy where delta makes it converge', SPARSE,
     settings('auto with delta', Strategy('auto'), POSTCOPY + XBZRLE,
              parameters=SIZED_BY_ITSELF), stayed_precopy, full=True)
case('delta in the passes of auto, heavy guest', HEAVY,
     settings('auto with delta', Strategy('auto'), POSTCOPY + XBZRLE,
              parameters=SIZED_BY_ITSELF, **NOTHING_FITS), switched,
     full=True)


def hopeless(title: str, load: Load, bandwidth: int, full: bool) -> None:
    """What the other strategies are for; also that loads are what they say"""
    def run() -> None:
        with Machines(scenario.our_binary(), load, scenario.MEMORY) as room:
            # Pre-copy does not look for what is dirty with a limit of 0
            how = Settings('precopy', Strategy('precopy'), [], max_passes=4,
                           bandwidth=bandwidth, downtime_limit=1)
            migration = Migration(room.start(), room.expect(), room.guest,
                                  how)
            record = migration.run()
            check_equal(record.outcome, 'cancelled after 4 passes', 'outcome')
            scenario.check_stayed(room, migration, record)
    tap.add(title, run, full)


# A busy machine makes the guest slow, and the link not slower than this
hopeless('precopy of a heavy guest does not end, can be cancelled', HEAVY,
         BANDWIDTH // 4, False)
hopeless('precopy without delta does not end where delta does', SPARSE,
         BANDWIDTH, True)


@tap.test('a guest goes from host to host, by another strategy each time',
          full=True)
def chain() -> None:
    """A destination becomes a source, with what was set on it before"""
    hops = (settings('postcopy', Strategy('postcopy'), POSTCOPY),
            settings('precopy with delta', Strategy('precopy'), XBZRLE,
                     parameters=SIZED_BY_ITSELF),
            settings('hybrid', Strategy('hybrid', passes=2), POSTCOPY),
            settings('auto', Strategy('auto'), POSTCOPY),
            settings('postcopy again', Strategy('postcopy'), POSTCOPY))
    load = Load(fill=scenario.FILL, ws=16, rate=16, write=64, read=1)
    with Machines(scenario.our_binary(), load, scenario.MEMORY) as room:
        here = room.start()
        for how in hops:
            there = room.expect()
            migration = Migration(here, there, room.guest, how)
            record = migration.run()
            note(str(record))
            scenario.check_completed(room, migration, record)
            room.end(here)
            here = there


@tap.test('no write to any node of memory goes unseen')
def nodes() -> None:
    """Under TCG, stock QEMU looks at the first block of memory for all"""
    sizes = (scenario.MEMORY // 4, scenario.MEMORY - scenario.MEMORY // 4)
    backends = tuple(
        part for node, size in enumerate(sizes) for part in (
            '-object', f'memory-backend-ram,id=node{node},size={size}M',
            '-numa', f'node,nodeid={node},memdev=node{node}'))
    how = settings('precopy', Strategy('precopy'), [])
    with Machines(scenario.our_binary(), LIGHT, scenario.MEMORY,
                  extra=backends) as room:
        migration = Migration(room.start(), room.expect(), room.guest, how)
        record = migration.run()
        note(str(record))
        scenario.check_completed(room, migration, record)


@tap.test('the commands of README.rst')
def readme_commands() -> None:
    """Those to try a strategy with, in the human monitor"""
    where = paths.scratch() / f'readme-{os.getpid()}.sock'
    with Machines(scenario.our_binary(), scenario.IDLE,
                  scenario.MEMORY) as room:
        source, destination = room.start(), room.expect()
        for who, line in readme.commands('Which strategy?'):
            machine = source if who == '(src)' else destination
            said = machine.hmp(re.sub(r'tcp:\S+', f'unix:{where}', line))
            note(f'{who} {line}\n{said}')
            check('rror' not in said and 'unknown' not in said, said)
        check('strategy: auto' in said, f'the last answer: {said}')
        deadline = time.monotonic() + PATIENCE
        while source.migration()['status'] != 'completed':
            check(source.migration()['status'] != 'failed', 'it failed')
            check(time.monotonic() < deadline, 'it does not end')
            source.next_event(1.0)
        room.guest.runs_in(destination)
        room.guest.wait_beats(2)
        check_equal(room.guest.verify().total, 0, 'wrong pages')
        where.unlink(missing_ok=True)


if __name__ == '__main__':
    sys.exit(tap.main())
