# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory hosts: qemu-memserver processes for the tests of split memory

Use one as a context manager: whatever happens, its process is ended.
"""

import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

from . import paths
from .binary import Binary
from .tap import Skip, note


PATIENCE = 180.0
# Both replace themselves: the process stays the one we started
WRAPPER = ('setsid', 'setpriv', '--pdeathsig', 'KILL')


class MemHostError(Exception):
    """A memory host did not do what it should"""


def program(binary: Binary) -> Path:
    """The qemu-memserver beside @binary, or a reason to skip"""
    beside = Path(binary.path).parent / 'qemu-memserver'
    built = beside.parent / 'migration/memserver/qemu-memserver'
    for path in (beside, built):
        if os.access(path, os.X_OK):
            return path
    raise Skip(f'no qemu-memserver beside {binary.path}')


class MemHost:
    """
    One qemu-memserver

    @megabytes: what it may store
    @listen: where, "tcp:ADDRESS:PORT"; a unix socket of its own by default
    @prefix: a command that runs another, such as ip netns exec NAME
    """

    _count = 0

    def __init__(self, binary: Binary, megabytes: int,
                 listen: Optional[str] = None, prefix: Sequence[str] = (),
                 options: Sequence[str] = ()):
        MemHost._count += 1
        name = f'mem{os.getpid()}-{MemHost._count}'
        self.tool = str(program(binary))
        self.status_path = paths.scratch() / f'{name}.sock'
        self.uri = listen or f'unix:{self.status_path}'
        self._log = paths.scratch() / f'{name}.log'
        listens = ['--listen', f'unix:{self.status_path}']
        if listen:
            listens += ['--listen', listen]
        self.command: Tuple[str, ...] = (
            *WRAPPER, *prefix, self.tool, *listens, '--max-memory',
            f'{megabytes}M', *options)
        self._process: Optional['subprocess.Popen[bytes]'] = None

    def start(self) -> None:
        """Returns when it can be connected to"""
        self.status_path.unlink(missing_ok=True)
        log = open(self._log, 'wb')  # pylint: disable=consider-using-with
        with log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MemHostError(f'{self.uri} did not start: {self.said()}')
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.status_path)) == 0

    def __enter__(self) -> 'MemHost':
        self.start()
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.kill()
        if kind is not None:
            note(f'memory host {self.uri} said:\n{self.said()}')
        for path in (self.status_path, self._log):
            path.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once, with all that it stores"""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Have it answer nobody until thaw()"""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on"""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        """What it wrote"""
        return self._log.read_text(errors='replace')[-4000:]

    def status(self) -> Dict[str, Any]:
        """What the tool's status says"""
        answer = subprocess.run(
            (self.tool, '--status', f'unix:{self.status_path}', '--json'),
            check=True, stdout=subprocess.PIPE, timeout=PATIENCE)
        status: Dict[str, Any] = json.loads(answer.stdout)
        return status

    def sessions(self) -> List[Dict[str, Any]]:
        """What it knows of its sessions"""
        found: List[Dict[str, Any]] = self.status()['sessions']
        return found


__all__ = ['MemHost', 'MemHostError', 'program']
