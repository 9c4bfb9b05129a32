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
from lib.scenario import our_binary, stock_binary
from lib.strategy import Strategy
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


if __name__ == '__main__':
    sys.exit(tap.main())
