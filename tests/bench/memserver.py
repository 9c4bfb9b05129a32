# SPDX-License-Identifier: GPL-2.0-or-later
"""
qemu-memserver against memcached and an iperf3 stream

Pages of 4 KiB, put and got in random order and in batches, over 1, 2 and 4
connections to one server thread, over loopback TCP; a single page's round
trip; and the memory that a stored page takes.  memcached, also with one thread,
gets the same values in two ways: by pipelined set and multiget, in the same
batches, which is the best that it can do; and one in each round trip, as its
common clients do.  Nothing else should run.
"""

import argparse
import contextlib
from functools import partial
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import time
from typing import Any, Dict, Iterator, List

from lib.binary import Binary

from suite import (Bars, Column, Figures, Results, Row, Suite, Unavailable,
                   Verdict, options_of)


HELP = 'pages a second, CPU, round trip and memory, against memcached'

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get('BUILD_DIR', HERE.parents[1] / 'build'))
PAGE = 4096
CONNECTIONS = (1, 2, 4)
# What the memory server should reach
TIMES_MEMCACHED = 5.0
OF_IPERF = 0.5
OVERHEAD = 0.03


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--pages', type=int, default=65536, metavar='N',
                        help='in a measurement (65536)')
    parser.add_argument('--batch', type=int, default=128, metavar='N',
                        help='pages in a message, keys in a multiget (128)')


def tool() -> str:
    """The program to measure"""
    for path in (Path(os.environ.get('QEMU_MEMSERVER', '/nonexistent')),
                 BUILD / 'bin/qemu-memserver',
                 BUILD / 'qemu-src/build/migration/memserver/qemu-memserver'):
        if os.access(path, os.X_OK):
            return str(path)
    raise RuntimeError('qemu-memserver is not there: run scripts/build')


def need(program: str) -> str:
    """A program of Debian's"""
    path = shutil.which(program)
    if not path:
        raise Unavailable(f'{program} is not there: apt install {program}')
    return path


def free_port() -> int:
    """One that nobody uses at this moment"""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def output(*command: str) -> str:
    """What it prints"""
    return subprocess.run(command, check=True, text=True, timeout=300,
                          stdout=subprocess.PIPE).stdout


def listening(port: int) -> bool:
    """Does somebody?  Not asked by connecting: iperf3 serves but one client"""
    lines = Path('/proc/net/tcp').read_text('ascii').splitlines()[1:]
    return any(local.endswith(f':{port:04X}') and state == '0A'
               for _, local, _, state, *_ in map(str.split, lines))


@contextlib.contextmanager
def serving(command: List[str], port: int) -> Iterator[int]:
    """Its process id, while it runs"""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                if listening(port):
                    break
                time.sleep(0.01)
            if process.poll() is not None:
                raise RuntimeError(f'{command[0]} does not start')
            yield process.pid
        finally:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """That a process has used"""
    fields = Path(f'/proc/{pid}/stat').read_text('ascii').rsplit(')')[1]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def resident(pid: int) -> int:
    """Bytes of a process in memory"""
    pages = Path(f'/proc/{pid}/statm').read_text('ascii').split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def ours(options: argparse.Namespace, connections: int) -> Figures:
    """One run of qemu-memserver"""
    port = free_port()
    address = f'tcp:127.0.0.1:{port}'
    with serving([tool(), '--listen', address, '--max-memory', '4G',
                  '--threads', '1'], port) as pid:
        began = cpu_seconds(pid)
        repeat = 3
        result: Dict[str, Any] = json.loads(output(
            tool(), '--selftest', address, '--json', '--no-verify',
            '--pages', str(options.pages), '--batch', str(options.batch),
            '--connections', str(connections), '--latency', '0',
            '--repeat', str(repeat)))
        cpu = cpu_seconds(pid) - began
    return {'put': result['put-pages-per-second'],
            'get': result['get-pages-per-second'],
            'bytes-per-cpu': 2 * repeat * options.pages * PAGE / cpu}


def ours_one() -> Figures:
    """A single page's round trip"""
    port = free_port()
    address = f'tcp:127.0.0.1:{port}'
    with serving([tool(), '--listen', address, '--max-memory', '1G',
                  '--threads', '1'], port):
        result = json.loads(output(
            tool(), '--selftest', address, '--json', '--no-verify',
            '--pages', '16384', '--latency', '20000'))
    return {'p50': result['get-one-p50-us'], 'p99': result['get-one-p99-us']}


def ours_memory() -> Figures:
    """What 1 GiB of pages takes"""
    port = free_port()
    address = f'tcp:127.0.0.1:{port}'
    pages = 262144
    with serving([tool(), '--listen', address, '--max-memory', '2G'],
                 port) as pid:
        empty = resident(pid)
        output(tool(), '--selftest', address, '--no-verify', '--keep',
               '--pages', str(pages), '--latency', '0')
        return {'memory': (resident(pid) - empty) / pages}


def load_program() -> str:
    """memcached's client, compiled if need be"""
    source = HERE / 'memcached-load.c'
    program = BUILD / 'bench' / 'memcached-load'
    if not program.exists() or \
            program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(['cc', '-O2', '-Wall', '-pthread', '-o', str(program),
                        str(source)], check=True)
    return str(program)


@contextlib.contextmanager
def memcached() -> Iterator[List[Any]]:
    """Running: its process id and the client's command line"""
    port = free_port()
    command = [need('memcached'), '-l', '127.0.0.1', '-p', str(port), '-U',
               '0', '-t', '1', '-m', '4096', '-u', 'nobody']
    with serving(command, port) as pid:
        yield [pid, load_program(), str(port)]


def theirs(options: argparse.Namespace, connections: int, batch: int
           ) -> Figures:
    """One run of memcached, with so many values in a round trip"""
    with memcached() as (pid, *load):
        began = cpu_seconds(pid)
        rest = [str(connections), str(options.pages), str(batch)]
        output(*load, *rest, 'set')
        figures = {'put': float(output(*load, *rest, 'set')),
                   'get': float(output(*load, *rest, 'get'))}
        cpu = cpu_seconds(pid) - began
    return {**figures, 'bytes-per-cpu': 3 * options.pages * PAGE / cpu}


def theirs_one() -> Figures:
    """A single value's round trip"""
    with memcached() as (_, *load):
        output(*load, '1', '16384', '64', 'set')
        p50, p99 = output(*load, '1', '16384', '1', 'latency').split()
    return {'p50': float(p50), 'p99': float(p99)}


def theirs_memory() -> Figures:
    """What 1 GiB of values takes"""
    pages = 262144
    with memcached() as (pid, *load):
        empty = resident(pid)
        output(*load, '1', str(pages), '64', 'set')
        return {'memory': (resident(pid) - empty) / pages}


def stream(connections: int) -> Figures:
    """An iperf3 stream, in pages"""
    port = free_port()
    command = [need('iperf3'), '-s', '-B', '127.0.0.1', '-p', str(port)]
    with serving(command, port) as pid:
        began = cpu_seconds(pid)
        result = json.loads(output(
            need('iperf3'), '-c', '127.0.0.1', '-p', str(port), '-t', '2',
            '-P', str(connections), '-J'))
        cpu = cpu_seconds(pid) - began
    if 'error' in result:
        raise RuntimeError(f'iperf3: {result["error"]}')
    received = result['end']['sum_received']
    rate = received['bits_per_second'] / 8 / PAGE
    return {'put': rate, 'get': rate, 'bytes-per-cpu': received['bytes'] / cpu}


def verdicts(results: Results) -> List[Verdict]:
    """What was promised"""
    found = []
    for n in CONNECTIONS:
        for key in ('put', 'get'):
            for other, times in ((f'memcached {n}, pipelined',
                                  TIMES_MEMCACHED),
                                 (f'memcached {n}, one at a time',
                                  TIMES_MEMCACHED),
                                 (f'iperf3 {n}', OF_IPERF)):
                found.append(results.at_least(
                    f'{key}, {n} connections, against {other}',
                    f'memserver {n}', other, key, times))
    for key in ('p50', 'p99'):
        found.append(results.at_most(f'{key} of one page, against memcached',
                                     'memserver one page',
                                     'memcached one value', key, 1))
    row = 'memserver memory'
    memory = results.median(row, 'memory')
    found.append(Verdict(
        f'memory for a page, at 1 GiB: less than {OVERHEAD:.0%} more',
        None if memory is None else memory < PAGE * (1 + OVERHEAD),
        'not measured' if memory is None else f'{memory / PAGE - 1:.2%}',
        (row,)))
    return found


def make(options: argparse.Namespace) -> Suite:
    """The suite"""
    rows = []
    for n in CONNECTIONS:
        rows += [Row(f'memserver {n}', partial(ours, options, n)),
                 Row(f'memcached {n}, pipelined',
                     partial(theirs, options, n, options.batch)),
                 Row(f'memcached {n}, one at a time',
                     partial(theirs, options, n, 1)),
                 Row(f'iperf3 {n}', partial(stream, n))]
    rows += [Row('memserver one page', ours_one),
             Row('memcached one value', theirs_one),
             Row('memserver memory', ours_memory),
             Row('memcached memory', theirs_memory)]
    columns = [
        Column('put', 'put/s', '{:.0f}'.format),
        Column('get', 'get/s', '{:.0f}'.format),
        Column('bytes-per-cpu', 'MB/server CPU s',
               lambda value: f'{value / 1e6:.0f}'),
        Column('p50', 'p50 us', '{:.1f}'.format),
        Column('p99', 'p99 us', '{:.1f}'.format),
        Column('memory', 'bytes/page', '{:.0f}'.format)]
    return Suite('memserver', rows, columns, verdicts, notes=[
        'Loopback TCP, one server thread, random order, '
        f'{options.batch} pages in a batch, {options.pages} pages.'],
                 plots=[Bars('put', 'Pages put', '1000/s', 1e-3),
                        Bars('get', 'Pages got', '1000/s', 1e-3),
                        Bars('p50', 'Round trip, median', 'us'),
                        Bars('memory', 'Memory of a page', 'bytes')],
                 about={'options': options_of(options)},
                 binaries=[Binary('memserver', Path(tool()))])
