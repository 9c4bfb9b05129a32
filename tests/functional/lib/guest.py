# SPDX-License-Identifier: GPL-2.0-or-later
"""
The test guest as seen from its serial line

A guest outlives the QEMU process that it runs in: attach() adds the serial
line of each process that it may come to.  One thread reads all lines and notes
when, by the host's monotonic clock, each line came; the lines of a process
that the guest left come before those of the one it went to.

A command goes to the process named by runs_in(), which whoever migrates the
guest has to call; do not send one while the guest may be in transit.
"""

from dataclasses import dataclass
import os
import re
import selectors
import socket
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, TypeVar

from .vm import VM


# Longer than a guest under TCG takes to boot or to verify on a host that
# leaves it hardly any time: only what hangs gets there
PATIENCE = 300.0
KEPT_LINES = 400

_T = TypeVar('_T')


class GuestError(Exception):
    """The guest did not do what it should; the text says what it said last"""


class Beat(NamedTuple):
    """One heartbeat: when it came here, and what the guest said"""
    host_s: float
    guest_ms: int
    ops: int
    stall_us: int
    wrong: int


class Verdict(NamedTuple):
    """The guest's word on all of its pages"""
    pages: int
    wrong: int
    total: int


# What a guest that only reads can read by, for Load.pattern
PATTERNS = {'sequential': 1, 'uniform': 2, 'zipf': 3}


@dataclass(frozen=True)
class Load:
    """What the guest is asked to do; see tests/functional/guest/init.c"""
    fill: int = 0
    ws: int = 0
    threads: int = 1
    load: int = 1
    rate: int = 0
    rounds: int = 0
    write: int = 0
    random: int = 0
    read: int = 0
    pattern: int = 0
    text: int = 0
    disk: int = 0
    fifo: int = 0
    beat: int = 20

    def cmdline(self) -> str:
        """For the kernel's command line"""
        return ' '.join(f'guest.{name}={value}'
                        for name, value in vars(self).items())


class Guest:
    """Reads what the guest says and tells it what to do"""

    def __init__(self, beat_ms: int) -> None:
        self.beat_ms = beat_ms              # between heartbeats
        self._lines: List[str] = []
        self._serials: Dict[int, socket.socket] = {}
        self._home: Optional[int] = None
        self._rest = b''
        self._beats: List[Beat] = []
        self._verdict: Optional[Verdict] = None
        self._answers: List[str] = []
        self._ready: Optional[float] = None
        self._panic: Optional[str] = None
        self._wrong: List[str] = []
        # Guards all of the above, and tells of every change to it
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # Serial lines

    def attach(self, machine: VM) -> None:
        """Read the serial line of @machine too"""
        serial = machine.take_serial()
        with self._changed:
            self._serials[id(machine)] = serial
            if self._home is None:
                self._home = id(machine)
        # The thread registers it: it alone uses the selector.
        os.write(self._wake_in, b'+')

    def runs_in(self, machine: VM) -> None:
        """From now on commands go to @machine"""
        with self._changed:
            self._home = id(machine)

    def close(self) -> None:
        """Stop reading"""
        with self._changed:
            self._ended = True
        os.write(self._wake_in, b'-')
        self._thread.join()
        for serial in self._serials.values():
            serial.close()
        self._selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _run(self) -> None:
        known: Dict[int, socket.socket] = {}
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._wake_out in ready:
                os.read(self._wake_out, 64)
                with self._changed:
                    if self._ended:
                        return
                    for key, serial in self._serials.items():
                        if key not in known:
                            known[key] = serial
                            self._selector.register(serial,
                                                    selectors.EVENT_READ)
            # In the order of attach(), which is the way that the guest takes
            for serial in [s for s in known.values() if s in ready]:
                self._receive(serial)

    def _receive(self, serial: socket.socket) -> None:
        try:
            data = serial.recv(65536)
        except ConnectionError:
            data = b''
        if not data:
            self._selector.unregister(serial)
            return
        now = time.monotonic()
        with self._changed:
            # What the guest began to say in one process it ends in the next.
            *lines, self._rest = (self._rest + data).split(b'\n')
            for line in lines:
                self._take(line.decode('ascii', 'replace').strip('\r'), now)
            self._changed.notify_all()

    def _take(self, line: str, now: float) -> None:
        beat = re.search(r'guest: beat ms=(\d+) ops=(\d+) stall=(\d+) '
                         r'max=\d+ wrong=(\d+)$', line)
        if beat:
            values = [int(value) for value in beat.groups()]
            self._beats.append(Beat(now, *values))
            return
        if not line:
            return
        self._lines.append(line)
        del self._lines[:-KEPT_LINES]
        verdict = re.search(r'guest: verified pages=(\d+) wrong=(\d+) '
                            r'total=(\d+)$', line)
        if verdict:
            self._verdict = Verdict(*(int(n) for n in verdict.groups()))
        elif 'guest: ready ' in line:
            self._ready = now
        elif 'guest: wrong ' in line:
            self._wrong.append(line)
        elif 'guest: ok ' in line or 'guest: error ' in line:
            self._answers.append(line)
        elif 'Kernel panic' in line:
            self._panic = line

    # Waiting

    def _wait(self, what: str, test: Callable[[], Optional[_T]],
              timeout: float) -> _T:
        """Wait until @test, called under the lock, is no longer None"""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                result = test()
                if result is not None:
                    return result
                if self._panic:
                    raise GuestError(f'the guest panicked: {self._panic}')
                left = deadline - time.monotonic()
                if left <= 0:
                    last = '\n'.join(self._lines[-12:])
                    raise GuestError(f'no {what} from the guest within '
                                     f'{timeout:.0f} s; it said last:\n'
                                     f'{last}')
                self._changed.wait(left)

    def forget_ready(self) -> None:
        """It will boot again"""
        with self._changed:
            self._ready = None

    def wait_ready(self, timeout: float = PATIENCE) -> None:
        """Wait until the guest has filled its memory and works"""
        self._wait('sign of readiness', lambda: self._ready, timeout)
        self.wait_beats(2, timeout)

    def wait_beats(self, count: int, timeout: float = PATIENCE) -> Beat:
        """Wait for @count more heartbeats"""
        with self._changed:
            target = len(self._beats) + count
        return self._wait(
            f'{count} heartbeats',
            lambda: self._beats[-1] if len(self._beats) >= target else None,
            timeout)

    def wait_ops(self, count: int, timeout: float = PATIENCE) -> Beat:
        """Wait until the guest has done @count more operations"""
        with self._changed:
            target = (self._beats[-1].ops if self._beats else 0) + count
        return self._wait(
            f'{count} operations',
            lambda: (self._beats[-1] if self._beats
                     and self._beats[-1].ops >= target else None), timeout)

    # Commands

    def command(self, text: str, timeout: float = PATIENCE) -> str:
        """Have the guest do @text, return its answer"""
        with self._changed:
            self._answers.clear()
        self._send(text)
        answer = self._wait(
            f'answer to "{text}"',
            lambda: self._answers[0] if self._answers else None, timeout)
        if 'guest: ok ' not in answer:
            raise GuestError(answer)
        return answer

    def set(self, timeout: float = PATIENCE, **parameters: int) -> None:
        """Change parameters of the load"""
        self.command('set ' + ' '.join(
            f'{name}={value}' for name, value in parameters.items()), timeout)

    def verify(self, timeout: float = PATIENCE) -> Verdict:
        """Have the guest verify all of its pages"""
        with self._changed:
            self._verdict = None
        self._send('verify')
        return self._wait('verdict', lambda: self._verdict, timeout)

    def disk_ops(self) -> int:
        """How often the guest read back and wrote a block of its disk"""
        return int(self.command('disk').split('ops=', 1)[1])

    def disks(self) -> List[str]:
        """The names of the guest's disks"""
        answer = self.command('disks')
        return answer.split('disks', 1)[1].split()

    def _send(self, text: str) -> None:
        with self._changed:
            assert self._home is not None
            serial = self._serials[self._home]
        serial.sendall(text.encode() + b'\n')

    # What was seen

    @property
    def lines(self) -> List[str]:
        """What the guest said last, but for heartbeats"""
        with self._changed:
            return list(self._lines)

    @property
    def wrong_lines(self) -> List[str]:
        """What the guest said of pages that were wrong"""
        with self._changed:
            return list(self._wrong)

    def beats_since(self, host_s: float) -> List[Beat]:
        """The heartbeats that came from @host_s on, and the one before"""
        with self._changed:
            first = len(self._beats)
            while first > 0 and self._beats[first - 1].host_s >= host_s:
                first -= 1
            return self._beats[max(first - 1, 0):]


def longest_stall_ms(beats: List[Beat], period_ms: int) -> float:
    """
    The longest time that the guest did nothing, as seen from outside or inside

    From inside, by its own clock, which stands still in the downtime; from
    outside, by the gaps between heartbeats beyond their period.
    """
    inside = max((beat.stall_us / 1000 for beat in beats[1:]), default=0.0)
    outside = max(((after.host_s - before.host_s) * 1000 - period_ms
                   for before, after in zip(beats, beats[1:])), default=0.0)
    return max(inside, outside)
