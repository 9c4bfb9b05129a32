# SPDX-License-Identifier: GPL-2.0-or-later
"""
What most tests are: one guest, one migration, and what must be true then

The guest is small, so that a test takes seconds; figures are not the point
here but in tests/bench.
"""

from typing import Optional

from .binary import Binary
from .guest import Load
from .machines import Machines
from .migration import Migration, Record, Settings
from .tap import Skip, check, check_equal
from .vm import VM
from . import binary as binaries
from . import strategy


MEMORY = 256
FILL = 96
# MiB/s; with a guest that dirties memory faster than this, pre-copy is lost
BANDWIDTH = 48

IDLE = Load(fill=FILL, ws=32, load=0)
# As fast as it goes, whole pages that no encoding can shrink
HEAVY = Load(fill=FILL, ws=32)
# Converges at BANDWIDTH, after some passes
LIGHT = Load(fill=FILL, ws=8, rate=8)
# More than BANDWIDTH carries, a few bytes of each page
SPARSE = Load(fill=FILL, ws=32, rate=BANDWIDTH * 5 // 4, write=64)


def our_binary(with_strategies: bool = True) -> Binary:
    """Our binary, or a reason to skip"""
    try:
        found = binaries.ours()
    except binaries.NoBinary as exc:
        raise Skip(str(exc)) from exc
    if with_strategies and not has_strategies(found):
        raise Skip(f'{found.path} knows no strategies')
    return found


def stock_binary() -> Binary:
    """A stock binary, or a reason to skip"""
    try:
        return binaries.stock()
    except binaries.NoBinary as exc:
        raise Skip(str(exc)) from exc


def has_strategies(binary: Binary) -> bool:
    """Whether the monitor of @binary has the parameter"""
    machine = VM(binary, 'schema', memory=64, extra=('-S',))
    try:
        machine.launch()
        return strategy.is_supported(machine.cmd('query-qmp-schema'))
    finally:
        machine.stop_process()


def check_alive(room: Machines, record: Record) -> None:
    """The guest works, and never found a page wrong"""
    room.guest.wait_beats(2)
    if room.load.load:
        room.guest.wait_ops(8)
    check_equal(record.wrong_pages, 0, 'pages found wrong by the guest, as '
                f'{room.guest.wrong_lines}')


def check_completed(room: Machines, migration: Migration,
                    record: Record) -> None:
    """It moved, unharmed"""
    check_equal(record.outcome, 'completed', 'outcome')
    check_equal(migration.source.status(), 'postmigrate', 'the source')
    check_equal(migration.destination.status(), 'running', 'the destination')
    check_alive(room, record)


def check_stayed(room: Machines, migration: Migration,
                 record: Record) -> None:
    """It did not move, and is unharmed"""
    check(not record.completed, f'it moved: {record}')
    check_equal(migration.source.status(), 'running', 'the source')
    check_alive(room, record)


def migrate(load: Load, settings: Settings,
            source: Optional[Binary] = None,
            destination: Optional[Binary] = None) -> Record:
    """Boot a guest with @load, migrate it, check that it got there"""
    first = source or our_binary(settings.strategy is not None)
    with Machines(first, load, MEMORY) as room:
        migration = Migration(room.start(), room.expect(destination),
                              room.guest, settings)
        record = migration.run()
        check_completed(room, migration, record)
    return record
