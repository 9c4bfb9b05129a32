# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hosts on one machine: each its own namespaces, all on one network

A host has process, mount, network and UTS namespaces and nothing that can be
left behind: its processes die with its first one, which ends when its standard
input is closed, be it by the death of the test; mounts and links go with the
namespaces, which have no names.  The files that a host keeps for itself lie in
a directory that the room removes.

Hosts are called host1, host2, ... and know each other by these names.
"""

import os
from pathlib import Path
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Dict, List, Optional, Tuple, Type

from . import paths
from .tap import Skip, note


NAMESPACES = ('--mount', '--net', '--pid', '--uts', '--fork', '--mount-proc')
# Reaps whatever its children leave to it, until its input ends
INIT = 'echo; while read -r _; do :; done'
NETWORK = '10.213.7'
# Where a host has nothing of the machine's; it has a copy of /etc, and all
# else as it is
EMPTY = ('/run', '/sys/fs/cgroup', '/var/lib', '/var/log', '/var/cache')
# Much longer than anything takes that does not hang
PATIENCE = 180.0


class HostError(Exception):
    """A command failed on a host; the text has what it said"""


class _Space:
    """Namespaces, held by their first process"""

    def __init__(self) -> None:
        # pylint: disable=consider-using-with
        self._process = subprocess.Popen(
            ['setsid', 'setpriv', '--pdeathsig', 'KILL', 'unshare',
             *NAMESPACES, '--kill-child=KILL', 'bash', '-c', INIT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        assert self._process.stdout and self._process.stderr
        # It speaks when it is where it belongs.
        if not self._process.stdout.readline():
            said = self._process.stderr.read().decode('utf-8', 'replace')
            self._process.wait()
            raise Skip(f'no namespaces here: {said.strip()}')
        children = Path(f'/proc/{self._process.pid}/task/'
                        f'{self._process.pid}/children')
        self.pid = int(children.read_text('ascii').split()[0])

    def command(self, *command: str) -> List[str]:
        """To run in here"""
        return ['nsenter', '-t', str(self.pid), '-m', '-n', '-p', '-u',
                *command]

    def run(self, *command: str) -> None:
        """Run it in here; it must succeed"""
        done = subprocess.run(self.command(*command), text=True, check=False,
                              stdout=subprocess.PIPE, timeout=PATIENCE,
                              stderr=subprocess.STDOUT)
        if done.returncode:
            raise HostError(f'{" ".join(command)}: {done.stdout.strip()}')

    def close(self) -> None:
        """End all its processes"""
        for pipe in (self._process.stdin, self._process.stdout,
                     self._process.stderr):
            if pipe:
                pipe.close()
        self._process.wait()


class Host:
    """One host: run things on it, put files there, look at them"""

    def __init__(self, name: str, address: str, where: Path):
        self.name = name
        self.address = address
        self._where = where
        self._space = _Space()
        self._daemons: List[Tuple[str, subprocess.Popen[bytes]]] = []
        self.environment: Dict[str, str] = {}
        etc = where / 'etc'
        shutil.copytree('/etc', etc, symlinks=True)
        try:
            self._space.run('hostname', name)
            self.cover('/etc', etc)
            for path in EMPTY:
                if os.path.isdir(path):
                    self.cover(path)
        except HostError as exc:
            self._space.close()
            raise Skip(f'no mounts in namespaces here: {exc}') from exc

    @property
    def pid(self) -> int:
        """The first process of its namespaces, as seen from outside"""
        return self._space.pid

    def seen(self, path: str) -> Path:
        """The path by which its file @path is seen from outside"""
        return Path(f'/proc/{self.pid}/root') / path.lstrip('/')

    def cover(self, path: str, other: Optional[Path] = None) -> None:
        """Have @other, or an empty directory, where the machine has @path"""
        if other:
            self._space.run('mount', '--bind', str(other), path)
        else:
            self._space.run('mount', '-t', 'tmpfs', self.name, path)

    def write(self, path: str, content: str) -> None:
        """Write a file where it has its own"""
        self._space.run('mkdir', '-p', os.path.dirname(path))
        self.seen(path).write_text(content, 'utf-8')

    def _command(self, *command: str) -> List[str]:
        variables = [f'{key}={value}'
                     for key, value in self.environment.items()]
        return self._space.command('env', *variables, *command)

    def run(self, *command: str, check: bool = True,
            timeout: float = PATIENCE) -> str:
        """What it prints, errors included; raises HostError if it fails"""
        done = subprocess.run(self._command(*command), text=True, check=False,
                              timeout=timeout, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if check and done.returncode:
            raise HostError(f'{self.name}: {" ".join(command)}: '
                            f'exit status {done.returncode}: '
                            f'{done.stdout.strip()}')
        return done.stdout

    def begin(self, *command: str) -> 'subprocess.Popen[str]':
        """Start it; the caller waits for it"""
        return subprocess.Popen(  # pylint: disable=consider-using-with
            self._command(*command), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def daemon(self, name: str, *command: str) -> 'subprocess.Popen[bytes]':
        """Start it for as long as the host lives; its log is kept"""
        with open(self._where / f'{name}.log', 'ab') as log:
            # pylint: disable=consider-using-with
            process = subprocess.Popen(self._command(*command),
                                       stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT)
        self._daemons.append((name, process))
        return process

    def log(self, name: str) -> str:
        """What the daemon of that name said so far"""
        return (self._where / f'{name}.log').read_text('utf-8', 'replace')

    def close(self, explain: bool = False) -> None:
        """End all its processes"""
        if explain:
            for name, _ in self._daemons:
                last = self.log(name).strip().splitlines()[-12:]
                note(f'{self.name}, {name} said:\n' + '\n'.join(last))
        self._space.close()
        for _, process in self._daemons:
            process.wait()


class Hosts:
    """
    So many hosts on one network; a context manager that ends them

    Their network is a bridge in a namespace of its own.
    """

    def __init__(self, count: int):
        for own in (paths.REPO, paths.BUILD):
            if any(Path(path) in own.parents for path in EMPTY):
                raise Skip(f'{own} is where hosts have their own files')
        self._where = Path(tempfile.mkdtemp(prefix='hosts.',
                                            dir=paths.scratch()))
        self.hosts: List[Host] = []
        self._switch: Optional[_Space] = None
        try:
            self._switch = _Space()
            self._switch.run('ip', 'link', 'add', 'br0', 'type', 'bridge')
            self._switch.run('ip', 'link', 'set', 'br0', 'up')
            for number in range(1, count + 1):
                self._add(f'host{number}', f'{NETWORK}.{number}')
            names = ''.join(f'{host.address} {host.name}\n'
                            for host in self.hosts)
            for host in self.hosts:
                host.write('/etc/hosts', f'127.0.0.1 localhost\n{names}')
        except HostError as exc:
            self.close()
            raise Skip(f'no network in namespaces here: {exc}') from exc
        except BaseException:
            self.close()
            raise

    def _add(self, name: str, address: str) -> None:
        assert self._switch
        where = self._where / name
        where.mkdir()
        host = Host(name, address, where)
        self.hosts.append(host)
        self._switch.run('ip', 'link', 'add', name, 'type', 'veth', 'peer',
                         'name', 'eth0')
        # Not by the number of a process: ours are not those of the switch.
        subprocess.run(['nsenter', '-t', str(self._switch.pid), '-n', 'ip',
                        'link', 'set', 'eth0', 'netns', str(host.pid)],
                       check=True)
        self._switch.run('ip', 'link', 'set', name, 'master', 'br0', 'up')
        for words in ('link set lo up', 'link set eth0 up',
                      f'address add {address}/24 dev eth0'):
            host.run('ip', *words.split())

    def __enter__(self) -> 'Hosts':
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close(explain=kind is not None
                   and not issubclass(kind, Skip))

    def close(self, explain: bool = False) -> None:
        """End all hosts and remove what they kept"""
        for host in self.hosts:
            host.close(explain)
        self.hosts.clear()
        if self._switch:
            self._switch.close()
        shutil.rmtree(self._where, ignore_errors=True)
