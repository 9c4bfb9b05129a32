# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hosts on a network: namespaces that are joined by a switch, over slow links

Use it as a context manager: whatever happens, all namespaces are gone
afterwards, and with them what they held.
"""

from dataclasses import dataclass
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Dict, List, Optional, Tuple, Type

from .tap import Skip
from .vm import Host


MIB = 1 << 20
PORT = 4444


@dataclass(frozen=True)
class Rate:
    """MiB/s that a host can send, and receive; None: as fast as it goes"""
    out: Optional[float] = None
    into: Optional[float] = None


def _ip(*words: str) -> None:
    subprocess.run(('ip', *words), check=True, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE)


class Links:
    """One namespace for each of @hosts, and one for the switch"""

    _count = 0

    def __init__(self, hosts: Dict[str, Rate]):
        Links._count += 1
        self._prefix = f'mig{os.getpid()}-{Links._count}-'
        self._hosts = hosts
        self._made: List[str] = []

    def _namespace(self, name: str) -> str:
        return self._prefix + name

    def _make(self, name: str) -> str:
        space = self._namespace(name)
        _ip('netns', 'add', space)
        self._made.append(space)
        _ip('-n', space, 'link', 'set', 'lo', 'up')
        return space

    def __enter__(self) -> 'Links':
        if os.geteuid() != 0:
            raise Skip('network namespaces need root')
        # Whoever is told to end because it took too long cleans up, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self._build()
        except (subprocess.CalledProcessError, FileNotFoundError) as exc:
            self._remove()
            said = getattr(exc, 'stderr', b'') or b''
            raise Skip(f'no network namespaces here: {exc} '
                       f'{said.decode().strip()}') from exc
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self._remove()

    def _remove(self) -> None:
        while self._made:
            subprocess.run(('ip', 'netns', 'delete', self._made.pop()),
                           check=False, stderr=subprocess.DEVNULL)

    def _build(self) -> None:
        switch = self._make('switch')
        _ip('-n', switch, 'link', 'add', 'br0', 'type', 'bridge')
        _ip('-n', switch, 'link', 'set', 'br0', 'up')
        for name, rate in self._hosts.items():
            space = self._make(name)
            port = f'to-{name}'
            _ip('-n', space, 'link', 'add', 'eth0', 'type', 'veth', 'peer',
                'name', port, 'netns', switch)
            _ip('-n', switch, 'link', 'set', port, 'master', 'br0', 'up')
            _ip('-n', space, 'address', 'add', f'{self.address(name)}/24',
                'dev', 'eth0')
            _ip('-n', space, 'link', 'set', 'eth0', 'up')
            self.limit(name, rate)

    @staticmethod
    def _tbf(space: str, device: str, rate: Optional[float]) -> None:
        subprocess.run(('tc', '-n', space, 'qdisc', 'del', 'dev', device,
                        'root'), check=False, stderr=subprocess.DEVNULL)
        if rate is None:
            return
        # A burst that holds what may be sent between two ticks of the clock,
        # and one segment as TCP hands it down
        burst = max(int(rate * MIB / 100), 128 << 10)
        subprocess.run(('tc', '-n', space, 'qdisc', 'add', 'dev', device,
                        'root', 'tbf', 'rate', f'{int(rate * MIB * 8)}bit',
                        'burst', str(burst), 'latency', '50ms'), check=True,
                       stderr=subprocess.PIPE)

    def limit(self, name: str, rate: Rate) -> None:
        """Change what a host can send and receive"""
        self._tbf(self._namespace(name), 'eth0', rate.out)
        self._tbf(self._namespace('switch'), f'to-{name}', rate.into)

    def cut(self, name: str) -> None:
        """Pull the plug of a host, without a word to anybody"""
        _ip('-n', self._namespace('switch'), 'link', 'set', f'to-{name}',
            'down')

    def address(self, name: str) -> str:
        """Of a host"""
        return f'10.77.0.{list(self._hosts).index(name) + 1}'

    def uri(self, name: str) -> str:
        """Where a QEMU of that host is to listen"""
        return f'tcp:{self.address(name)}:{PORT}'

    def prefix(self, name: str) -> Tuple[str, ...]:
        """A command that replaces itself by another one on that host"""
        return ('ip', 'netns', 'exec', self._namespace(name))

    def host(self, name: str) -> Host:
        """For a QEMU to run there"""
        return Host(self.prefix(name), self.address(name))

    def sent(self, name: str) -> int:
        """Bytes that a host has sent so far, as its network card counts"""
        done = subprocess.run(
            (*self.prefix(name), 'cat',
             '/sys/class/net/eth0/statistics/tx_bytes'), check=True,
            stdout=subprocess.PIPE)
        return int(done.stdout)
