# SPDX-License-Identifier: GPL-2.0-or-later
"""
One migration of the test guest from one QEMU process to another

Progress is followed by QMP events; query-migrate is asked only for what no
event tells.  A migration that is not going to end is cancelled at a bound
that the caller sets, and its record says so.
"""

from dataclasses import asdict, dataclass, field
import os
from pathlib import Path
import time
from typing import Any, Callable, Dict, List, Optional

from . import paths, results
from .guest import Guest, longest_stall_ms
from .strategy import Report, Strategy
from .vm import QMPDict, VM


MIB = 1 << 20
# Much longer than any migration here takes on a busy host: only what hangs
# gets there.
PATIENCE = 180.0
ENDS = ('completed', 'failed', 'cancelled')
# QEMU 10.0 shuts the return path down before it sets the state: if the
# migration thread notices first, what was cancelled ends as failed.
CANCELLED = ('cancelled', 'failed')
POSTCOPY_STATES = ('postcopy-active', 'postcopy-paused', 'completed')


def _when(event: QMPDict) -> float:
    stamp = event['timestamp']
    return float(stamp['seconds'] + stamp['microseconds'] / 1e6)


class MigrationError(Exception):
    """A migration did not do what it should"""


@dataclass(frozen=True)
class Settings:
    """
    How to migrate

    @name: for tables
    @strategy: None sets none, as someone would who does not know of it
    @capabilities, @parameters: more of QEMU's own
    @bandwidth: MiB/s, for pre-copy as well as for post-copy; 0 is unlimited
    @switch_at_pass: have stock QEMU switch to post-copy when this pass
        begins; 1 is at once
    @max_passes, @max_seconds: bounds after which to cancel
    """
    name: str
    strategy: Optional[Strategy] = None
    capabilities: List[str] = field(default_factory=list)
    parameters: Dict[str, Any] = field(default_factory=dict)
    bandwidth: int = 0
    downtime_limit: int = 300
    switch_at_pass: Optional[int] = None
    max_passes: Optional[int] = None
    max_seconds: Optional[float] = None
    transport: str = 'unix'

    def wants_postcopy(self) -> bool:
        """Whether the capability is among those to be set"""
        return 'postcopy-ram' in self.capabilities


@dataclass
class Record:
    """
    What became of a migration; None where there is no such figure

    @downtime_ms is from the source's STOP event to the destination's RESUME.
    @reported_downtime_ms is query-migrate's, which stock QEMU takes for none
    when it is below 1 ms, and then reports the time until the end instead.
    @stall_ms: see longest_stall_ms().
    """
    name: str
    completed: bool
    outcome: str
    total_ms: Optional[int] = None
    downtime_ms: Optional[float] = None
    reported_downtime_ms: Optional[int] = None
    bytes: int = 0
    passes: Optional[int] = None
    switched: bool = False
    switch_ms: Optional[int] = None
    switch_reason: Optional[str] = None
    sentence: Optional[str] = None
    requests: int = 0
    stall_ms: Optional[float] = None
    wrong_pages: Optional[int] = None

    def as_dict(self) -> Dict[str, Any]:
        """For JSON"""
        return asdict(self)


class Migration:
    """
    Moves @guest from @source to @destination, which waits with
    "-incoming defer"
    """

    _count = 0

    def __init__(self, source: VM, destination: VM, guest: Guest,
                 settings: Settings):
        self.source = source
        self.destination = destination
        self.guest = guest
        self.settings = settings
        self.states: List[str] = []         # of the source, in order
        self.passes = 0                     # that the source began
        self.started = 0.0                  # host's monotonic clock
        self._stopped_by_us: Optional[str] = None
        self._stop_s: Optional[float] = None    # by the events' clock
        self._resume_s: Optional[float] = None
        self._last: QMPDict = {}
        self._before_cancel: QMPDict = {}
        self._socket: Optional[Path] = None

    # Start

    def prepare(self) -> None:
        """Configure both sides"""
        s = self.settings
        wanted = {'events', *s.capabilities}
        for machine in (self.source, self.destination):
            # It may have been the destination of an earlier migration.
            machine.forget_events()
            machine.set_capabilities(wanted)
        if s.strategy:
            self.source.cmd('migrate-set-parameters', s.strategy.arguments())
        parameters: QMPDict = {'max-bandwidth': s.bandwidth * MIB or 1 << 40,
                               'max-postcopy-bandwidth': s.bandwidth * MIB,
                               'downtime-limit': s.downtime_limit,
                               **s.parameters}
        self.source.cmd('migrate-set-parameters', parameters)

    def listen(self) -> str:
        """Have the destination listen, return where to"""
        if self.settings.transport == 'tcp':
            address = self.destination.address
            self.destination.cmd('migrate-incoming', uri=f'tcp:{address}:0')
            answer = self.destination.migration()
            port = answer['socket-address'][0]['port']
            return f'tcp:{address}:{port}'
        Migration._count += 1
        path = paths.scratch() / f'm{os.getpid()}-{Migration._count}.sock'
        Path(path).unlink(missing_ok=True)
        self.destination.cmd('migrate-incoming', uri=f'unix:{path}')
        return f'unix:{path}'

    def start(self, before: Callable[[], None] = lambda: None) -> None:
        """
        Begin; returns as soon as the source has taken the command

        @before is called when the destination listens.
        """
        self.prepare()
        uri = self.listen()
        before()
        self.started = time.monotonic()
        try:
            self.source.cmd('migrate', uri=uri)
        finally:
            if uri.startswith('unix:'):
                self._socket = Path(uri[len('unix:'):])
        if self.settings.switch_at_pass == 1:
            self.switch()

    # Events

    def switch(self) -> None:
        """Switch to post-copy by hand, as stock QEMU needs it"""
        self.source.cmd('migrate-start-postcopy')

    def cancel(self, why: str = 'cancelled') -> None:
        """Cancel it; wait_end() tells whether it came in time"""
        self._stopped_by_us = why
        # Once cancelled, it forgets how far it had come.
        self._before_cancel = self.source.migration()
        self.source.cmd('migrate_cancel')

    def _take(self, event: QMPDict) -> None:
        if event['event'] == 'MIGRATION':
            self.states.append(event['data']['status'])
        elif event['event'] == 'MIGRATION_PASS':
            self.passes = event['data']['pass']
            if self.passes == self.settings.switch_at_pass:
                self.switch()
        elif event['event'] == 'STOP':
            self._stop_s = _when(event)

    def step(self, timeout: float) -> bool:
        """Take one event of the source, False when none came in time"""
        event = self.source.next_event(timeout)
        if event is None:
            return False
        self._take(event)
        return True

    def wait_for(self, what: str, test: Callable[[], bool],
                 timeout: float = PATIENCE) -> None:
        """Take events of the source until @test holds"""
        deadline = time.monotonic() + timeout
        while not test():
            left = deadline - time.monotonic()
            # Some states that a test looks at come without an event.
            if not self.step(min(max(left, 0), 1.0)) and left <= 0:
                raise MigrationError(
                    f'{self.settings.name}: no {what} within {timeout:.0f} s; '
                    f'states: {self.states}, passes: {self.passes}, '
                    f'query-migrate: {self.source.migration()}')

    def wait_state(self, *states: str, timeout: float = PATIENCE) -> str:
        """Wait until the source has been in one of @states"""
        def test() -> bool:
            if not any(state in self.states for state in states) and any(
                    state in self.states for state in ENDS):
                raise MigrationError(
                    f'{self.settings.name}: ended as {self.states[-1]} '
                    f'instead of coming to {states}: '
                    f'{self.source.migration()}')
            return any(state in self.states for state in states)

        self.wait_for(f'state {" or ".join(states)}', test, timeout)
        return next(state for state in self.states if state in states)

    def wait_postcopy(self) -> None:
        """
        Wait until the guest runs at the destination

        The state comes first: until the source has stopped it, the guest goes
        on there, and what it is told at the destination before that has loaded
        the serial line's state is lost.
        """
        self.wait_state('postcopy-active')
        deadline = time.monotonic() + PATIENCE
        while self.destination.status() != 'running':
            if time.monotonic() > deadline:
                raise MigrationError(f'{self.settings.name}: the guest does '
                                     'not run at the destination: '
                                     f'{self.destination.migration()}')
            self._take_of_destination(0.1)
        self.guest.runs_in(self.destination)

    def wait_pass(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until pass @count of pre-copy begins"""
        self.wait_for(f'pass {count}', lambda: self.passes >= count, timeout)

    @property
    def ended(self) -> bool:
        """Whether the source is done with it"""
        return bool(self.states) and self.states[-1] in ENDS

    def _over_bound(self) -> Optional[str]:
        s = self.settings
        if any(state in POSTCOPY_STATES for state in self.states):
            return None
        if s.max_passes is not None and self.passes > s.max_passes:
            return f'cancelled after {s.max_passes} passes'
        if (s.max_seconds is not None
                and time.monotonic() - self.started > s.max_seconds):
            return f'cancelled after {s.max_seconds:.0f} s'
        return None

    def wait_end(self, progress: Optional[Callable[[QMPDict], None]] = None,
                 timeout: float = PATIENCE) -> str:
        """
        Follow it to its end, cancelling it at the bounds of the settings

        @progress is called with query-migrate's answer every now and then.
        """
        deadline = time.monotonic() + timeout
        asked = 0.0
        while not self.ended:
            now = time.monotonic()
            if now > deadline:
                raise MigrationError(
                    f'{self.settings.name}: no end within {timeout:.0f} s: '
                    f'{self.source.migration()}')
            if progress and now - asked >= 0.25:
                progress(self.source.migration())
                asked = time.monotonic()
            why = self._over_bound()
            if why and not self._stopped_by_us:
                self.cancel(why)
            self.step(0.25)
        self._last = self.source.migration()
        results.keep_answer(f'{self.settings.name}-source', self._last)
        if self.states[-1] == 'completed':
            self._wait_destination()
            results.keep_answer(f'{self.settings.name}-destination',
                                self.destination.migration())
            self.guest.runs_in(self.destination)
            self.guest.wait_beats(2)
        if self._socket:
            self._socket.unlink(missing_ok=True)
        return self.states[-1]

    def _wait_destination(self) -> None:
        """The source is done when all is sent, not when all has arrived"""
        deadline = time.monotonic() + PATIENCE
        while True:
            state = self.destination.migration().get('status')
            if state == 'completed':
                while self._take_of_destination(0):
                    pass
                return
            if state == 'failed' or time.monotonic() > deadline:
                raise MigrationError(f'{self.settings.name}: the destination '
                                     f'is in state {state}')
            self._take_of_destination(1.0)

    def _take_of_destination(self, timeout: float) -> bool:
        event = self.destination.next_event(timeout)
        if event and event['event'] == 'RESUME':
            self._resume_s = _when(event)
        return event is not None

    @property
    def resumed_s(self) -> Optional[float]:
        """When the destination resumed the guest, by the events' clock"""
        return self._resume_s

    def _downtime_ms(self) -> Optional[float]:
        if self._stop_s is None or self._resume_s is None:
            return None
        return (self._resume_s - self._stop_s) * 1000

    # Result

    def run(self, progress: Optional[Callable[[QMPDict], None]] = None
            ) -> Record:
        """From start to end, and the guest's verdict"""
        self.start()
        self.wait_end(progress)
        return self.record()

    def record(self, verify: bool = True) -> Record:
        """What became of it; has the guest verify all of its pages"""
        last: QMPDict = self._last or self.source.migration()
        beats = self.guest.beats_since(self.started)
        ram: QMPDict = last.get('ram', self._before_cancel.get('ram', {}))
        report = Report.of(last) or Report.of(self._before_cancel)
        completed = self.states[-1] == 'completed'
        record = Record(
            name=self.settings.name, completed=completed,
            outcome=self._outcome(last),
            total_ms=last.get('total-time',
                              self._before_cancel.get('total-time')),
            downtime_ms=self._downtime_ms() if completed else None,
            reported_downtime_ms=last.get('downtime') if completed else None,
            bytes=ram.get('transferred', 0),
            passes=self.passes or ram.get('dirty-sync-count'),
            switched='postcopy-active' in self.states,
            requests=ram.get('postcopy-requests', 0),
            stall_ms=longest_stall_ms(beats, self.guest.beat_ms))
        if report:
            record.passes = report.passes
            record.switched = report.switched
            record.switch_ms = report.switch_ms
            record.switch_reason = report.switch_reason
            record.sentence = report.sentence
        if verify:
            verdict = self.guest.verify()
            record.wrong_pages = verdict.total
        return record

    def _outcome(self, last: QMPDict) -> str:
        state = self.states[-1] if self.states else 'none'
        if self._stopped_by_us and state in CANCELLED:
            return self._stopped_by_us
        if state == 'failed':
            return f'failed: {last.get("error-desc", "no reason given")}'
        return state
