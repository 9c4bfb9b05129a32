# SPDX-License-Identifier: GPL-2.0-or-later
"""
Two hosts in the lab: network namespaces and a link that is as slow as asked

Delay and rate are netem's, at both ends of the link.
"""

import json
import subprocess
from types import TracebackType
from typing import Any, List, Optional, Type

from lib.vm import Host


PREFIX = '192.0.2'          # of documentation: nothing else has it


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE,
                          text=True).stdout


class Link:
    """
    Use it as a context manager: the namespaces end with it

    @delay_us: one way; @mbit: of the link, 0 is unlimited
    """

    def __init__(self, delay_us: int, mbit: float = 0):
        self.hosts: List[Host] = []
        self._shape = ['delay', f'{delay_us}us', 'limit', '100000']
        if mbit:
            self._shape += ['rate', f'{mbit * 1000:.0f}kbit']
        self._names = ('lab-1', 'lab-2')

    def __enter__(self) -> 'Link':
        for name in self._names:
            _run('ip', 'netns', 'add', name)
        _run('ip', 'link', 'add', 'name', 'wire', 'netns', self._names[0],
             'type', 'veth', 'peer', 'name', 'wire', 'netns', self._names[1])
        for number, name in enumerate(self._names, 1):
            inside = ('ip', '-n', name)
            _run(*inside, 'addr', 'add', f'{PREFIX}.{number}/24',
                 'dev', 'wire')
            _run(*inside, 'link', 'set', 'lo', 'up')
            _run(*inside, 'link', 'set', 'wire', 'up')
            _run('tc', '-n', name, 'qdisc', 'add', 'dev', 'wire', 'root',
                 'netem', *self._shape)
            self.hosts.append(Host(('nsenter', f'--net=/run/netns/{name}'),
                                   f'{PREFIX}.{number}'))
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        for name in self._names:
            subprocess.run(['ip', 'netns', 'delete', name], check=False)

    def bytes_sent(self, number: int) -> int:
        """Bytes that host @number, 0 or 1, has put on the link"""
        said: List[Any] = json.loads(_run(
            'tc', '-n', self._names[number], '-s', '-j', 'qdisc', 'show',
            'dev', 'wire'))
        return int(said[0]['bytes'])
