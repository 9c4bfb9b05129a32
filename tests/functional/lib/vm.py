# SPDX-License-Identifier: GPL-2.0-or-later
"""
One QEMU process with a monitor and a serial line

The process leads its own process group and dies with the thread that started
it, so that nothing is left behind when a test is killed.
"""

import asyncio
import logging
import os
import socket
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple, cast

from . import paths, results
from .binary import Binary

paths.use_qemu_python()

# pylint: disable=wrong-import-position
from qemu.machine import QEMUMachine  # noqa: E402
from qemu.machine.machine import (  # noqa: E402
    AbnormalShutdown,
    QEMUMachineError,
)
from qemu.qmp import ExecuteError  # noqa: E402


__all__ = ['ExecuteError', 'HERE', 'Host', 'PORTABLE_CPU', 'QEMUMachineError',
           'QMPDict', 'VM']

QMPDict = Dict[str, Any]
# A busy host is slow, a hung QEMU answers never: be generous.
MONITOR_TIMEOUT = 180
# setsid and setpriv replace themselves: the process stays the one we started
WRAPPER = ('setsid', 'setpriv', '--pdeathsig', 'KILL')

# A model that every host and both binaries can do
PORTABLE_CPU = 'qemu64'

# That a QEMU died is told by whoever needed it.
logging.getLogger('qemu.machine').setLevel(logging.ERROR)


class Host(NamedTuple):
    """
    Where a QEMU runs: by which command, and its address for migrations

    What is in @wrapper must replace itself with the command that follows it.
    """
    wrapper: Tuple[str, ...] = ()
    address: str = '127.0.0.1'


HERE = Host()


class VM(QEMUMachine):
    """
    A QEMU that runs the test guest or waits for one

    @accel is what -accel takes, properties included.
    @serial is our end of the serial line; whoever reads it takes it over by
    take_serial() and closes it.
    """

    def __init__(self, binary: Binary, name: str, accel: str = 'tcg',
                 memory: int = 512, smp: int = 1,
                 machine: str = 'q35', extra: Tuple[str, ...] = (),
                 cpu: str = PORTABLE_CPU, host: Host = HERE):
        super().__init__(str(binary.path),
                         wrapper=host.wrapper + self._prefix(binary),
                         name=name, base_temp_dir=str(paths.scratch()),
                         qmp_timer=MONITOR_TIMEOUT)
        self.binary_used = binary
        self.label = name
        self._stopped = False
        self.address = host.address
        self.set_machine(machine)
        ours, theirs = socket.socketpair()
        self.serial: Optional[socket.socket] = ours
        self._serial_child: Optional[socket.socket] = theirs
        os.set_inheritable(theirs.fileno(), True)
        self.add_args(*binary.firmware_args(), '-nodefaults',
                      '-name', f'{name},debug-threads=on',
                      '-no-user-config',
                      '-accel', accel, '-cpu', cpu,
                      '-m', f'{memory}M', '-smp', str(smp),
                      '-chardev', f'socket,id=serial,fd={theirs.fileno()}',
                      '-serial', 'chardev:serial', *extra)

    @staticmethod
    def _prefix(binary: Binary) -> Tuple[str, ...]:
        variables = [f'{key}={value}'
                     for key, value in binary.environment.items()]
        return WRAPPER + (('env', *variables) if variables else ())

    def launch(self) -> None:
        """Start it and connect to its monitor"""
        try:
            super().launch()
        finally:
            if self._serial_child:
                self._serial_child.close()
                self._serial_child = None
        self._qmp.settimeout(MONITOR_TIMEOUT)

    def take_serial(self) -> socket.socket:
        """Our end of the serial line, the caller's from now on"""
        assert self.serial is not None
        taken, self.serial = self.serial, None
        return taken

    def stop_process(self) -> None:
        """End the process, whatever state it is in"""
        try:
            self.shutdown(hard=True)
        except AbnormalShutdown:
            pass
        if not self._stopped:
            self._stopped = True
            results.keep(f'{self.label}.log', self.get_log() or '')
        for end in (self.serial, self._serial_child):
            if end:
                end.close()
        self.serial = self._serial_child = None

    def next_event(self, timeout: float) -> Optional[QMPDict]:
        """The next event, None when none comes within @timeout seconds"""
        if self._events:
            return self._events.pop(0)
        try:
            # A float of 0 would mean: for ever
            return self._qmp.pull_event(wait=max(float(timeout), 0.001))
        except (asyncio.TimeoutError, TimeoutError):
            return None

    def forget_events(self) -> None:
        """Drop the events that came so far"""
        while self.next_event(0):
            pass

    def status(self) -> str:
        """The run state, as query-status has it"""
        return str(cast(QMPDict, self.cmd('query-status'))['status'])

    def hmp(self, command: str) -> str:
        """What the human monitor answers to @command"""
        return str(self.cmd('human-monitor-command', command_line=command))

    def migration(self) -> QMPDict:
        """What query-migrate says now"""
        return cast(QMPDict, self.cmd('query-migrate'))

    def set_capabilities(self, wanted: Set[str]) -> None:
        """Have these migration capabilities on and all others off"""
        answer = cast(List[QMPDict], self.cmd('query-migrate-capabilities'))
        change = [{'capability': now['capability'],
                   'state': now['capability'] in wanted}
                  for now in answer
                  if now['state'] != (now['capability'] in wanted)]
        if change:
            self.cmd('migrate-set-capabilities', capabilities=change)

    def thread_ticks(self) -> Dict[str, Tuple[str, int]]:
        """Clock ticks that each thread ran so far: {tid: (name, ticks)}"""
        pid = self.get_pid()
        ticks: Dict[str, Tuple[str, int]] = {}
        for tid in os.listdir(f'/proc/{pid}/task'):
            try:
                with open(f'/proc/{pid}/task/{tid}/stat',
                          encoding='ascii', errors='replace') as stat:
                    line = stat.read()
            except FileNotFoundError:
                continue
            name = line[line.index('(') + 1:line.rindex(')')]
            values: List[str] = line[line.rindex(')') + 2:].split()
            ticks[tid] = (name, int(values[11]) + int(values[12]))
        return ticks
