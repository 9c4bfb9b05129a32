#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The recipes for libvirt do what they say, each run as the document has it

lib/recipes.py has what must be true then.  The same with Debian 12's libvirt
and that of its backports.
"""

from contextlib import ExitStack, contextmanager
import fcntl
import json
from pathlib import Path
import re
import signal
import sys
from typing import Callable, Iterator, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from lib import libvirt, scenario  # noqa: E402
from lib.hosts import Host  # noqa: E402
from lib.libvirt import DOMAIN, Site  # noqa: E402
from lib.recipes import (DOCUMENT, RECIPES, add_cases,  # noqa: E402
                         check_moved, check_stayed, events, hardware, limit,
                         moves, nothing_fits, number, recipe)
from lib.tap import Skip, Tap, check, check_equal, note  # noqa: E402

tap = Tap()

# Of the whole machine, hosts are not told apart in it
USERFAULTFD = Path('/proc/sys/vm/unprivileged_userfaultfd')


def says(site: Site, text: str) -> Callable[[], bool]:
    """A test that the recipe for watching shows @text"""
    return lambda: text in site.hosts[0].run(*recipe('watch'), check=False)


def auto(site: Site) -> None:
    """Refused without the flag, aborted, and then for good"""
    limit(site)
    first = site.hosts[0]
    check('"mode":"precopy"' in first.run(*recipe('there')),
          'the parameter is not there')
    before = hardware(site.xml(first))

    # The recipe but for the flag that permits post-copy
    said = first.run('bash', '-c',
                     RECIPES['auto'].replace(' --postcopy', ''), check=False)
    check('the postcopy-ram capability is off' in said,
          f'the refusal says: {said}')
    check_stayed(site, {'mode': 'auto'})

    # So slow that it cannot be over before it is aborted
    first.run('virsh', 'migrate-setspeed', DOMAIN, '4')
    process = first.begin(*recipe('auto'))
    site.wait('sentence of the strategy', says(site, 'strategy: auto'),
              process)
    site.wait('figures of the job', lambda: 'Memory remaining' in first.run(
        *recipe('jobinfo')), process)
    job = site.job(first)
    check_equal(job.get('Operation'), 'Outgoing migration', 'operation')
    check(number(job, 'Memory total') >= scenario.MEMORY,
          f'memory in {job}')
    first.run(*recipe('abort'))
    said, status = site.finish(process)
    check(status != 0 and 'cancel' in said,
          f'the aborted migration says: {said}')
    check_stayed(site, {'mode': 'auto'})

    limit(site)
    nothing_fits(site, first)
    process = first.begin(*recipe('auto'))
    check_equal(site.finish(process), ('', 0), 'virsh migrate')
    check_moved(site, before, True)


auto.load = scenario.HEAVY                  # type: ignore[attr-defined]


def install(host: Host) -> None:
    """As the document says, from where the binary under test is"""
    beside = scenario.our_binary().path.parent
    host.run('bash', '-e', '-u', '-c',
             RECIPES['install'].replace('build/bin', str(beside)))


@contextmanager
def as_found() -> Iterator[None]:
    """
    What the sysctl was before is what it is afterwards, also if this is ended

    One run at a time: a second would find what the first has set.
    """
    def ended(number: int, _frame: object) -> None:
        USERFAULTFD.write_text(found, 'ascii')
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    with ExitStack() as stack:
        try:
            locked = stack.enter_context(open(USERFAULTFD, encoding='ascii'))
            fcntl.flock(locked, fcntl.LOCK_EX)
            found = locked.read()
            stack.callback(signal.signal, signal.SIGTERM,
                           signal.signal(signal.SIGTERM, ended))
            USERFAULTFD.write_text('0', 'ascii')
        except OSError as exc:
            raise Skip(f'{USERFAULTFD} cannot be set here: {exc}') from exc
        stack.callback(USERFAULTFD.write_text, found, 'ascii')
        yield


def unprivileged(site: Site) -> None:
    """QEMU's user has no leave for post-copy, then it is given"""
    limit(site)
    first, second = site.hosts
    nothing_fits(site, first)
    before = hardware(site.xml(first))
    check_equal(site.user(first), libvirt.USER, 'who runs QEMU')
    with as_found():
        said = first.run(*recipe('auto'), check=False)
        note(said.strip())
        check('Userfaultfd not available' in said, f'without leave: {said}')
        check_stayed(site, {'mode': 'auto'})
        for host in (first, second):
            host.run(*recipe('userfaultfd'))
        check_equal(first.run(*recipe('auto')).strip(), '',
                    'what the recipe prints')
        check_moved(site, before, True)
        check_equal(site.user(second), libvirt.USER, 'who runs QEMU there')


unprivileged.load = scenario.HEAVY          # type: ignore[attr-defined]
unprivileged.user = libvirt.USER            # type: ignore[attr-defined]
unprivileged.install = install              # type: ignore[attr-defined]


def demand(site: Site) -> None:
    """It does not end until it is told to, and runs at the other host"""
    first, second = site.hosts[:2]
    before = hardware(site.xml(first))
    process = first.begin(*recipe('demand'))
    site.wait('event of the switch',
              lambda: 'Resumed Post-copy' in events(second), process)
    site.is_on(second)
    site.guest.wait_beats(10)
    check(process.poll() is None, 'it ended by itself')
    said = first.run(*recipe('abort'), check=False)
    check('post-copy' in said, f'to abort it is not refused: {said}')
    check_equal(first.run(*recipe('demand-finish')).strip(), '',
                'what the recipe prints')
    said, status = site.finish(process)
    check_equal(status, 0, f'virsh migrate says: {said}')
    check_moved(site, before, True)


demand.load = scenario.IDLE                 # type: ignore[attr-defined]


def switched(site: Site) -> None:
    """No strategy: post-copy when the user says so"""
    first, second = site.hosts[:2]
    before = hardware(site.xml(first))
    # So slow that it cannot be over before it is told
    first.run('virsh', 'migrate-setspeed', DOMAIN, '4')
    process = first.begin(*recipe('own-postcopy'))
    site.wait('figures of the job', lambda: 'Memory remaining' in first.run(
        *recipe('jobinfo')), process)
    first.run(*recipe('own-switch'))
    site.wait('event of the switch',
              lambda: 'Resumed Post-copy' in events(second), process)
    first.run('virsh', 'migrate-setspeed', '--postcopy', DOMAIN,
              str(scenario.BANDWIDTH))
    check_equal(site.finish(process), ('', 0), 'virsh migrate')
    check_moved(site, before, True)


switched.load = scenario.IDLE               # type: ignore[attr-defined]


def persistent(site: Site) -> None:
    """The definition goes with the domain"""
    first, second = site.hosts[:2]
    before = hardware(site.xml(first))
    inactive = hardware(site.xml(first, '--inactive'))
    check_equal(first.run(*recipe('persistent')).strip(), '',
                'what the recipe prints')
    check_moved(site, before, False, left='none')
    listed = second.run('virsh', 'list', '--name', '--persistent')
    check_equal(listed.strip(), DOMAIN, 'persistent at host2')
    there = hardware(site.xml(second, '--inactive'))
    check_equal(there, inactive, 'persistent definition')


persistent.load = scenario.IDLE             # type: ignore[attr-defined]


def onward(site: Site) -> None:
    """From A to B, and from there to C, the recipe given again at B"""
    # Only the first has a definition of its own of what was there
    for first, second, left in zip(site.hosts, site.hosts[1:],
                                   ('shut off (migrated)', 'none')):
        first.run('virsh', 'migrate-setspeed', DOMAIN,
                  str(scenario.BANDWIDTH))
        nothing_fits(site, first)
        before = hardware(site.xml(first))
        check('"mode":"precopy"' in first.run(*recipe('there')),
              f'the strategy came along to {first.name}')
        command = RECIPES['hybrid'].replace('host2', second.name)
        check_equal(first.run('bash', '-e', '-u', '-c', command).strip(), '',
                    'what the recipe prints')
        check_moved(site, before, True, left, hosts=(first, second))


onward.load = scenario.HEAVY                # type: ignore[attr-defined]
onward.hosts = 3                            # type: ignore[attr-defined]


def by_hand(site: Site, host: Host, options: str) -> None:
    """Have a QEMU that libvirt does not know wait on @host"""
    host.write('/run/guest1.options', options)
    command = RECIPES['redirect-destination'].replace(
        '/usr/local/bin/qemu-system-x86_64', site.emulator)
    daemon = host.daemon('qemu', 'bash', '-e', '-u', '-c',
                         f'cd /run; {command}')
    site.wait('monitor', lambda: daemon.poll() is not None
              or host.seen('/run/guest1.monitor').exists())
    check_equal(daemon.poll(), None, f'QEMU on {host.name}')


def options_if_arrived(host: Host) -> str:
    """What the recipe finds if libvirt has the domain from another host"""
    process = '/proc/$(cat /run/libvirt/qemu/guest1.pid)/cmdline'
    command = RECIPES['redirect-options']
    check(process in command, f'the recipe reads something else: {command}')
    arguments = host.run('bash', '-e', '-u', '-c', f'cat {process}')
    check('\0-S\0' in arguments, f'no -S: {arguments}')
    host.write('/run/arrived', arguments.replace(
        '\0-S\0', '\0-S\0-incoming\0defer\0'))
    host.run('bash', '-e', '-u', '-c', 'cd /run; ' + command.replace(
        process, '/run/arrived').replace('> guest1.options',
                                         '> arrived.options'))
    return host.seen('/run/arrived.options').read_text('utf-8')


def half_sent(site: Site) -> bool:
    """The migration has half of what the guest filled behind it"""
    have = site.qmp(site.hosts[0], 'query-migrate')
    check(have.get('status') != 'failed', f'it failed: {have}')
    sent: int = have.get('ram', {}).get('transferred', 0)
    return sent > scenario.FILL << 19


def redirected(site: Site) -> None:
    """From host1 to host3, half-way to host2, past libvirt"""
    first, second, third = site.hosts
    first.run('bash', '-e', '-u', '-c',
              f'cd /run; {RECIPES["redirect-options"]}')
    options = first.seen('/run/guest1.options').read_text('utf-8')
    check('guest1' in options and 'charmonitor' not in options, options)
    check_equal(options_if_arrived(first), options, 'had it come from a host')
    for host in (second, third):
        by_hand(site, host, options)
    site.qmp(first, 'migrate-set-parameters', **{'max-bandwidth': 8 << 20})
    first.run(*recipe('redirect-start'))
    site.wait('half of the data', lambda: half_sent(site))
    # So slow that the order comes before the end
    site.qmp(first, 'migrate-set-parameters', **{'max-bandwidth': 1 << 20})
    check_equal(site.state(first), 'running (booted)', 'while it goes on')
    said = first.run(*recipe('redirect-order'))
    check_equal(json.loads(said).get('return'), {}, f'the order: {said}')
    site.qmp(first, 'migrate-set-parameters', **{'max-bandwidth': 1 << 30})
    site.wait('end', lambda: '"status":"completed"' in first.run(
        *recipe('redirect-status')))
    site.is_on(third)
    site.guest.wait_beats(2)
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')
    note(f'{site.state(first)}; {events(first)}; '
         f'{first.run(*recipe("redirect-status"))}')
    site.wait('libvirt to hear of it',
              lambda: site.state(first).startswith('paused'))
    for host in (second, third):
        check_equal(site.state(host), 'none', f'at {host.name}')
    first.run(*recipe('redirect-end'))
    check_equal(site.state(first), 'shut off (destroyed)', 'afterwards')
    site.guest.wait_beats(2)
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')


redirected.load = scenario.LIGHT            # type: ignore[attr-defined]
redirected.hosts = 3                        # type: ignore[attr-defined]


def not_redirected(site: Site) -> None:
    """What libvirt has started is refused, and goes where libvirt knows"""
    first = site.hosts[0]
    before = hardware(site.xml(first))
    site.qmp(first, 'migrate-set-parameters', strategy={'redirectable': True})
    first.run('virsh', 'migrate-setspeed', DOMAIN, '8')
    process = first.begin(*recipe('plain'))
    site.wait('migration to begin', lambda: site.qmp(
        first, 'query-migrate').get('status') == 'active', process)
    said = first.run(*recipe('redirect-order'))
    check('opened by somebody else' in said, f'the order: {said}')
    first.run('virsh', 'migrate-setspeed', DOMAIN, str(scenario.BANDWIDTH))
    check_equal(site.finish(process), ('', 0), 'virsh migrate')
    check_moved(site, before, False)


not_redirected.load = scenario.IDLE         # type: ignore[attr-defined]

# What the document says of things that are set past libvirt: names as
# query-migrate-parameters has them
KEPT = {'xbzrle-cache-size': 0, 'downtime-limit': 30,
        'max-postcopy-bandwidth': 10 << 20}
CLEARED = ('xbzrle', 'auto-converge', 'postcopy-ram')


def capabilities(site: Site) -> List[str]:
    """Those that are on at the first host"""
    return [entry['capability'] for entry in
            site.qmp(site.hosts[0], 'query-migrate-capabilities')
            if entry['state']]


def overwritten(site: Site) -> None:
    """What was set past libvirt, in a migration and after it was aborted"""
    first = site.hosts[0]
    strategy = {'mode': 'precopy', 'passes': 7}
    site.qmp(first, 'migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': True} for name in CLEARED])
    site.qmp(first, 'migrate-set-parameters', strategy=strategy,
             **{'max-bandwidth': 5 << 20}, **KEPT)
    first.run('virsh', 'migrate-setspeed', DOMAIN, '4')
    process = first.begin(*recipe('plain'))
    site.wait('migration to begin', lambda: site.qmp(
        first, 'query-migrate').get('status') == 'active', process)
    for when in ('during', 'after'):
        have = site.qmp(first, 'query-migrate-parameters')
        check_equal({name: have[name] for name in KEPT}, KEPT, when)
        check_equal({name: have['strategy'][name] for name in strategy},
                    strategy, f'strategy {when}')
        on = capabilities(site)
        check(not set(on) & set(CLEARED), f'capabilities {when}: {on}')
        if when == 'during':
            check_equal(have['max-bandwidth'], 4 << 20, 'max-bandwidth')
            check({'return-path', 'pause-before-switchover'} <= set(on),
                  f'capabilities: {on}')
            first.run(*recipe('abort'))
            site.finish(process)
    check_stayed(site, strategy)


overwritten.load = scenario.IDLE            # type: ignore[attr-defined]

CASES = (
    # Title, what is done, also in the short form with which libvirt
    ('auto: refused without --postcopy, aborted, done', auto,
     ('installed', 'backported')),
    ('QEMU is run by libvirt-qemu', unprivileged, ('installed',)),
    ('hybrid', moves('hybrid', scenario.HEAVY, True), ()),
    ('postcopy', moves('postcopy', scenario.HEAVY, True), ('installed',)),
    ('only what the guest uses, then the rest', demand, ()),
    ('encrypted', moves('tls', scenario.HEAVY, True), ('installed',)),
    ('delta', moves('delta', scenario.SPARSE, False), ('installed',)),
    ('the definition moves, too', persistent, ()),
    ('on to a third host', onward, ()),
    ('redirected past libvirt', redirected, ('installed',)),
    ('what libvirt has started is not redirected', not_redirected, ()),
    ('what is set past libvirt is kept or cleared', overwritten,
     ('installed',)),
    ('no strategy', moves('plain', scenario.IDLE, False), ()),
    ('no strategy, post-copy when told', switched, ('installed',)),
    ('no strategy, post-copy after pre-copy',
     moves('after-precopy', scenario.HEAVY, True), ()),
)


@tap.test('every recipe of the document is run by one of these tests')
def all_run() -> None:
    here = ''.join(path.read_text('utf-8') for path
                   in Path(__file__).parent.glob('test_*.py'))
    check(len(RECIPES) > 10, f'recipes: {sorted(RECIPES)}')
    check_equal(DOCUMENT.read_text('utf-8').count('code-block:: shell'),
                len(RECIPES), 'blocks of shell commands')
    for name in RECIPES:
        check(re.search(rf"(recipe\(|moves\(|RECIPES\[|MemoryHost\(.*|name: "
                        rf"str = )['\"]{name}['\"]", here),
              f'recipe {name} is not run')


add_cases(tap, CASES)


if __name__ == '__main__':
    sys.exit(tap.main())
