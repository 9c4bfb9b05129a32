#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
With no strategy set, the stream is stock QEMU's

A VM that was never started holds the same state in both binaries, so both
must write the same sections, in the same order, of the same sizes, and what
QEMU's scripts/analyze-migration.py reads of them must agree.
"""

import contextlib
from pathlib import Path
import sys
import tempfile
from typing import Any, Iterator, List

from lib import paths, stream
from lib.binary import Binary
from lib.guest import Guest
from lib.memhost import MemHost
from lib.migration import PATIENCE, Migration, Settings
from lib.relay import Relay
from lib.scenario import our_binary, stock_binary
from lib.strategy import STRATEGY_SECTION, Strategy
from lib.tap import Tap, check, check_equal, note
from lib.vm import VM

tap = Tap()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that goes away"""
    with tempfile.TemporaryDirectory(dir=paths.scratch()) as name:
        yield Path(name)


def taken_from(binary: Binary, path: Path, *setup: Any) -> None:
    """The stream of a stopped VM in @path"""
    machine = VM(binary, f'stream-{binary.name}', memory=64,
                 machine='pc-q35-10.0', extra=('-S',))
    try:
        machine.launch()
        for command, arguments in setup:
            machine.cmd(command, arguments)
        stream.record(machine, path)
    finally:
        machine.stop_process()


def with_firmware_of(binary: Binary, other: Binary) -> Binary:
    """@binary with @other's firmware, as that is part of the memory"""
    return Binary(binary.name, binary.path, other.data, binary.environment)


def difference(ours: List[stream.Section],
               stock: List[stream.Section]) -> str:
    """The first one that is not the same"""
    for number, (have, want) in enumerate(zip(ours, stock)):
        if have != want:
            return f'section {number} is {have}, stock has {want}'
    return f'{len(ours)} sections, stock has {len(stock)}'


@tap.test('a stopped VM: sections, order and sizes are those of stock')
def sections() -> None:
    stock = stock_binary()
    ours = our_binary(False)
    if stock.data:
        ours = with_firmware_of(ours, stock)
    note(f'stock is {stock.path}, {stock.version()}')
    with scratch() as where:
        taken_from(ours, where / 'ours')
        taken_from(stock, where / 'stock')
        have = stream.sections(where / 'ours')
        want = stream.sections(where / 'stock')
        check(len(want) > 20, f'only {len(want)} sections')
        check(any(section.name == 'ram' for section in want), 'no RAM')
        check(have == want, difference(have, want))
        check(stream.fields(where / 'ours') == stream.fields(where / 'stock'),
              'the descriptions of the fields differ')
        check_equal((where / 'ours').stat().st_size,
                    (where / 'stock').stat().st_size, 'bytes in all')
        note(f'{len(have)} sections, {(where / "ours").stat().st_size} bytes')


@tap.test('a stopped VM: mode precopy adds nothing')
def explicit_precopy() -> None:
    with scratch() as where:
        ours = our_binary()
        taken_from(ours, where / 'none')
        taken_from(ours, where / 'precopy',
                   ('migrate-set-parameters', Strategy('precopy').arguments()))
        have = stream.sections(where / 'precopy')
        want = stream.sections(where / 'none')
        check(have == want, difference(have, want))


@tap.test('a strategy adds its section, which analyze-migration.py can read')
def with_strategy() -> None:
    """
    A whole stream, as it went to a destination: a guest that was never started
    needs no post-copy, so hybrid ends as pre-copy does.
    """
    ours = our_binary()
    how = Settings('hybrid', Strategy('hybrid'), ['postcopy-ram'])
    with scratch() as where, contextlib.ExitStack() as ends:
        source = VM(ours, 'stream-source', memory=64, extra=('-S',))
        ends.callback(source.stop_process)
        source.launch()
        destination = VM(ours, 'stream-destination', memory=64,
                         extra=('-S', '-incoming', 'defer'))
        ends.callback(destination.stop_process)
        destination.launch()
        silent = Guest(beat_ms=20)
        ends.callback(silent.close)
        migration = Migration(source, destination, silent, how)
        migration.prepare()
        destination.cmd('migrate-incoming', uri=f'unix:{where}/in')
        relay = Relay(where / 'out', where / 'in', where / 'stream')
        source.cmd('migrate', uri=f'unix:{where}/out')
        migration.wait_state('completed')
        relay.join(PATIENCE)

        have = stream.sections(where / 'stream')
        ours_only = [section for section in have
                     if section.name == STRATEGY_SECTION]
        check_equal([section.kind for section in ours_only
                     if section.kind != 'part'], ['start', 'end'],
                    'beginning and end of our section')
        names = [section.name for section in have]
        first_device = [section.kind for section in have].index('full')
        check(STRATEGY_SECTION not in names[first_device:],
              'our section ends before any device state')


# The head of STRATEGY_MSG_SPLIT_COMMIT: type, "required", length; and that of
# a message which nobody knows nor has to
COMMIT = bytes.fromhex('0013 0001 0000 0018')
UNKNOWN = bytes.fromhex('7fff 0000 0000 0018')


@tap.test('split memory without the end of its map is not loaded')
def without_commit() -> None:
    """The destination gives up before it has loaded any device"""
    ours = our_binary()
    with scratch() as where, contextlib.ExitStack() as ends:
        memory = ends.enter_context(MemHost(ours, 512))
        how = Settings('split', Strategy(split={
            'main-memory': 96 << 20, 'memory-hosts': [{'uri': memory.uri}]}))
        source = VM(ours, 'forged-source', memory=256, extra=('-S',))
        ends.callback(source.stop_process)
        source.launch()
        destination = VM(ours, 'forged-destination', memory=256,
                         extra=('-S', '-incoming', 'defer'))
        ends.callback(destination.stop_process)
        destination.launch()
        silent = Guest(beat_ms=20)
        ends.callback(silent.close)
        migration = Migration(source, destination, silent, how)
        migration.prepare()
        destination.cmd('migrate-incoming', {
            'uri': f'unix:{where}/in', 'exit-on-error': False})
        relay = Relay(where / 'out', where / 'in', where / 'stream',
                      (COMMIT, UNKNOWN))
        source.cmd('migrate', uri=f'unix:{where}/out')
        migration.wait_state('failed')
        relay.join(PATIENCE)
        check((where / 'stream').read_bytes().count(UNKNOWN) == 1,
              'the message was taken out')
        check_equal(destination.migration()['status'], 'failed',
                    'the destination')


if __name__ == '__main__':
    sys.exit(tap.main())
