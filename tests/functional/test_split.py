#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Split memory: a guest goes to a host with too little memory, and loses nothing

The guest writes and verifies its pages and a virtio disk all along.  It goes
to a main host that may have a part of its memory and to memory hosts that have
the rest, each in a network namespace behind a slow link, is verified there
many times over, and gathered.
"""

import contextlib
from dataclasses import dataclass, replace
import os
from pathlib import Path
import re
import signal
import sys
import time
from typing import Iterator, List, Tuple, cast

from lib import paths, readme, remote, scenario
from lib.binary import Binary
from lib.guest import Load
from lib.machines import Machines
from lib.memhost import MemHost
from lib.migration import MIB, Migration, Settings
from lib.network import Network
from lib.strategy import Strategy
from lib.tap import Tap, check, check_equal, note
from lib.vm import HERE, Host, QMPDict, VM

tap = Tap()

DISK = 32
# Guest RAM that may be resident beyond main-memory, as documented
OVERHEAD = 1.02
PORT = 7001


@dataclass(frozen=True)
class Case:
    """A guest, and how much of its memory is to be local"""
    memory: int
    percent: int
    hosts: int
    mbit: int = 0               # of each link; 0: unix sockets and no links
    rate: int = 8               # MiB that the guest dirties in a second
    placement: str = 'hot'
    move: bool = True           # with UFFDIO_MOVE, as since Linux 6.8
    cache: str = 'writeback'
    room: int = 0               # MiB at each memory host; 0: for all of it

    @property
    def main_memory(self) -> int:
        """In bytes"""
        return self.memory * MIB * self.percent // 100

    def load(self) -> Load:
        """Fills most of the memory; a part of it is written all the time"""
        return Load(fill=self.memory - 112, ws=self.memory // 8, read=1,
                    rate=self.rate, random=1, disk=DISK)


class Split:
    """A guest that has been migrated to where its memory is split"""

    def __init__(self, room: Machines, source: VM, destination: VM,
                 migration: Migration, memhosts: List[MemHost]):
        self.room = room
        self.guest = room.guest
        self.source = source
        self.destination = destination
        self.migration = migration
        self.memhosts = memhosts

    def verify(self, times: int) -> None:
        """All pages, so often; and the disk was used meanwhile"""
        for _ in range(times):
            verdict = self.guest.verify()
            check_equal(verdict.total, 0, 'wrong pages, as '
                        f'{self.guest.wrong_lines}')
            self.guest.wait_beats(2)

    def check_disk(self) -> None:
        """The guest goes on to use its disk"""
        done = self.guest.disk_ops()
        while self.guest.disk_ops() < done + 20:
            self.guest.wait_beats(2)


def make_disk() -> Path:
    """An image that source and destination share"""
    path = paths.scratch() / 'split-disk.raw'
    with open(path, 'wb') as image:
        image.truncate(DISK * MIB)
    return path


@contextlib.contextmanager
def places(case: Case) -> Iterator[List[Host]]:
    """The hosts: of the source, of the destination, of the memory"""
    if not case.mbit:
        yield [HERE] * (2 + case.hosts)
        return
    names = ['source', 'main', *(f'mem{n}' for n in range(case.hosts))]
    with Network(names, case.mbit) as network:
        yield [network.hosts[name] for name in names]


@contextlib.contextmanager
def memory_hosts(case: Case, where: List[Host]) -> Iterator[List[MemHost]]:
    """One on each of the hosts"""
    binary = scenario.our_binary()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(MemHost(
            binary, case.room or case.memory,
            f'tcp:{host.address}:{PORT}' if case.mbit else None,
            host.wrapper)) for host in where]


def the_binary(case: Case, fault: str = '') -> Binary:
    """Ours, if need be as it is on an older kernel"""
    fault = fault or ('' if case.move else 'pager-move')
    return scenario.our_binary() if not fault else replace(
        scenario.our_binary(), environment={'QEMU_MIGRATION_FAULT': fault})


@contextlib.contextmanager
def migrating(case: Case) -> Iterator[Split]:
    """The guest, on its way to its destination"""
    disk = make_disk()
    extra = ('-drive',
             f'if=virtio,format=raw,cache={case.cache},file={disk}')
    with places(case) as where, memory_hosts(case, where[2:]) as memhosts, \
            Machines(the_binary(case), case.load(), case.memory,
                     extra=extra) as room:
        source, destination = room.start(host=where[0]), room.expect(
            host=where[1])
        strategy = Strategy(split={
            'main-memory': case.main_memory, 'placement': case.placement,
            'memory-hosts': [{'uri': one.uri} for one in memhosts]})
        migration = Migration(
            source, destination, room.guest,
            Settings('split', strategy, transport='tcp', downtime_limit=500))
        migration.start()
        yield Split(room, source, destination, migration, memhosts)
    disk.unlink()


@contextlib.contextmanager
def migrated(case: Case) -> Iterator[Split]:
    """The guest, at its destination"""
    with migrating(case) as split:
        split.migration.wait_end()
        check_equal(split.migration.states[-1], 'completed',
                    f'state; {split.source.migration()}')
        check_equal(split.destination.status(), 'running', 'the destination')
        yield split


def check_report(case: Case, split: Split) -> None:
    """What the source says fits what the memory hosts say"""
    said = remote.info(split.source)
    note(f'main {said["main-pages"]} pages, remote {said["remote-pages"]}, '
         f'in {said["moved-in"]}, out {said["moved-out"]}, '
         f'{split.migration.record(verify=False)}')
    check(said['main-pages'] * remote.PAGE <= case.main_memory,
          f'more than main-memory: {said}')
    check(all(host['stored'] > 0 for host in said['hosts']),
          f'a memory host without pages: {said}')
    for one in split.memhosts:
        check_equal(len(one.sessions()), 1, f'sessions at {one.uri}')


def check_resident(case: Case, split: Split) -> None:
    """Its memory is as small as was asked for"""
    rss = remote.paged_rss(split.destination)
    note(f'{rss / MIB:.1f} MiB resident of {case.memory} MiB, main-memory '
         f'{case.main_memory / MIB:.1f} MiB')
    check(rss <= case.main_memory * OVERHEAD,
          f'{rss} bytes of guest RAM are resident, main-memory is '
          f'{case.main_memory}')


def check_resize(case: Case, split: Split) -> None:
    """With less and more memory, which is no matter of the next migration"""
    machine = split.destination
    for percent in (case.percent - 10, case.percent + 10):
        size = case.memory * MIB * percent // 100
        machine.cmd('migrate-set-parameters',
                    strategy={'split': {'main-memory': size}})
        split.verify(1)
        remote.wait_resident(machine, size)
        check_resident(replace(case, percent=percent), split)
        check_equal(remote.query(machine)['main-memory'], size, 'the limit')
    after = cast(QMPDict, machine.cmd('query-migrate-parameters'))['strategy']
    check('split' not in after, f'the next migration: {after}')


def check_gathered(split: Split) -> None:
    """Everything came home, and nothing of remote memory is left"""
    remote.gather(split.destination)
    for one in split.memhosts:
        check_equal(one.sessions(), [], f'sessions at {one.uri}')
        one.kill()
    check_equal(remote.leftovers(split.destination), [], 'what is left')
    split.verify(2)
    split.check_disk()


def everything(case: Case, times: int) -> None:
    """From the migration to the gather"""
    with migrated(case) as split:
        check_report(case, split)
        for _ in range(times):
            split.verify(1)
            check_resident(case, split)
        split.check_disk()
        check_resize(case, split)
        check_gathered(split)


def check_not_full(split: Split) -> None:
    """Memory hosts take what has to leave"""
    said = remote.query(split.destination)
    note(f'resident {said["resident"]} staged {said["staged"]} remote '
         f'{said["remote"]}, '
         f'{[(h["stored"], h["capacity"]) for h in said["hosts"]]}')
    check(not said['full'], f'memory hosts are full: {said}')


def just_fits() -> None:
    """Memory hosts are about as big as they have to be, and main-memory is
    then lowered until they have room for what leaves, and hardly more"""
    case = Case(256, 70, 2, room=50)
    with migrated(case) as split:
        machine = split.destination
        split.verify(1)
        check_resident(case, split)
        check_not_full(split)
        said = remote.query(machine)
        # Bookkeeping is of their capacity, too
        room = sum(host['capacity'] - 2 * MIB for host in said['hosts'])
        data = said['resident'] + said['staged'] + said['remote']
        size = said['unmanaged'] + (data - room) * 12 // 11 + 8 * MIB
        note(f'{data / MIB:.1f} MiB of data, {room / MIB:.1f} MiB of room')
        check(16 * MIB < size < case.main_memory, f'{size}: not tight')
        machine.cmd('migrate-set-parameters',
                    strategy={'split': {'main-memory': size}})
        remote.wait_resident(machine, size)
        for _ in range(3):
            split.verify(1)
            rss = remote.paged_rss(machine)
            check(rss <= size * OVERHEAD, f'{rss} are resident, not {size}')
            check_not_full(split)
        split.check_disk()
        check_gathered(split)


def add(title: str, case: Case, times: int, full: bool = False) -> None:
    """A test of everything()"""
    tap.add(title, lambda: everything(case, times), full)


add('two memory hosts, 40 % local', Case(256, 40, 2), 3)
add('by address, 50 % local', Case(256, 50, 1, placement='address'), 2,
    full=True)
add('three memory hosts behind slow links, 30 % local',
    Case(256, 30, 3, mbit=400), 2)
add('1 GiB, three memory hosts behind slow links, 30 % local',
    Case(1024, 30, 3, mbit=1000), 8, full=True)
add('1 GiB, three memory hosts behind slow links, 50 % local',
    Case(1024, 50, 3, mbit=1000), 8, full=True)


@contextlib.contextmanager
def cut_off(lost_already: bool = True,
            fault: str = '') -> Iterator[Tuple[Network, Split]]:
    """A guest whose first memory host cannot be reached, and which needs it"""
    case = Case(256, 30, 2, mbit=1000)
    names = ['source', 'main', 'mem0', 'mem1']
    disk = make_disk()
    extra = ('-drive', f'if=virtio,format=raw,cache=writeback,file={disk}')
    with Network(names, case.mbit) as network, \
            memory_hosts(case, [network.hosts[n] for n in names[2:]]) as mem, \
            Machines(the_binary(case, fault), case.load(), case.memory,
                     extra=extra) as room:
        source = room.start(host=network.hosts['source'])
        destination = room.expect(host=network.hosts['main'])
        migration = Migration(source, destination, room.guest, Settings(
            'split', Strategy(split={
                'main-memory': case.main_memory,
                'memory-hosts': [{'uri': one.uri} for one in mem]}),
            transport='tcp', downtime_limit=500))
        migration.start()
        check_equal(migration.wait_end(), 'completed', 'state')
        split = Split(room, source, destination, migration, mem)
        split.verify(1)
        network.cut('mem0')
        if lost_already:
            remote.wait_event(destination, 'lost')
            check_equal(destination.status(), 'io-error', 'without its memory')
        else:
            remote.wait_stuck(destination)
        yield network, split
    disk.unlink()


def check_idle(machine: VM, seconds: float = 2) -> None:
    """No thread of the process spins: what they all ran is a fraction"""
    before, start = machine.thread_ticks(), time.monotonic()
    time.sleep(seconds)
    by_thread = {f'{name} {tid}': n - before.get(tid, (name, 0))[1]
                 for tid, (name, n) in machine.thread_ticks().items()}
    ran = sum(by_thread.values()) / os.sysconf('SC_CLK_TCK')
    share = ran / (time.monotonic() - start)
    note(f'{share:.1%} of a processor while the memory host is lost')
    check(share < 0.25, f'{machine.label} ran for {ran} s: {by_thread}')


def check_lost(split: Split) -> None:
    """What the monitor says of a VM one of whose hosts is lost"""
    said = remote.query(split.destination)
    states = [host['state'] for host in said['hosts']]
    check_equal(states, ['lost', 'up'], 'the memory hosts')
    check_idle(split.destination)


@tap.test('a memory host cannot be reached for a while')
def lost() -> None:
    """The VM pauses, goes on by itself, and has lost nothing"""
    with cut_off() as (network, split):
        check_lost(split)
        network.mend('mem0')
        remote.wait_event(split.destination, 'recovered')
        split.verify(2)
        check_equal(split.destination.status(), 'running', 'the destination')
        split.check_disk()
        check_gathered(split)


@tap.test('stopped and continued while a memory host is lost')
def lost_stop() -> None:
    """Who has stopped it finds it stopped, who continues it need not wait"""
    with cut_off() as (network, split):
        machine = split.destination
        machine.cmd('stop')
        check_equal(machine.status(), 'io-error', 'stopped')
        check_lost(split)
        machine.cmd('cont')
        # Without its memory it does not get far
        remote.wait_for(machine, 'STOP')
        check_equal(machine.status(), 'io-error', 'continued')
        check_lost(split)
        machine.cmd('stop')
        network.mend('mem0')
        remote.wait_event(machine, 'recovered')
        check_idle(machine)
        check_equal(machine.status(), 'io-error', 'stopped, and recovered')
        machine.cmd('cont')
        split.verify(2)
        check_equal(machine.status(), 'running', 'the destination')
        split.check_disk()
        check_gathered(split)


@tap.test('stopped while a memory host is silent, before it is lost')
def silent_stop() -> None:
    """It stops, also with a disk whose requests wait; the rest comes later"""
    with cut_off(lost_already=False) as (network, split):
        machine = split.destination
        machine.cmd('stop')
        check_equal(machine.status(), 'paused', 'stopped')
        remote.wait_event(machine, 'lost')
        check_lost(split)
        network.mend('mem0')
        remote.wait_event(machine, 'recovered')
        check_equal(machine.status(), 'paused', 'stopped, and recovered')
        machine.cmd('cont')
        split.verify(2)
        check_equal(machine.status(), 'running', 'the destination')
        split.check_disk()
        check_gathered(split)


def check_reset_waits(network: Network, split: Split) -> None:
    """A reset was asked for: it is done when the memory host is back"""
    machine = split.destination
    check_equal(machine.status(), 'io-error', 'not reset yet')
    check_lost(split)
    network.mend('mem0')
    remote.wait_event(machine, 'recovered', never='RESET')
    remote.wait_for(machine, 'RESET')
    split.guest.wait_ready()
    check_equal(machine.status(), 'running', 'the destination')
    check_gathered(split)


@tap.test('reset while a memory host is lost')
def lost_reset() -> None:
    """It waits for the access that is under way, and the monitor does not"""
    with cut_off() as (network, split):
        split.guest.forget_ready()
        split.destination.cmd('system_reset')
        check_reset_waits(network, split)


@tap.test('reset while a memory host is silent, before it is lost')
def silent_reset() -> None:
    """Nothing waits with it: who looks after the VM learns what is wrong"""
    with cut_off(lost_already=False) as (network, split):
        split.guest.forget_ready()
        split.destination.cmd('system_reset')
        remote.wait_event(split.destination, 'lost', never='RESET')
        check_reset_waits(network, split)


@tap.test('quit while a memory host is lost')
def lost_quit() -> None:
    """The process ends as ever"""
    with cut_off() as (_, split):
        check_lost(split)
        pid = split.destination.get_pid()
        split.destination.cmd('quit')
        split.destination.wait(remote.PATIENCE)
        check_equal(split.destination.exitcode(), 0, f'exit code of {pid}')


@tap.test('quit while a memory host is silent, before it is lost')
def silent_quit() -> None:
    """The process ends when the host is lost, of which nobody is told"""
    with cut_off(lost_already=False) as (_, split):
        split.destination.cmd('quit')
        split.destination.wait(remote.PATIENCE)
        check_equal(split.destination.exitcode(), 0, 'exit code')


@tap.test('quit while a memory host is lost, without UFFDIO_POISON')
def lost_quit_old() -> None:
    """The process ends, though it does not wait for its disks"""
    with cut_off(fault='pager-poison') as (_, split):
        split.destination.cmd('quit')
        split.destination.wait(remote.PATIENCE)
        check_equal(split.destination.exitcode(), 1, 'exit code')


@contextlib.contextmanager
def under_way(case: Case, where: List[Host], settings: Settings,
              options: Tuple[str, ...] = ()) -> Iterator[Split]:
    """A guest that is being migrated, with no disk"""
    binary = scenario.our_binary()
    with contextlib.ExitStack() as stack:
        mem = [stack.enter_context(MemHost(
            binary, case.memory + 32,
            f'tcp:{host.address}:{PORT}' if host.wrapper else None,
            host.wrapper, options)) for host in where[2:]]
        room = stack.enter_context(Machines(
            binary, replace(case.load(), disk=0), case.memory))
        source, destination = room.start(host=where[0]), room.expect(
            host=where[1])
        strategy = Strategy(split={
            'main-memory': case.main_memory, 'placement': case.placement,
            'memory-hosts': [{'uri': one.uri} for one in mem]})
        migration = Migration(source, destination, room.guest,
                              replace(settings, strategy=strategy,
                                      transport='tcp'))
        yield Split(room, source, destination, migration, mem)


# How much more than the limit allows may be left for a link when the guest is
# stopped: what it has dirtied since this was decided
DOWNTIME_FACTOR = 2.5


@tap.test('memory hosts behind links of different speed: the downtime')
def downtime() -> None:
    """
    A slow link does not hide behind a fast one: what is left for it when the
    guest stops is what it can carry within the limit
    """
    case = Case(256, 30, 2, rate=8, placement='address')
    limit, mbit = 400, 60

    def sent(split: Split) -> List[int]:
        return [host['bytes-sent']
                for host in remote.info(split.source)['hosts']]

    with Network(['source', 'main', 'mem0', 'mem1'], 1000,
                 {'mem1': mbit}) as network:
        where = list(network.hosts.values())
        with under_way(case, where, Settings(
                'split', None, ['pause-before-switchover'],
                downtime_limit=limit)) as split:
            split.migration.start()
            split.migration.wait_state('pre-switchover')
            before = sent(split)
            split.source.cmd('migrate-continue', state='pre-switchover')
            check_equal(split.migration.wait_end(), 'completed', 'state')
            record = split.migration.record()
            after = sent(split)
            note(f'{record}; bytes to memory hosts until the guest stopped: '
                 f'{before}, in all: {after}')
            check(min(before) > 0, 'a link was not used')
            check_equal(record.wrong_pages, 0, 'wrong pages')
            left, allowed = after[1] - before[1], limit * mbit * 125
            check(left <= DOWNTIME_FACTOR * allowed,
                  f'{left} bytes were left for the slow link, which can carry '
                  f'{allowed} within the limit')


# What the destination's process needs beside guest RAM: its threads' stacks,
# the pager's tables, buffers
PROCESS = 4 * MIB
MANY_ROUNDS = 100


def check_bandwidth(split: Split, limit: int) -> None:
    """So far, what went to all hosts was under @limit MiB/s"""
    said = split.source.migration()
    seconds = said['total-time'] / 1000
    where = said['strategy']['split']
    sent = where['main-pages'] * remote.PAGE + sum(
        host['bytes-sent'] for host in where['hosts'])
    note(f'{sent / MIB:.1f} MiB to all hosts in {seconds:.1f} s')
    # What is in the queues counts before it is sent
    check(sent <= 1.25 * limit * MIB * seconds,
          f'more than {limit} MiB/s to all hosts')


def move_pages(split: Split, limit: int, count: int) -> None:
    """
    Have more than @count pages move away from the destination, in some passes

    A pass takes long while the guest writes: however slow it is, there is then
    something to send again, and the migration does not end.
    """
    for _ in range(MANY_ROUNDS):
        for rate, ops in ((1, 2048), (limit, 0)):
            split.source.cmd('migrate-set-parameters',
                             {'max-bandwidth': rate * MIB})
            split.guest.wait_ops(ops)
        split.migration.wait_pass(split.migration.passes + 1)
        said = remote.info(split.source)
        if said['moved-out'] > count:
            return
    check(False, f'hardly a page moves: {said}')


@tap.test('the destination at its peak, and the bandwidth of all links')
def peak() -> None:
    """
    Pages that move away, or are zero now, leave room at once; and memory hosts
    count in max-bandwidth.
    """
    case = Case(256, 25, 2, rate=48)
    limit = 32
    with under_way(case, [HERE] * 4, Settings(
            'split', bandwidth=limit, downtime_limit=0)) as split:
        before = remote.status_bytes(split.destination, 'VmRSS')
        split.migration.start()
        split.migration.wait_pass(2)
        check_bandwidth(split, limit)
        move_pages(split, limit, 2 * PROCESS // remote.PAGE)
        # So that it is not running that makes the destination bigger
        split.source.cmd('stop')
        split.source.cmd('migrate-set-parameters', {'downtime-limit': 2000})
        split.migration.wait_state('completed')
        while split.destination.migration().get('status') != 'completed':
            split.destination.next_event(0.1)
        grown = remote.status_bytes(split.destination, 'VmHWM') - before
        said = remote.info(split.source)
        note(f'grew by {grown / MIB:.1f} MiB, main-memory is '
             f'{case.main_memory / MIB:.1f} MiB; pages moved in '
             f'{said["moved-in"]}, out {said["moved-out"]}')
        check(grown <= case.main_memory * OVERHEAD + PROCESS,
              f'{grown} bytes more than before the migration')
        split.destination.cmd('cont')
        split.guest.runs_in(split.destination)
        split.verify(1)


@tap.test('the source is killed: its sessions expire')
def source_killed() -> None:
    """As it was documented: with --session-expiry nothing stays"""
    case = Case(256, 40, 2)
    with under_way(case, [HERE] * 4, Settings(
            'split', bandwidth=32, downtime_limit=0),
            ('--session-expiry', '2')) as split:
        split.migration.start()
        split.migration.wait_pass(2)
        for one in split.memhosts:
            check_equal(len(one.sessions()), 1, f'sessions at {one.uri}')
        pid = split.source.get_pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + remote.PATIENCE
        while any(one.sessions() for one in split.memhosts):
            check(time.monotonic() < deadline, 'sessions stay')
            time.sleep(0.1)


@tap.test('a memory host is cut off during the migration', full=True)
def cut_early() -> None:
    """No packet says so; the guest goes on at the source"""
    case = Case(256, 40, 2)
    with Network(['source', 'main', 'mem0', 'mem1'], 400) as network:
        where = list(network.hosts.values())
        with under_way(case, where, Settings(
                'split', downtime_limit=0)) as split:
            split.migration.start()
            split.migration.wait_pass(2)
            network.cut('mem1')
            check_equal(split.migration.wait_end(), 'failed', 'state')
            error = split.source.migration()['error-desc']
            check(split.memhosts[1].uri in error, error)
            split.verify(1)
            check_equal(split.source.status(), 'running', 'the source')


@tap.test('the commands of README.rst')
def commands() -> None:
    """Each as it stands there, but for sizes and the names of the hosts"""
    lines = readme.commands('A VM that no host has room for')
    memory = [who for who, _ in lines if who.startswith('mem')]
    case = Case(256, 40, len(memory))
    with Network(['src', 'dst', *memory]) as network, \
            contextlib.ExitStack() as stack:
        def adapt(line: str) -> str:
            for name, host in network.hosts.items():
                line = re.sub(rf'\b{name}:', f'{host.address}:', line)
            return line.replace('8G', '256M').replace(
                '=4G', f'={case.main_memory}')

        for who, line in lines:
            if who in memory:
                words = adapt(line).split()
                check_equal(words[0], 'qemu-memserver', 'the program')
                stack.enter_context(MemHost(
                    scenario.our_binary(), 256, words[2],
                    network.hosts[who].wrapper, words[3:]))
        room = stack.enter_context(Machines(
            scenario.our_binary(), Load(fill=96, ws=16, rate=4), case.memory))
        source = room.start(host=network.hosts['src'])
        incoming = next(line for who, line in lines if who == 'dst')
        machines = {'(src)': source, '(dst)': room.expect(
            host=network.hosts['dst'])}
        machines['(dst)'].cmd('migrate-incoming',
                              uri=incoming.split('-incoming ')[1])
        for who, line in lines:
            if who not in machines:
                continue
            said = machines[who].hmp(adapt(line))
            note(f'{who} {line}\n{said}')
            check('rror' not in said and 'unknown' not in said, said)
            if line.startswith('migrate '):
                while source.migration()['status'] != 'completed':
                    room.guest.wait_beats(1)
                remote.wait_event(machines['(dst)'], 'attached')
                room.guest.runs_in(machines['(dst)'])
        remote.wait_event(machines['(dst)'], 'gathered')
        check_equal(room.guest.verify().total, 0, 'wrong pages')


tap.add('memory hosts with just enough room', just_fits, False)

add('without UFFDIO_MOVE, 40 % local', Case(256, 40, 2, move=False), 2)


@tap.test('direct I/O to a disk needs UFFDIO_MOVE')
def direct() -> None:
    """Otherwise it is refused, and the guest stays where it is"""
    with migrating(Case(256, 40, 1, move=False, cache='none')) as split:
        check_equal(split.migration.wait_end(), 'failed', 'state')
        check_equal(split.source.status(), 'running', 'the source')
        split.guest.runs_in(split.source)
        split.verify(1)
        split.check_disk()
        split.destination.wait(remote.PATIENCE)
        said = split.destination.get_log() or ''
        check('with direct I/O to a disk' in said, said)


if __name__ == '__main__':
    sys.exit(tap.main())
