# SPDX-License-Identifier: GPL-2.0-or-later
"""
Split memory under KVM: its faults, and pages that are taken from under KVM

What a vCPU uses is mapped a second time, by KVM, which must let go of a page
before it moves away, be it by UFFDIO_MOVE or by mremap().  The steps are those
of tests/functional/test_split.py, with guests that are small enough for a host
that is slow.
"""

from dataclasses import dataclass

from lib import remote
from lib.guest import Load
from lib.tap import Tap, check, check_equal, note
from test_split import DISK, Case, everything, check_gathered, \
    check_report, check_resident, migrated


@dataclass(frozen=True)
class Small(Case):
    """A guest that uses little beside its kernel's memory"""
    memory: int = 160
    percent: int = 40
    hosts: int = 2
    fill: int = 32

    def load(self) -> Load:
        return Load(fill=self.fill, ws=8, rate=1, random=1, disk=DISK)


def _there_and_home(case: Case) -> None:
    with migrated(case) as split:
        check_report(case, split)
        split.verify(1)
        check_resident(case, split)
        said = remote.query(split.destination)
        note(str({name: value for name, value in said.items()
                  if name != 'hosts'}))
        check(said['evicted-clean'] + said['evicted-dirty'] > 0,
              'no page left')
        check(said['faults'] + said['prefetched'] > 0, 'no page came back')
        check_gathered(split)
        check_equal(split.destination.status(), 'running', 'the destination')


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    tap.add('split memory: pages leave and come back, gathered',
            lambda: _there_and_home(Small()))
    tap.add('split memory, without UFFDIO_MOVE: leave, come back, gathered',
            lambda: _there_and_home(Small(move=False)), full=True)
    tap.add('split memory: three memory hosts behind links, resized',
            lambda: everything(Small(hosts=3, mbit=400), 1), full=True)
