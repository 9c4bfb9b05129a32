# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: is it KVM that runs the guests?"""

from lib import scenario
from lib.machines import Machines
from lib.tap import Tap, check


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    @tap.test('a Linux guest boots under KVM')
    def boot() -> None:
        with Machines(scenario.our_binary(), scenario.IDLE,
                      scenario.MEMORY) as room:
            machine = room.start()
            check(machine.cmd('query-kvm')['enabled'], 'it is not under KVM')
