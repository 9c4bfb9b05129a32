# SPDX-License-Identifier: GPL-2.0-or-later
"""
A host with too little memory that swaps to a disk

The host is a memory cgroup (version 1); its disk is a swap file, or, where it
is to be a slow one, a loop device over it whose rates blkio limits.  The limits
are the device's, in the root group: what the kernel swaps out is not counted
for the group that it belongs to.

Use it as a context manager, around the machines that are on it: the group,
the swap file and the loop device end with it.  Needs root.
"""

import contextlib
import errno
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
from typing import Dict, Iterator, NamedTuple, Optional

from lib import paths
from lib.migration import MIB
from lib.vm import Host

from suite import Unavailable


MEMORY = Path('/sys/fs/cgroup/memory')
BLKIO = Path('/sys/fs/cgroup/blkio')
# For what QEMU takes beyond guest memory until that is known
SLACK = 8 * MIB
PATIENCE = 60.0


class Rates(NamedTuple):
    """What a disk does in a second at most, reading and writing each"""
    bytes: int
    operations: int


SATA = Rates(100_000_000, 500)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise OSError(f'{" ".join(command)}: {done.stdout.strip()}')
    return done.stdout.strip()


def why_not(rates: Optional[Rates]) -> str:
    """Why there can be no such host here, empty when there can"""
    needed = [MEMORY / 'memory.limit_in_bytes']
    tools = ['mkswap', 'swapon', 'swapoff']
    if rates:
        needed += _limits()
        tools.append('losetup')
    if os.geteuid():
        return 'a cgroup and a swap file need root'
    missing = [str(path) for path in needed if not path.exists()]
    missing += [tool for tool in tools if not shutil.which(tool)]
    return f'there is no {missing[0]}' if missing else ''


def _limits() -> Iterator[Path]:
    """The files of blkio's limits: bytes, then operations"""
    for way in ('read', 'write'):
        for unit in ('bps', 'iops'):
            yield BLKIO / f'blkio.throttle.{way}_{unit}_device'


def _limit(device: str, rates: Rates) -> None:
    number = os.stat(device).st_rdev
    for path, value in zip(_limits(), (rates.bytes, rates.operations) * 2):
        path.write_text(f'{os.major(number)}:{os.minor(number)} {value}\n',
                        encoding='ascii')


@contextlib.contextmanager
def _swap_file(size: int) -> Iterator[Path]:
    folder = paths.BUILD / 'bench'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'swap-{os.getpid()}'
    try:
        with open(path, 'wb') as file:
            path.chmod(0o600)
            os.posix_fallocate(file.fileno(), 0, size)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _slow_disk(path: Path, rates: Rates) -> Iterator[Path]:
    device = _run('losetup', '--find', '--show', '--direct-io=on', str(path))
    try:
        _limit(device, rates)
        try:
            yield Path(device)
        finally:
            _limit(device, Rates(0, 0))
    finally:
        _run('losetup', '--detach', device)


@contextlib.contextmanager
def _swapping(path: Path) -> Iterator[None]:
    _run('mkswap', str(path))
    _run('swapon', str(path))
    try:
        yield
    finally:
        _run('swapoff', str(path))


@contextlib.contextmanager
def _group() -> Iterator[Path]:
    path = MEMORY / f'bench-split-{os.getpid()}'
    path.mkdir()
    try:
        # Whatever the machine has for itself
        (path / 'memory.swappiness').write_text('60', encoding='ascii')
        yield path
    finally:
        _remove(path)


def _remove(group: Path) -> None:
    """A process that has been waited for may still be charged for a while"""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class SwapHost(contextlib.AbstractContextManager['SwapHost']):
    """
    @swap: size of the swap file, in bytes
    @rates: of the disk, None for what it can do

    host: for who is to run there.  Has all memory until limit() is called.
    """

    def __init__(self, swap: int, rates: Optional[Rates] = None):
        why = why_not(rates)
        if why:
            raise Unavailable(why)
        self._swap = swap
        self._rates = rates
        self._stack = contextlib.ExitStack()
        self._path = Path()
        self.host = Host()

    def __enter__(self) -> 'SwapHost':
        # Whoever is told to end cleans up, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self._make()
        except OSError as exc:
            raise Unavailable(f'no host that swaps here: {exc}') from exc
        self.host = Host(('sh', '-c', f'echo $$ > {self._path}/cgroup.procs '
                          '&& exec "$@"', 'sh'))
        return self

    def _make(self) -> None:
        with contextlib.ExitStack() as stack:
            self._path = stack.enter_context(_group())
            disk = stack.enter_context(_swap_file(self._swap))
            if self._rates:
                disk = stack.enter_context(_slow_disk(disk, self._rates))
            stack.enter_context(_swapping(disk))
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def limit(self, main_memory: int) -> None:
        """
        From now on there is room for @main_memory bytes beside what the
        processes there have already, which have no guest memory yet
        """
        self._limit(self._read('memory.usage_in_bytes') + main_memory + SLACK)

    def fit(self, main_memory: int, resident: int) -> None:
        """
        The same once there is guest memory, of which @resident bytes are
        mapped: what else is mapped, and the kernel's, is not part of it
        """
        stat = self._stat()
        self._limit(stat['rss'] - resident + stat['mapped_file'] + main_memory
                    + self._read('memory.kmem.usage_in_bytes'))

    def swapped(self) -> int:
        """Bytes that are swapped out now"""
        return self._stat()['swap']

    def _read(self, name: str) -> int:
        return int((self._path / name).read_text('ascii'))

    def _stat(self) -> Dict[str, int]:
        lines = (self._path / 'memory.stat').read_text('ascii').splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}

    def _limit(self, size: int) -> None:
        """Busy is said when not enough could be swapped out at once"""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                (self._path / 'memory.limit_in_bytes').write_text(
                    str(size), encoding='ascii')
                return
            except OSError as exc:
                if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
