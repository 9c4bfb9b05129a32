#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The destination changes in mid-flight, and nothing is lost

A Linux guest moves between hosts in network namespaces of their own, over
links that take some seconds for its memory.  On its way it is told to go
elsewhere; in the end the guest verifies all of its pages, each of which may
have come from the source, from an old destination, or from both.
"""

import sys
from typing import Any, Callable, Dict, List, Optional

from lib import scenario
from lib.guest import Load
from lib.links import Links, Rate
from lib.machines import Machines
from lib.migration import MIB, Settings
from lib.redirection import Redirection, data_of
from lib.scenario import FILL, HEAVY, IDLE, LIGHT, MEMORY
from lib.strategy import Strategy
from lib.tap import Tap, check, check_equal, note

tap = Tap()

# MiB/s that each host can send; a new destination can receive from two
RATE = 24.0
RATES = {'a': Rate(RATE), 'b': Rate(RATE), 'c': Rate(RATE, 2 * RATE),
         'd': Rate(RATE, 2 * RATE)}

POSTCOPY = ['postcopy-ram']

# What a source takes over from a relay that is good, at the most
HELP = MEMORY * MIB // 25


def settings(mode: str, capabilities: Optional[List[str]] = None,
             passes: int = 1, **more: Any) -> Settings:
    """The links are what limits it"""
    return Settings(mode, Strategy(mode, passes=passes, redirectable=True),
                    capabilities or [], **more)


class Scene:
    """A guest on its way from a to b, with others waiting"""

    def __init__(self, room: Machines, links: Links, how: Settings,
                 others: str):
        source = room.start(host=links.host('a'))
        hosts = {name: room.expect(host=links.host(name))
                 for name in 'b' + others}
        self.room = room
        self.links = links
        self.migration = Redirection(source, hosts, room.guest, how, links)

    def start(self, share: float) -> None:
        """Up to where @share of the data is with b"""
        self.migration.start()
        self.migration.wait_sent(int(data_of(FILL) * share))

    def redirect(self, name: str) -> None:
        """To a host that has not listened so far"""
        self.migration.listen_on(name)
        why = self.migration.redirect(name)
        check(why is None, f'no redirect to {name}: {why}')

    def end(self, name: str, redirects: int) -> None:
        """It arrives at @name, unharmed"""
        self.migration.wait_end()
        record = self.migration.record()
        info = self.migration.redirect_info(self.migration.source)
        note(f'{record}')
        note(f'the source says {info}')
        check_equal(self.migration.now_to, name, 'destination')
        check_equal(info.get('redirects', 0), redirects, 'redirects')
        scenario.check_completed(self.room, self.migration, record)


def case(title: str, load: Load, how: Settings, others: str,
         story: Callable[[Scene], None], full: bool = False) -> None:
    """A test with so many hosts beside a and b"""
    def run() -> None:
        used = scenario.our_binary()
        hosts: Dict[str, Rate] = {name: RATES[name]
                                  for name in 'ab' + others}
        with Links(hosts) as links, Machines(used, load, MEMORY) as room:
            story(Scene(room, links, how, others))
    tap.add(title, run, full)


def half_way(scene: Scene) -> None:
    """B sends on what it has, and is free again"""
    scene.start(0.5)
    scene.redirect('c')
    status, data = scene.migration.wait_relayed('b')
    note(f'the relay says {data}')
    check(status in ('completed', 'released'), f'the relay: {data}')
    check(data['pages'] > 0, 'the relay sent nothing')
    scene.end('c', 1)
    info = scene.migration.redirect_info(scene.migration.destination)
    note(f'the destination says {info}')
    check(info['relay-pages'] > 0, 'nothing came from the relay')


def later_pass(scene: Scene) -> None:
    """B has been sent all once, and some of it twice"""
    scene.migration.start()
    scene.migration.wait_pass(2)
    scene.redirect('c')
    scene.end('c', 1)


def twice(scene: Scene) -> None:
    """And on to the next, while B may still be the relay"""
    scene.start(0.4)
    scene.redirect('c')
    scene.redirect('d')
    scene.end('d', 2)


def there_and_back(scene: Scene) -> None:
    """C gives it back to B, once B has sent what it had"""
    scene.start(0.25)
    scene.redirect('c')
    scene.migration.wait_relayed('b')
    if not scene.migration.ended:
        scene.redirect('b')
        scene.end('b', 2)
    else:
        scene.end('c', 1)


def nobody_there(scene: Scene) -> None:
    """C does not listen: the migration to B goes on"""
    scene.start(0.3)
    why = scene.migration.redirect('c')
    note(f'refused: {why}')
    check(why is not None, 'a redirect to nobody')
    scene.end('b', 0)


def relay_cut_off(scene: Scene) -> None:
    """B's cable is pulled while it sends: the source sends the rest"""
    scene.start(0.6)
    scene.redirect('c')
    scene.links.cut('b')
    scene.end('c', 1)
    info = scene.migration.redirect_info(scene.migration.source)
    check(info['taken-over'] > 0, f'the source took over nothing: {info}')


def slow_relay(scene: Scene) -> None:
    """B's link is bad: the source takes over most of what B has"""
    scene.start(0.6)
    scene.links.limit('b', Rate(RATE / 16))
    scene.redirect('c')
    scene.end('c', 1)
    info = scene.migration.redirect_info(scene.migration.source)
    check(info['taken-over'] > max(info['relay-bytes'], HELP),
          f'the source took over no more than from a good one: {info}')


def slow_link(scene: Scene) -> None:
    """B needs long to get the order, as A's link is bad for a while"""
    scene.start(0.5)
    scene.links.limit('a', Rate(RATE / 64))
    scene.redirect('c')
    scene.links.limit('a', RATES['a'])
    status, data = scene.migration.wait_relayed('b')
    note(f'the relay says {data}')
    check(status in ('completed', 'released'), f'the relay: {data}')
    scene.end('c', 1)
    info = scene.migration.redirect_info(scene.migration.source)
    check(info['relay-bytes'] > info['taken-over'],
          f'the source did not wait for the relay: {info}')


def spared(scene: Scene) -> None:
    """While the source only waits for the relay, nothing slows the guest"""
    throttled: List[Any] = []
    migration = scene.migration

    def relayed() -> bool:
        data = migration.source.migration()
        redirect = data.get('strategy', {}).get('redirect', {})
        throttled.append(data.get('cpu-throttle-percentage', 0))
        return not redirect.get('remaining', 0)

    scene.start(0.9)
    scene.links.limit('b', Rate(RATE * 0.75))
    scene.redirect('c')
    migration.wait_for('end of the relay', relayed)
    note(f'throttle: {throttled}')
    check(len(throttled) > 2, 'the relay was not observed')
    check(not any(throttled), 'the guest was throttled')
    scene.end('c', 1)


case('half-way, idle guest', IDLE, settings('precopy'), 'c', half_way)
case('half-way, busy guest', LIGHT, settings('precopy'), 'c', half_way)
case('half-way, heavy guest, hybrid', HEAVY,
     settings('hybrid', POSTCOPY), 'c', half_way)
case('half-way, heavy guest, auto', HEAVY, settings('auto', POSTCOPY), 'c',
     half_way, full=True)
case('half-way, delta', LIGHT,
     settings('precopy', ['xbzrle'], parameters={'xbzrle-cache-size': 0}),
     'c', half_way)
# With a limit of 0 it does not end before, however little the guest writes
case('in a later pass, heavy guest', HEAVY,
     settings('hybrid', POSTCOPY, passes=4, downtime_limit=0), 'c',
     later_pass)
case('twice, four hosts, busy guest', LIGHT, settings('precopy'), 'cd',
     twice)
case('there and back again, busy guest', LIGHT, settings('precopy'), 'c',
     there_and_back)
case('to a host where nobody listens', IDLE, settings('precopy'), 'c',
     nobody_there)
case('the relay is cut off, busy guest', LIGHT, settings('precopy'), 'c',
     relay_cut_off)
case('the relay is slow, idle guest', IDLE, settings('precopy'), 'c',
     slow_relay)
case('the relay sends, auto-converge', Load(fill=FILL, ws=8, rate=2),
     settings('precopy', ['auto-converge']), 'c', spared)
case('the order takes long, busy guest', LIGHT, settings('precopy'), 'c',
     slow_link, full=True)

if __name__ == '__main__':
    sys.exit(tap.main())
