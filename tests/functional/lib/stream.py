# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a migration stream consists of, by QEMU's own scripts/analyze-migration.py

A stream is taken from a VM that has been stopped, into a file.
"""

import contextlib
import importlib.util
import io
import os
from pathlib import Path
import sys
from typing import Any, Dict, List, NamedTuple

from . import paths
from .migration import ENDS, PATIENCE, MigrationError
from .vm import VM


class Section(NamedTuple):
    """One header of a section, command or other part of the stream"""
    kind: str
    name: str
    instance: int
    version: int
    size: int


KINDS = {0x00: 'eof', 0x01: 'start', 0x02: 'part', 0x03: 'end', 0x04: 'full',
         0x07: 'configuration', 0x08: 'command'}


def record(machine: VM, path: Path) -> None:
    """Migrate @machine into the file @path"""
    machine.set_capabilities({'events'})
    machine.forget_events()
    machine.cmd('migrate', uri=f'exec:cat > {path}')
    while True:
        event = machine.next_event(PATIENCE)
        if event is None:
            raise MigrationError('the stream did not end')
        if event['event'] == 'MIGRATION' and event['data']['status'] in ENDS:
            if event['data']['status'] != 'completed':
                raise MigrationError(f'no stream: {machine.migration()}')
            return


def _analyzer(path: Path) -> Any:
    """
    The module analyze-migration.py

    It is a script that works as soon as it is loaded: give it something that
    it can do.
    """
    script = paths.qemu_source() / 'scripts' / 'analyze-migration.py'
    spec = importlib.util.spec_from_file_location('analyze_migration', script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    arguments, sys.argv = sys.argv, ['analyze-migration.py', '-f', str(path),
                                     '-d', 'desc']
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(module)
    finally:
        sys.argv = arguments
    return module


def sections(path: Path) -> List[Section]:
    """The parts of the stream in @path, in order, with their sizes"""
    module = _analyzer(path)
    names: Dict[int, str] = {}
    starts: List[List[Any]] = []

    class Watcher(module.MigrationFile):  # type: ignore
        """
        Notes where each section begins, as the analyzer reads it

        The analyzer knows but one command, which has no data.  Others, as a
        migration that may go to post-copy has them, are made to look like it.
        """

        command = False

        def read16(self) -> int:
            """Type and length of a command are what the main loop reads"""
            caller = sys._getframe(1)  # pylint: disable=protected-access
            value = int(super().read16())
            if not isinstance(caller.f_locals.get('self'),
                              module.MigrationDump):
                return value
            self.command = not self.command
            if self.command:
                return int(module.MigrationDump.QEMU_MIG_CMD_SWITCHOVER_START)
            self.file.seek(value, os.SEEK_CUR)
            return 0

        def read8(self) -> int:
            """A type of section is what the analyzer's main loop reads"""
            caller = sys._getframe(1)  # pylint: disable=protected-access
            where = self.file.tell()
            value = int(super().read8())
            if (caller.f_code.co_name == 'read' and value in KINDS
                    and isinstance(caller.f_locals.get('self'),
                                   module.MigrationDump)):
                starts.append([where, value])
            return value

    module.MigrationFile = Watcher
    dump = module.MigrationDump(str(path))
    dump.read()

    result: List[Section] = []
    with open(path, 'rb') as stream:
        for number, (where, value) in enumerate(starts):
            end = (starts[number + 1][0] if number + 1 < len(starts)
                   else where + 1)
            stream.seek(where + 1)
            name, instance, version = '', 0, 0
            if value in (0x01, 0x04):
                section = int.from_bytes(stream.read(4), 'big')
                name = stream.read(stream.read(1)[0]).decode()
                instance = int.from_bytes(stream.read(4), 'big')
                version = int.from_bytes(stream.read(4), 'big')
                names[section] = name
            elif value in (0x02, 0x03):
                name = names[int.from_bytes(stream.read(4), 'big')]
            result.append(Section(KINDS[value], name, instance, version,
                                  end - where))
    return result


def fields(path: Path) -> Any:
    """The description of all devices' fields, their order and sizes"""
    module = _analyzer(path)
    dump = module.MigrationDump(str(path))
    dump.read(desc_only=True)
    return dump.vmsd_desc
