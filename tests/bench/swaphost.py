# SPDX-License-Identifier: GPL-2.0-or-later
"""
A host with too little memory that swaps to a disk

The host is a memory cgroup; its disk is a swap file, or, where it is to be a
slow one, a loop device over it whose rates are limited.  Cgroups of version 1
and, where the memory controller is in that hierarchy, of version 2.

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
from typing import Dict, Iterator, List, NamedTuple, Optional

from lib import paths
from lib.migration import MIB
from lib.vm import Host

from suite import Unavailable


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


class Group:
    """
    A memory cgroup, by the names that things have in its version

    Does not exist until make() has been called.
    """

    def __init__(self, root: Path):
        self.root = root
        self.path = root / f'bench-split-{os.getpid()}'

    def needed(self, slow: bool) -> List[Path]:
        """What has to be there; for a @slow disk, too"""
        raise NotImplementedError

    def make(self, swap: int) -> None:
        """With no more swap than @swap bytes where that can be said"""
        raise NotImplementedError

    def remove(self) -> None:
        """A process that has been waited for may still be charged a while"""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def enter(self) -> str:
        """For a shell, to be in the group"""
        return f'echo $$ > {self.path}/cgroup.procs'

    def throttle(self, number: int, rates: Optional[Rates]) -> None:
        """Have the disk of device @number do no more; None: all it can"""
        raise NotImplementedError

    def limit(self, size: int) -> None:
        """Have no more than @size bytes in memory, once this returns"""
        raise NotImplementedError

    def used(self) -> int:
        """Bytes in memory that are the group's"""
        raise NotImplementedError

    def swapped(self) -> int:
        """Bytes that are swapped out"""
        raise NotImplementedError

    def beside(self) -> int:
        """Bytes that are no page cache: of processes, and the kernel's"""
        raise NotImplementedError

    def write(self, name: str, value: object) -> None:
        """Into a file of the group"""
        (self.path / name).write_text(f'{value}\n', encoding='ascii')

    def read(self, name: str) -> int:
        """From such a file"""
        return int((self.path / name).read_text('ascii'))

    def stat(self) -> Dict[str, int]:
        """What its memory is used for"""
        lines = (self.path / 'memory.stat').read_text('ascii').splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}


class GroupV1(Group):
    """
    Of version 1, which has a hierarchy for each controller

    Disks are limited in the root group: what the kernel swaps out is not
    counted for the group that it belongs to.
    """

    def __init__(self, root: Path = Path('/sys/fs/cgroup')):
        super().__init__(root / 'memory')
        self._blkio = root / 'blkio'

    def _throttles(self) -> List[Path]:
        """The files of the limits: bytes, then operations"""
        return [self._blkio / f'blkio.throttle.{way}_{unit}_device'
                for way in ('read', 'write') for unit in ('bps', 'iops')]

    def needed(self, slow: bool) -> List[Path]:
        return [self.root / 'memory.limit_in_bytes',
                *(self._throttles() if slow else [])]

    def make(self, swap: int) -> None:
        self.path.mkdir()
        # Whatever the machine has for itself
        self.write('memory.swappiness', 60)

    def throttle(self, number: int, rates: Optional[Rates]) -> None:
        for path, value in zip(self._throttles(), (rates or Rates(0, 0)) * 2):
            path.write_text(f'{os.major(number)}:{os.minor(number)} {value}\n',
                            encoding='ascii')

    def limit(self, size: int) -> None:
        # Busy is said when not enough could be swapped out at once.
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.write('memory.limit_in_bytes', size)
                return
            except OSError as exc:
                if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def used(self) -> int:
        return self.read('memory.usage_in_bytes')

    def swapped(self) -> int:
        return self.stat()['swap']

    def beside(self) -> int:
        stat = self.stat()
        return (stat['rss'] + stat['mapped_file']
                + self.read('memory.kmem.usage_in_bytes'))


class GroupV2(Group):
    """
    Of version 2, with all controllers in one hierarchy

    What is swapped out counts as its own, so its disk is limited in it.

    Who needs memory does not wait for a slow disk here as in version 1: after a
    few attempts the kernel looks for a process to kill.  Where there is none
    that it may kill, it goes on trying.
    """

    # Of the kernel's memory, where memory.stat has no sum of it (Linux 5.18)
    KERNEL = ('kernel_stack', 'pagetables', 'percpu', 'slab')

    def __init__(self, root: Path = Path('/sys/fs/cgroup')):
        super().__init__(root)
        self._enabled: List[str] = []

    def needed(self, slow: bool) -> List[Path]:
        file = self.root / 'cgroup.controllers'
        try:
            has = file.read_text('ascii').split()
        except OSError:
            return [file]
        return [self.root / name
                for name in ('memory', *(['io'] if slow else []))
                if name not in has]

    def make(self, swap: int) -> None:
        control = self.root / 'cgroup.subtree_control'
        on = control.read_text('ascii').split()
        for name in ('memory', 'io'):
            if name not in on and not self.needed(name == 'io'):
                control.write_text(f'+{name}\n', encoding='ascii')
                self._enabled.append(name)
        self.path.mkdir()
        self.write('memory.swap.max', swap)

    def remove(self) -> None:
        super().remove()
        while self._enabled:
            (self.root / 'cgroup.subtree_control').write_text(
                f'-{self._enabled.pop()}\n', encoding='ascii')

    def enter(self) -> str:
        # Not every container's root may.
        return (f'{super().enter()} && '
                '{ echo -1000 > /proc/$$/oom_score_adj || :; } 2>/dev/null')

    def throttle(self, number: int, rates: Optional[Rates]) -> None:
        size, count = rates or ('max', 'max')
        self.write('io.max', f'{os.major(number)}:{os.minor(number)} '
                   f'rbps={size} wbps={size} riops={count} wiops={count}')

    def limit(self, size: int) -> None:
        # Who is above memory.max is killed where nothing can be swapped out
        # at once; above memory.high it is only slowed down.
        self.write('memory.high', size)
        deadline = time.monotonic() + PATIENCE
        while self.used() > size:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f'uses {self.used()} bytes, and '
                              f'cannot do with {size}')
            time.sleep(0.05)
        self.write('memory.max', size)
        self.write('memory.high', 'max')

    def used(self) -> int:
        return self.read('memory.current')

    def swapped(self) -> int:
        return self.read('memory.swap.current')

    def beside(self) -> int:
        stat = self.stat()
        kernel = stat.get('kernel')
        if kernel is None:
            kernel = sum(stat[name] for name in self.KERNEL)
        return stat['anon'] + stat['file_mapped'] + kernel


def group() -> Group:
    """Of the version that this machine has its memory controller in"""
    first: Group = GroupV1()
    return first if first.root.is_dir() else GroupV2()


def why_not(rates: Optional[Rates]) -> str:
    """Why there can be no such host here, empty when there can"""
    tools = ['mkswap', 'swapon', 'swapoff']
    if rates:
        tools.append('losetup')
    if os.geteuid():
        return 'a cgroup and a swap file need root'
    missing = [str(path) for path in group().needed(bool(rates))
               if not path.exists()]
    missing += [tool for tool in tools if not shutil.which(tool)]
    return f'there is no {missing[0]}' if missing else ''


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
def _slow_disk(made: Group, path: Path, rates: Rates) -> Iterator[Path]:
    device = _run('losetup', '--find', '--show', '--direct-io=on', str(path))
    try:
        number = os.stat(device).st_rdev
        made.throttle(number, rates)
        try:
            yield Path(device)
        finally:
            made.throttle(number, None)
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
def _existing(made: Group, swap: int) -> Iterator[None]:
    try:
        made.make(swap)
        yield
    finally:
        made.remove()


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
        self._group = group()
        self.host = Host()

    def __enter__(self) -> 'SwapHost':
        # Whoever is told to end cleans up, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self._make()
        except OSError as exc:
            raise Unavailable(f'no host that swaps here: {exc}') from exc
        self.host = Host(('sh', '-c', f'{self._group.enter()} && exec "$@"',
                          'sh'))
        return self

    def _make(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_existing(self._group, self._swap))
            disk = stack.enter_context(_swap_file(self._swap))
            if self._rates:
                disk = stack.enter_context(_slow_disk(self._group, disk,
                                                      self._rates))
            stack.enter_context(_swapping(disk))
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def limit(self, main_memory: int) -> None:
        """
        From now on there is room for @main_memory bytes beside what the
        processes there have already, which have no guest memory yet
        """
        self._group.limit(self._group.used() + main_memory + SLACK)

    def fit(self, main_memory: int, resident: int) -> None:
        """
        The same once there is guest memory, of which @resident bytes are
        mapped: what else is mapped, and the kernel's, is not part of it
        """
        self._group.limit(self._group.beside() - resident + main_memory)

    def swapped(self) -> int:
        """Bytes that are swapped out now"""
        return self._group.swapped()
