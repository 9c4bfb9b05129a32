#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The test guest sees what a failed migration could do to its memory

Everything else in this directory trusts the guest's verdict, so it comes
first: each kind of damage, done on purpose, must be found.
"""

import sys

from lib.guest import PATTERNS, Load
from lib.machines import Machines
from lib.migration import Migration, Settings
from lib.scenario import BANDWIDTH, FILL, MEMORY, our_binary
from lib.tap import Tap, check, check_equal, note

tap = Tap()

WS = 16
PAGES_PER_MIB = 256
# In the part that is written once, in its middle, and of the working set
STATIC_PAGE = (WS + 20) * PAGES_PER_MIB + 3
BUSY_PAGE = 7


@tap.test('an unharmed guest finds nothing wrong, idle and busy')
def unharmed() -> None:
    load = Load(fill=FILL, ws=WS, threads=2, read=1)
    with Machines(our_binary(False), load, MEMORY, smp=2) as room:
        room.start()
        for parameters in ({'write': 64}, {'rate': 16}, {'random': 1},
                           {'write': 0}):
            room.guest.set(**parameters)
            room.guest.wait_ops(64)
        verdict = room.guest.verify()
        check_equal(verdict.total, 0, 'wrong pages')
        check_equal(verdict.pages, FILL * PAGES_PER_MIB, 'pages verified')


@tap.test('each kind of damage to a page is found')
def damage() -> None:
    load = Load(fill=FILL, ws=WS, load=0)
    with Machines(our_binary(False), load, MEMORY) as room:
        room.start()
        wants = {'bit': 'checksum', 'zero': 'zero', 'swap': 'number',
                 'stale': 'version'}
        for number, (how, why) in enumerate(wants.items()):
            page = STATIC_PAGE + 2 * number
            before = room.guest.verify()
            check_equal(before.wrong, number, f'wrong before "{how}"')
            room.guest.command(f'corrupt {how} {page}')
            check_equal(room.guest.verify().wrong, number + 1,
                        f'wrong after "{how}"')
            check(any(f'page={page} why={why}' in line
                      for line in room.guest.wrong_lines),
                  f'"{how}" is not among {room.guest.wrong_lines}')


@tap.test('a writer finds damage before it would write over it')
def before_write() -> None:
    load = Load(fill=FILL, ws=WS, load=0)
    with Machines(our_binary(False), load, MEMORY) as room:
        room.start()
        room.guest.command(f'corrupt stale {BUSY_PAGE}')
        room.guest.set(load=1)
        # Once round the working set
        beat = room.guest.wait_ops(WS * PAGES_PER_MIB)
        check_equal(beat.wrong, 1, 'wrong pages that the writer found')


@tap.test('readers read by their pattern, and find damage')
def patterns() -> None:
    load = Load(fill=FILL, load=0, pattern=PATTERNS['zipf'])
    with Machines(our_binary(False), load, MEMORY) as room:
        room.start()
        # The page that is read most often by Zipf's law
        room.guest.command('corrupt bit 0')
        pages = FILL * PAGES_PER_MIB
        harmonic = sum(n ** -0.99 for n in range(1, pages + 1))
        for name, share in (('zipf', 1 / harmonic), ('uniform', 1 / pages),
                            ('sequential', 1 / pages)):
            room.guest.set(pattern=PATTERNS[name], load=1)
            before = room.guest.wait_beats(2)
            after = room.guest.wait_ops(20 * pages)
            found = ((after.wrong - before.wrong)
                     / (after.ops - before.ops) / share)
            note(f'{name}: {found:.2f} of what is expected')
            # Twenty such reads are expected at least: by chance there are
            # less than three in one of two million cases.
            low, high = (0.9, 1.1) if name == 'zipf' else (0.1, 3)
            check(low < found < high, f'{name}: {found:.2f} times as often '
                  'as it should be')


@tap.test('a writer that never yields lets nobody run in between')
def never_yields() -> None:
    load = Load(fill=FILL, ws=4, load=0, fifo=1, rounds=8, beat=5)
    total = load.ws * load.rounds * PAGES_PER_MIB
    with Machines(our_binary(False), load, MEMORY) as room:
        room.start()
        before = room.guest.wait_beats(2)
        room.guest.set(load=1)
        room.guest.command('rest')
        after = room.guest.wait_beats(1)
        check_equal(after.ops, total, 'operations')
        beats = room.guest.beats_since(before.host_s)
        between = [beat for beat in beats if 0 < beat.ops < total]
        took = (after.guest_ms
                - max(beat.guest_ms for beat in beats if not beat.ops))
        # Newer kernels let others run for a twentieth of each second; a
        # writer that yields would let each heartbeat come
        check(len(between) < 3 + took / load.beat / 10,
              f'{len(between)} heartbeats in the {took} ms in which it wrote')
        check_equal(room.guest.verify().total, 0, 'wrong pages')


@tap.test('damage done while a migration runs is in its record')
def while_migrating() -> None:
    load = Load(fill=FILL, ws=WS, load=0)
    with Machines(our_binary(False), load, MEMORY) as room:
        migration = Migration(room.start(), room.expect(), room.guest,
                              Settings('precopy', bandwidth=BANDWIDTH))
        migration.start()
        migration.wait_state('active')
        room.guest.command(f'corrupt bit {STATIC_PAGE}')
        migration.wait_end()
        record = migration.record()
        check(record.completed, record)
        check_equal(record.wrong_pages, 1, 'wrong pages')


@tap.test('the guest sees a virtio disk, and all of a larger memory')
def larger() -> None:
    disk = ('-blockdev', 'null-co,node-name=disk,size=16777216,read-zeroes=on',
            '-device', 'virtio-blk-pci,drive=disk')
    load = Load(ws=WS)
    with Machines(our_binary(False), load, 1024, extra=disk) as room:
        room.start()
        errors = [line for line in room.guest.lines if 'error' in line]
        check_equal(errors, [], 'errors of the guest')
        verdict = room.guest.verify()
        check_equal(verdict.total, 0, 'wrong pages')
        check(verdict.pages > 768 * PAGES_PER_MIB,
              f'only {verdict.pages} pages')
        check_equal(len(room.guest.disks()), 1, 'disks')


if __name__ == '__main__':
    sys.exit(tap.main())
