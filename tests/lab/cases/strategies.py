# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every strategy under KVM, for each way that KVM has to tell what is dirty

One guest goes from process to process, by another strategy each time, and
verifies all of its pages after each.  The guest is heavy where a strategy is
to switch: it dirties memory many times as fast as the link is allowed to be.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from inside.network import Link
from lib import scenario
from lib.binary import Binary
from lib.guest import Load
from lib.machines import Machines
from lib.migration import Migration, Record, Settings
from lib.strategy import Strategy
from lib.tap import Tap, check, check_equal, note
from lib.vm import HERE, VM


POSTCOPY = ['postcopy-ram']
NO_MANUAL_PROTECT = '/lab/no-manual-protect.so'
LOAD = Load(fill=32, ws=16, load=0)
# MiB/s
BANDWIDTH = 8
# ms of downtime: what an idle guest dirties fits, however slow this host is.
# And to a heavy one nothing is allowed, however little it writes there.
AMPLE = 2000


class Hop(NamedTuple):
    """One migration of the guest, and the rate it writes at meanwhile"""
    settings: Settings
    heavy: bool


def _hop(name: str, mode: Optional[str], heavy: bool,
         capabilities: List[str], **parameters: Any) -> Hop:
    return Hop(Settings(name, Strategy(mode) if mode else None, capabilities,
                        bandwidth=BANDWIDTH if heavy else 0,
                        downtime_limit=0 if heavy else AMPLE,
                        transport='tcp', parameters=parameters), heavy)


HOPS = (
    _hop('none', None, False, []),
    _hop('precopy', 'precopy', False, []),
    _hop('postcopy', 'postcopy', True, POSTCOPY),
    _hop('hybrid', 'hybrid', True, POSTCOPY),
    _hop('auto, idle', 'auto', False, POSTCOPY),
    _hop('auto, heavy', 'auto', True, POSTCOPY),
    _hop('delta', 'precopy', False, ['xbzrle'], **{'xbzrle-cache-size': 0}),
)


def _move(room: Machines, here: VM, there: VM, hop: Hop) -> Record:
    room.guest.set(load=int(hop.heavy))
    migration = Migration(here, there, room.guest, hop.settings)
    record = migration.run()
    note(str(record))
    check_equal(record.outcome, 'completed', f'{hop.settings.name}: outcome')
    check_equal(record.wrong_pages, 0, f'{hop.settings.name}: wrong pages, as '
                f'{room.guest.wrong_lines}')
    check_equal(record.switched, hop.heavy,
                f'{hop.settings.name}: whether it switched')
    room.guest.wait_beats(2)
    room.end(here)
    return record


def _chain(room: Machines, hosts: Any = (HERE, HERE)) -> List[VM]:
    """All hops; the machines, in order, ended but for the last"""
    machines = [room.start(host=hosts[0])]
    for number, hop in enumerate(HOPS, 1):
        machines.append(room.expect(host=hosts[number % 2]))
        _move(room, machines[-2], machines[-1], hop)
    return machines


def _traced(machines: List[VM], event: str) -> int:
    """How often an event was traced by those that ended"""
    return sum((machine.get_log() or '').count(event)
               for machine in machines[:-1])


def _with_log(binary: Binary, manual: bool) -> None:
    with Machines(binary, LOAD, scenario.MEMORY,
                  extra=('-trace', 'kvm_clear_dirty_log')) as room:
        cleared = _traced(_chain(room), 'kvm_clear_dirty_log')
        check_equal(cleared > 0, manual,
                    f'whether the log was cleared by hand, {cleared} times')


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    @tap.test('dirty log: every strategy')
    def dirty_log() -> None:
        _with_log(scenario.our_binary(), True)

    @tap.test('dirty log without manual protection: every strategy',
              full=True)
    def no_manual_protect() -> None:
        ours = scenario.our_binary()
        environment: Dict[str, str] = {'LD_PRELOAD': NO_MANUAL_PROTECT}
        _with_log(Binary(ours.name, ours.path, ours.data, environment), False)

    @tap.test('dirty ring: every strategy', full=True)
    def dirty_ring() -> None:
        with Machines(scenario.our_binary(), LOAD, scenario.MEMORY,
                      extra=('-trace', 'kvm_dirty_ring_reap_vcpu'),
                      accel_properties=',dirty-ring-size=4096') as room:
            reaped = _traced(_chain(room), 'kvm_dirty_ring_reap_vcpu')
            check(reaped, 'the ring was never reaped')

    @tap.test('a link of 10 ms and 200 Mbit/s: every strategy', full=True)
    def link() -> None:
        with Link(delay_us=5000, mbit=200) as slow, \
             Machines(scenario.our_binary(), LOAD, scenario.MEMORY) as room:
            _chain(room, slow.hosts)
            for number in range(2):
                check(slow.bytes_sent(number) > LOAD.fill << 20,
                      f'host {number + 1} sent nothing over the link')
