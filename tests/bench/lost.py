# SPDX-License-Identifier: GPL-2.0-or-later
"""
The time that a guest loses to a migration

Downtime says how long a guest stood still.  A guest that ran at half its speed
for ten seconds lost five more, and users feel those as well: the time lost is
the integral, over the migration, of the share of the guest's normal throughput
that was missing.  The throughput is that of the test guest's writers, whose
heartbeats count operations; the normal one is measured around it.

    work = Work(guest)                  # watches the guest for a while
    ... migrate, from began to ended by time.monotonic() ...
    figures.update(work.figures(began, ended))
"""

from typing import List, Sequence, Tuple

from lib.guest import Beat, Guest

from results import Figures


# By the host's clock: how long the normal throughput is measured, and how long
# one point of the series is
NORMAL_SECONDS = 3.0
POINT_SECONDS = 0.25

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
    before = samples[0]
    if when <= before[0]:
        return before[1]
    for after in samples[1:]:
        if after[0] >= when:
            share = (when - before[0]) / (after[0] - before[0])
            return before[1] + share * (after[1] - before[1])
        before = after
    return before[1]


def lost_ms(samples: Sequence[Sample], normal: float, began: float,
            ended: float) -> float:
    """
    Time lost between @began and @ended, by a guest that normally does @normal
    operations in a second; at least 0, as no guest gains by being moved
    """
    done = done_by(samples, ended) - done_by(samples, began)
    return max(ended - began - done / normal, 0.0) * 1000


def throughput(samples: Sequence[Sample], normal: float, began: float,
               ended: float) -> List[Tuple[float, float]]:
    """As shares of the normal one: (seconds after @began, share), in steps"""
    points = []
    at = samples[0][0]
    while at + POINT_SECONDS <= ended:
        done = (done_by(samples, at + POINT_SECONDS)
                - done_by(samples, at))
        points.append((round(at + POINT_SECONDS / 2 - began, 3),
                       round(done / POINT_SECONDS / normal, 4)))
        at += POINT_SECONDS
    return points


class Work:
    """
    What a guest gets done from now on

    Its normal throughput is the better of those before and after the
    migration, as others may have kept the host busy during one of them.
    """

    def __init__(self, guest: Guest, normal_seconds: float = NORMAL_SECONDS):
        self._guest = guest
        self._normal_seconds = normal_seconds
        self._began, self._normal = self._watch()

    def _watch(self) -> Tuple[float, float]:
        """When the normal time began, and the throughput in it"""
        first = last = self._guest.wait_beats(1)
        while last.host_s - first.host_s < self._normal_seconds:
            last = self._guest.wait_beats(1)
        return first.host_s, ((last.ops - first.ops)
                              / (last.host_s - first.host_s))

    def figures(self, began: float, ended: float) -> Figures:
        """
        Once the migration is over, and before the guest is told to do
        anything else; nothing of a guest that does nothing normally
        """
        normal = max(self._normal, self._watch()[1])
        if not normal:
            return {}
        samples = as_said(self._guest.beats_since(self._began))
        return {'lost_ms': lost_ms(samples, normal, began, ended),
                'normal_ops': normal,
                'throughput': throughput(samples, normal, began, ended)}
