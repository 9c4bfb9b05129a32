# SPDX-License-Identifier: GPL-2.0-or-later
"""
Several hosts on one switch: network namespaces, each with a link as slow as
asked in both directions

Use it as a context manager: the namespaces, and all that is in them, end with
it.  Needs root.
"""

import os
import shutil
import subprocess
from types import TracebackType
from typing import Dict, Mapping, Optional, Sequence, Type

from .tap import Skip
from .vm import Host


PREFIX = '192.0.2'          # of documentation: nothing else has it
# What a token bucket lets through at once, and how long it lets wait
BURST, LATENCY = '256k', '100ms'


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise OSError(f'{" ".join(command)}: {done.stdout.strip()}')


class Network:
    """
    @names: of the hosts, in order
    @mbit: of each link; 0 is unlimited
    @other: of the links of those hosts that have another
    """

    _count = 0

    def __init__(self, names: Sequence[str], mbit: int = 0,
                 other: Optional[Mapping[str, int]] = None):
        if os.getuid() or not all(map(shutil.which, ('ip', 'tc', 'nsenter'))):
            raise Skip('network namespaces need root, ip, tc and nsenter')
        Network._count += 1
        self._unique = f'mt{os.getpid()}-{Network._count}'
        self._switch = f'{self._unique}-switch'
        self._names = list(names)
        self._mbit = mbit
        self._other = dict(other or {})
        self.hosts: Dict[str, Host] = {}

    def _space(self, name: str) -> str:
        return f'{self._unique}-{name}'

    def _shape(self, space: str, device: str, mbit: int) -> None:
        if mbit:
            _run('tc', '-n', space, 'qdisc', 'add', 'dev', device, 'root',
                 'tbf', 'rate', f'{mbit}mbit', 'burst', BURST, 'latency',
                 LATENCY)

    def _plug(self, number: int, name: str) -> None:
        space, port = self._space(name), f'port{number}'
        _run('ip', 'netns', 'add', space)
        _run('ip', 'link', 'add', 'name', 'wire', 'netns', space, 'type',
             'veth', 'peer', 'name', port, 'netns', self._switch)
        _run('ip', '-n', self._switch, 'link', 'set', port, 'master', 'switch',
             'up')
        _run('ip', '-n', space, 'addr', 'add', f'{PREFIX}.{number}/24', 'dev',
             'wire')
        for device in ('lo', 'wire'):
            _run('ip', '-n', space, 'link', 'set', device, 'up')
        mbit = self._other.get(name, self._mbit)
        self._shape(space, 'wire', mbit)
        self._shape(self._switch, port, mbit)
        self.hosts[name] = Host(('nsenter', f'--net=/run/netns/{space}'),
                                f'{PREFIX}.{number}')

    def __enter__(self) -> 'Network':
        try:
            _run('ip', 'netns', 'add', self._switch)
            _run('ip', '-n', self._switch, 'link', 'add', 'switch', 'type',
                 'bridge')
            _run('ip', '-n', self._switch, 'link', 'set', 'switch', 'up')
            for number, name in enumerate(self._names, 1):
                self._plug(number, name)
        except OSError as exc:
            self._remove()
            raise Skip(f'no network namespaces here: {exc}') from exc
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self._remove()

    def _remove(self) -> None:
        for space in [self._switch, *map(self._space, self._names)]:
            subprocess.run(['ip', 'netns', 'delete', space], check=False,
                           stderr=subprocess.DEVNULL)

    def cut(self, name: str) -> None:
        """Take the link of a host down"""
        port = f'port{self._names.index(name) + 1}'
        _run('ip', '-n', self._switch, 'link', 'set', port, 'down')

    def mend(self, name: str) -> None:
        """And up again"""
        port = f'port{self._names.index(name) + 1}'
        _run('ip', '-n', self._switch, 'link', 'set', port, 'up')


__all__ = ['Network', 'PREFIX']
