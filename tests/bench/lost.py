# SPDX-License-Identifier: GPL-2.0-or-later
"""
The time that a guest loses to a migration

Downtime says how long a guest stood still.  A guest that ran at half its speed
for ten seconds lost five more, and users feel those as well: the time lost is
the integral of the share of the guest's normal throughput that was missing,
from the start of the migration until the guest has recovered.  That may be
later than the end: pages are still missing, or caches are cold.  The
throughput is that of the test guest's writers, whose heartbeats count
operations; the normal one is the median of quarters of a second before.

    work = Work(guest)                  # watches the guest for a while
    ... migrate, from began to ended by time.monotonic() ...
    figures.update(work.figures(began, ended))
"""

import bisect
import statistics
from typing import List, NamedTuple, Optional, Sequence, Tuple

from lib.guest import Beat, Guest

from results import Figures


# By the host's clock: how long the normal throughput is measured, and how long
# one point of the series is
NORMAL_SECONDS = 3.0
POINT_SECONDS = 0.25
# Recovered is who has been normal for so long; who is not after so long will
# not be, as one whose memory is split for good
STEADY_SECONDS = 1.0
RECOVERY_SECONDS = 10.0
# What a point may be short of, at least, without being counted as a loss, and
# at most, however noisy the machine is: standing still is always one
TOLERANCE = 0.05
MOST_TOLERANCE = 0.5

MEANING = (
    'the integral of the share of its normal throughput that the guest '
    'missed, from the start until it was normal for '
    f'{STEADY_SECONDS:g} s, at most until {RECOVERY_SECONDS:g} s after the '
    'end.')

# When by the host's clock, and how many operations were done by then
Sample = Tuple[float, int]


def as_said(beats: Sequence[Beat]) -> List[Sample]:
    """
    The heartbeats by when the guest can have said them at the latest

    One that waited before it was read is older than it seems.  Between two of
    them passed at least as much time as by the guest's clock, which stands
    still now and then but is never fast: a beat that came without delay tells
    so of all before it.
    """
    samples: List[Sample] = []
    offset = float('inf')
    for beat in reversed(beats):
        offset = min(offset, beat.host_s - beat.guest_ms / 1000)
        samples.append((beat.guest_ms / 1000 + offset, beat.ops))
    return samples[::-1]


def done_by(samples: Sequence[Sample], when: float) -> float:
    """Operations by @when, between two samples by straight line"""
    place = bisect.bisect_left(samples, (when, 0))
    if place == 0:
        return samples[0][1]
    if place == len(samples):
        return samples[-1][1]
    before, after = samples[place - 1], samples[place]
    share = (when - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


class Normal(NamedTuple):
    """
    What the guest does when nothing happens

    @ops: operations in a second
    @tolerance: what a point may be short of, as a share, by noise alone
    """
    ops: float
    tolerance: float = TOLERANCE


def normal_of(samples: Sequence[Sample], began: float,
              ended: float) -> Normal:
    """From the points between; of none when the guest does nothing"""
    rates = [share for _, share in throughput(samples, 1.0, began, ended)]
    middle = statistics.median(rates) if rates else 0.0
    if not middle:
        return Normal(0.0)
    # The median of distances is not moved by a few points that are far off.
    noise = statistics.median(abs(rate - middle) for rate in rates) / middle
    return Normal(middle, min(max(3 * noise, TOLERANCE), MOST_TOLERANCE))


def lost_ms(samples: Sequence[Sample], normal: Normal, began: float,
            ended: float) -> float:
    """
    Time lost between @began and @ended

    Either what is missing on the whole, or what is missing in the points that
    are below normal by more than noise, whichever is more: a guest that is
    fast for a while, as nobody else keeps the host busy then, or as it catches
    up, does not get back the time for which it stood still.  So it is never
    below 0, and not by throwing away what a run says.
    """
    whole = ended - began - (done_by(samples, ended)
                             - done_by(samples, began)) / normal.ops
    short = 0.0
    for share, length in _shares(samples, normal.ops, began, ended):
        if share < 1 - normal.tolerance:
            short += (1 - share) * length
    return max(whole, short) * 1000


def recovered(samples: Sequence[Sample], normal: Normal, ended: float,
              limit: float = RECOVERY_SECONDS) -> Optional[float]:
    """
    From when on the guest was normal again, not before @ended, and @limit
    after it at the latest; None when that cannot be told yet
    """
    latest = samples[-1][0]
    for number in range(int(limit / POINT_SECONDS)):
        at = ended + number * POINT_SECONDS
        if at + STEADY_SECONDS > latest:
            return None
        shares = [share for share, _ in _shares(samples, normal.ops, at,
                                                at + STEADY_SECONDS)]
        # One that catches up is fast, but loses nothing any more.
        if min(shares) >= 1 - normal.tolerance:
            return at
    return ended + limit


def _shares(samples: Sequence[Sample], normal: float, began: float,
            ended: float) -> List[Tuple[float, float]]:
    """Points between: share of the normal throughput, and how long"""
    found = []
    at = began
    while ended - at > 1e-9:
        length = min(POINT_SECONDS, ended - at)
        done = done_by(samples, at + length) - done_by(samples, at)
        found.append((done / length / normal, length))
        at += length
    return found


def throughput(samples: Sequence[Sample], normal: float, began: float,
               ended: float) -> List[Tuple[float, float]]:
    """As shares of the normal one: (seconds after @began, share), in steps"""
    first = samples[0][0]
    steps = int((ended - first) / POINT_SECONDS + 1e-9)
    shares = _shares(samples, normal, first, first + steps * POINT_SECONDS)
    return [(round(first + (number + 0.5) * POINT_SECONDS - began, 3),
             round(share, 4)) for number, (share, _) in enumerate(shares)]


class Work:
    """
    What a guest gets done from now on, next to what it does in the first
    @normal_seconds
    """

    def __init__(self, guest: Guest, normal_seconds: float = NORMAL_SECONDS):
        self._guest = guest
        first = last = guest.wait_beats(1)
        while last.host_s - first.host_s < normal_seconds:
            last = guest.wait_beats(1)
        self._began = first.host_s
        self.normal = normal_of(self._samples(), first.host_s, last.host_s)

    def _samples(self) -> List[Sample]:
        return as_said(self._guest.beats_since(self._began))

    def figures(self, began: float, ended: float) -> Figures:
        """
        Once the migration is over, and before the guest is told to do
        anything else; waits until it has recovered.  Nothing of a guest that
        does nothing normally
        """
        if not self.normal.ops:
            return {}
        while True:
            samples = self._samples()
            until = recovered(samples, self.normal, ended)
            if until is not None:
                break
            self._guest.wait_beats(
                max(int(POINT_SECONDS * 1000 / self._guest.beat_ms), 1))
        return {'lost_ms': lost_ms(samples, self.normal, began, until),
                'recovery_ms': (until - ended) * 1000,
                'normal_ops': self.normal.ops,
                'throughput': throughput(samples, self.normal.ops, began,
                                         samples[-1][0])}
