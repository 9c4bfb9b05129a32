#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The recipes for libvirt: split memory

libvirt moves the domain to a host that has too little memory, none the wiser;
the rest of it is on hosts that libvirt does not know of.
"""

import json
from pathlib import Path
import re
import sys
import threading
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from lib import memhost, scenario  # noqa: E402
from lib.hosts import Host  # noqa: E402
from lib.libvirt import DOMAIN, Site  # noqa: E402
from lib.recipes import (RECIPES, add_cases, check_moved,  # noqa: E402
                         check_stayed, hardware, limit, recipe)
from lib.tap import Tap, check, check_equal, note  # noqa: E402

tap = Tap()

# Of the guest's memory, for the document's gigabytes
LOCAL = scenario.MEMORY * 2 // 5
SIZES = {'=4G': LOCAL, '=6G': LOCAL * 3 // 2, '8G': scenario.MEMORY}
CREDENTIALS = ('--object', 'tls-creds-x509,id=tls0,endpoint=client,'
               'dir=/etc/pki/qemu', '--tls-creds', 'tls0', '--tls-hostname')


def sized(text: str) -> List[str]:
    """A command that runs it with the sizes of the test guest"""
    text = re.sub(r'=4G|=6G|8G', lambda found: '{}{}M'.format(
        '=' if '=' in found[0] else '', SIZES[found[0]]), text)
    return ['bash', '-e', '-u', '-c', text]


class MemoryHost:
    """qemu-memserver on a host, run as the recipe of that name has it"""

    def __init__(self, site: Site, host: Host, name: str = 'memory-host'):
        self._host = host
        self._program = str(memhost.program(site.binary))
        self._credentials = ((*CREDENTIALS, host.name)
                             if 'tls' in name else ())
        command = RECIPES[name].replace('qemu-memserver',
                                        f'exec {self._program}')
        daemon = host.daemon('memserver', *sized(command))
        site.wait('memory host', lambda: daemon.poll() is not None
                  or 'sessions' in self.ask())
        check_equal(daemon.poll(), None, 'the memory host')

    def ask(self, *credentials: str) -> str:
        """Its status, or why there is none"""
        return self._host.run(self._program, '--status', 'tcp:localhost:7001',
                              '--json', *(credentials or self._credentials),
                              check=False)

    def sessions(self) -> List[Dict[str, Any]]:
        """What it knows of its sessions"""
        found: List[Dict[str, Any]] = json.loads(self.ask())['sessions']
        return found


def check_whole(site: Site) -> None:
    """The guest finds all of its memory"""
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')
    site.guest.wait_beats(2)


def check_split(site: Site, host: Host, *stores: MemoryHost) -> Dict[str, Any]:
    """A part of it is elsewhere, and nothing set for the next migration"""
    have: Dict[str, Any] = site.qmp(host, 'query-remote-memory')
    note(str({name: value for name, value in have.items()
              if name != 'hosts'}))
    check_equal(have['state'], 'attached', 'remote memory')
    check_equal(have['main-memory'], LOCAL << 20, 'main-memory')
    check(have['remote'] > 0, 'no memory is elsewhere')
    check_equal([one['state'] for one in have['hosts']],
                ['up'] * len(stores), 'memory hosts')
    next_time = site.qmp(host, 'query-migrate-parameters')['strategy']
    check('split' not in next_time, f'the next migration: {next_time}')
    for store in stores:
        check_equal(len(store.sessions()), 1, 'sessions')
    return have


def gather(site: Site, host: Host, *stores: MemoryHost) -> None:
    """All memory comes home"""
    check_equal(host.run(*recipe('split-gather')).strip(), '',
                'what the recipe prints')
    site.wait('all memory at home', lambda: 'remote memory: none' in
              host.run(*recipe('split-watch')))
    for store in stores:
        check_equal(store.sessions(), [], 'sessions')
    check_whole(site)


def split(site: Site) -> None:
    """A part of its memory is elsewhere, libvirt none the wiser; gathered"""
    limit(site)
    first, second, third = site.hosts
    store = MemoryHost(site, third)
    before = hardware(site.xml(first))
    check_equal(first.run(*sized(RECIPES['split'])).strip(), '',
                'what the recipe prints')
    check_moved(site, before, False)
    check_split(site, second, store)
    check('tcp:host3:7001: up' in second.run(*recipe('split-watch')),
          'what the human monitor says')
    for _ in range(2):
        check_whole(site)

    for words in (('migrate', '--live', DOMAIN, 'qemu+tls://host1/system'),
                  ('save', DOMAIN, '/run/guest1.saved')):
        said = second.run('virsh', *words, check=False)
        check('bring it home' in said, f'virsh {words[0]}: {said}')
        check(site.state(second).startswith('running'), 'it runs on')

    check_equal(second.run(*sized(RECIPES['split-resize'])).strip(), '',
                'what the recipe prints')
    have = site.qmp(second, 'query-remote-memory')
    check_equal(have['main-memory'], SIZES['=6G'] << 20, 'main-memory')
    check_whole(site)
    gather(site, second, store)


split.load = scenario.LIGHT                 # type: ignore[attr-defined]
split.hosts = 3                             # type: ignore[attr-defined]


def two(site: Site) -> None:
    """Two memory hosts; aborted, which leaves nothing there, then done"""
    first, second = site.hosts[:2]
    stores = [MemoryHost(site, host) for host in site.hosts[2:]]
    before = hardware(site.xml(first))
    # So slow that it cannot be over before it is aborted
    first.run('virsh', 'migrate-setspeed', DOMAIN, '4')
    process = first.begin(*sized(RECIPES['split-two']))
    for store in stores:
        site.wait('session', lambda ask=store: ask.sessions(),
                  process)
    site.wait('figures of the job', lambda: 'Memory remaining' in first.run(
        *recipe('jobinfo')), process)
    first.run(*recipe('abort'))
    said, status = site.finish(process)
    check(status != 0 and 'cancel' in said,
          f'the aborted migration says: {said}')
    check_stayed(site, {'mode': 'precopy'})
    for store in stores:
        site.wait('end of the session', lambda ask=store: not ask.sessions())

    limit(site)
    check_equal(first.run(*sized(RECIPES['split-two'])).strip(), '',
                'what the recipe prints')
    check_moved(site, before, False)
    have = check_split(site, second, *stores)
    for host in have['hosts']:
        check(host['stored'] > 0, f'nothing is stored: {host}')
    check_whole(site)
    gather(site, second, *stores)


two.load = scenario.LIGHT                   # type: ignore[attr-defined]
two.hosts = 4                               # type: ignore[attr-defined]


def link_broken(site: Site, main: Host, other: Host) -> None:
    """The memory host is not to be reached for a time"""
    def state() -> Dict[str, Any]:
        found: Dict[str, Any] = site.qmp(main, 'query-remote-memory')
        return found['hosts'][0]            # type: ignore[no-any-return]

    wrong: List[int] = []
    reads = threading.Thread(
        target=lambda: wrong.append(site.guest.verify().total))
    other.run('ip', 'link', 'set', 'eth0', 'down')
    # Wants pages that are there
    reads.start()
    try:
        site.wait('broken link', lambda: state()['state'] != 'up')
    finally:
        other.run('ip', 'link', 'set', 'eth0', 'up')
        reads.join()
    site.wait('link', lambda: state()['state'] == 'up')
    check(state()['reconnects'] > 0, f'it was never broken: {state()}')
    check_equal(wrong, [0], 'pages found wrong')


def encrypted(site: Site) -> None:
    """All links use what libvirt makes for --tls, long after it removed it"""
    limit(site)
    first, second, third = site.hosts
    store = MemoryHost(site, third, 'memory-host-tls')
    check('sessions' not in store.ask('--tls-hostname', 'host3'),
          'the memory host speaks to whoever comes without TLS')
    before = hardware(site.xml(first))
    # What libvirt makes of a user's own
    site.qmp(first, 'object-add', id='mine', dir='/etc/pki/qemu',
             endpoint='client', **{'qom-type': 'tls-creds-x509'})
    site.qmp(first, 'migrate-set-parameters', **{'tls-creds': 'mine'})
    said = first.run(*sized(RECIPES['split-tls'].replace(' --tls', '')),
                     check=False)
    check('asks for TLS' in said, f'without --tls: {said}')
    check_equal(site.qmp(first, 'query-migrate-parameters')['tls-creds'],
                'mine', 'tls-creds, once it has failed')
    check_stayed(site, {'mode': 'precopy'})

    check_equal(first.run(*sized(RECIPES['split-tls'])).strip(), '',
                'what the recipe prints')
    check_moved(site, before, False)
    check_split(site, second, store)
    have = site.qmp(second, 'query-migrate-parameters')
    check_equal(have['tls-creds'], '', 'tls-creds at the destination')
    listed = site.qmp(second, 'qom-list', path='/objects')
    check(not [one for one in listed if 'tls' in one['name']],
          f'libvirt left its credentials: {listed}')
    link_broken(site, second, third)
    gather(site, second, store)


encrypted.load = scenario.LIGHT             # type: ignore[attr-defined]
encrypted.hosts = 3                         # type: ignore[attr-defined]

add_cases(tap, (
    ('split memory, resized and gathered', split, ('installed',)),
    ('split memory, encrypted', encrypted, ('installed',)),
    ('split memory, two memory hosts', two, ('installed',)),
))


if __name__ == '__main__':
    sys.exit(tap.main())
