# SPDX-License-Identifier: GPL-2.0-or-later
"""
The recipes for libvirt, as the document has them, and what they lead to

docs/devel/migration/strategies-libvirt.rst is where the commands are; here is
what must be true then: the domain runs on the right host with the definition
that it had, libvirt's events and figures tell so, and the guest finds all of
its memory.
"""

import re
from typing import Callable, Dict, Iterable, List, Optional, Tuple
import xml.etree.ElementTree as ElementTree

from . import libvirt, paths, scenario
from .guest import Load
from .hosts import Host
from .libvirt import DOMAIN, Libvirt, Site
from .tap import Tap, check, check_equal, note


DOCUMENT = paths.REPO / 'docs/devel/migration/strategies-libvirt.rst'
Versions = Callable[[], Libvirt]
Case = Callable[[Site], None]
# Title, what is done, also in the short form with which libvirt
Cases = Iterable[Tuple[str, Case, Tuple[str, ...]]]


def recipes() -> Dict[str, str]:
    """The shell commands of the document by their names"""
    text = DOCUMENT.read_text('utf-8')
    return {name: re.sub(r'^  ', '', block, flags=re.M)
            for name, block in re.findall(
                r'^\.\. test: (\S+)\n\.\. code-block:: shell\n\n'
                r'((?:  .*\n)+)', text, re.M)}


RECIPES = recipes()


def recipe(name: str) -> List[str]:
    """A command that runs it"""
    return ['bash', '-e', '-u', '-c', RECIPES[name]]


def site_of(version: Versions, run: Callable[[Site], None]) -> Site:
    """As many hosts as the case wants, and its guest on the first of them"""
    load: Load = run.load                   # type: ignore[attr-defined]
    return Site(version(), scenario.our_binary(), load, scenario.MEMORY,
                getattr(run, 'hosts', 2), getattr(run, 'user', 'root'),
                getattr(run, 'install', lambda host: None))


def limit(site: Site) -> None:
    """As domains have it that share a network"""
    site.hosts[0].run('virsh', 'migrate-setspeed', DOMAIN,
                      str(scenario.BANDWIDTH))


def nothing_fits(site: Site, host: Host, with_strategy: bool = True) -> None:
    """
    Not even what a heavy guest dirties where the machine is busy

    Without a strategy, QEMU does not look for what is dirty with a limit of 0.
    """
    site.qmp(host, 'migrate-set-parameters',
             **{'downtime-limit': 0 if with_strategy else 1})


def hardware(definition: ElementTree.Element) -> str:
    """What of a definition must not change on the way"""
    definition.attrib.pop('id', None)
    for parent in list(definition.iter()):
        for child in list(parent):
            if child.tag in ('alias', 'seclabel', 'resource'):
                parent.remove(child)
    return ElementTree.canonicalize(
        ElementTree.tostring(definition, encoding='unicode'),
        strip_text=True)


def events(host: Host) -> List[str]:
    """The domain's lifecycle on @host"""
    return re.findall(r"event 'lifecycle' for domain '?\S*?'?: (.*)",
                      host.log('events'))


def number(job: Dict[str, str], name: str) -> float:
    """A figure of domjobinfo"""
    check(name in job, f'domjobinfo has no "{name}": {job}')
    return float(job[name].split()[0])


def check_job(site: Site, host: Host, postcopy: bool, delta: bool) -> None:
    """libvirt's figures are sane; it forgets them once they are read"""
    job = site.job(host, '--completed')
    note(str(job))
    check_equal(job.get('Job type'), 'Completed', 'job type')
    check_equal(job.get('Operation'), 'Outgoing migration', 'operation')
    check(job['Memory processed'].endswith('MiB')
          and number(job, 'Memory processed') > scenario.FILL,
          f'less memory than the guest filled: {job}')
    check(number(job, 'Memory total') >= scenario.MEMORY,
          f'less memory than the guest has: {job}')
    check_equal(number(job, 'Memory remaining'), 0, 'memory that remains')
    # A switch to post-copy can take less than 1 ms, which virsh leaves out
    if not postcopy or 'Total downtime' in job:
        check(0 <= number(job, 'Total downtime')
              <= number(job, 'Time elapsed'), f'downtime: {job}')
    if not postcopy:
        check_equal(number(job, 'Postcopy requests'), 0, 'page requests')
    check_equal('Compression cache' in job, delta, 'delta was used')


def check_moved(site: Site, before: str, postcopy: bool,
                left: str = 'shut off (migrated)', delta: bool = False,
                hosts: Optional[Tuple[Host, Host]] = None) -> None:
    """
    It runs on the second host, unharmed and unchanged

    @hosts: where it was and where it went, if not the first two
    """
    first, second = hosts or site.hosts[:2]
    check_equal(site.state(second), 'running (migrated)', second.name)
    check_equal(site.state(first), left, first.name)
    check_equal(hardware(site.xml(second)), before, 'definition')
    site.is_on(second)
    site.guest.wait_beats(2)
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')
    site.wait('event that it left',
              lambda: 'Stopped Migrated' in events(first))
    want = 'Resumed Post-copy' if postcopy else 'Resumed Migrated'
    site.wait(f'event "{want}"', lambda: want in events(second))
    check_equal(events(second)[0], 'Started Migrated', 'first event there')
    check_equal('Suspended Post-copy' in events(first), postcopy,
                f'switched to post-copy, by {events(first)}')
    if left == 'shut off (migrated)':
        check_job(site, first, postcopy, delta)


def check_stayed(site: Site, strategy: Dict[str, object]) -> None:
    """It runs where it did, unharmed, and still has its strategy"""
    first, second = site.hosts[:2]
    check_equal(site.state(first), 'running (booted)', 'at host1')
    site.wait('end of the domain at host2',
              lambda: site.state(second) == 'none')
    have = site.qmp(first, 'query-migrate-parameters')['strategy']
    check_equal({name: have[name] for name in strategy}, strategy, 'strategy')
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')


def moves(name: str, load: Load, postcopy: bool) -> Callable[[Site], None]:
    """A recipe after which the domain is at the second host"""
    def run(site: Site) -> None:
        limit(site)
        if load is scenario.HEAVY:
            nothing_fits(site, site.hosts[0], name != 'after-precopy')
        before = hardware(site.xml(site.hosts[0]))
        # The human monitor's errors are no failures of virsh.
        check_equal(site.hosts[0].run(*recipe(name)).strip(), '',
                    'what the recipe prints')
        check_moved(site, before, postcopy, delta=name == 'delta')
    run.load = load                         # type: ignore[attr-defined]
    return run


def _add(tap: Tap, title: str, run: Case, version: Versions,
         full: bool) -> None:
    """The test of a case with one libvirt"""
    def test() -> None:
        with site_of(version, run) as site:
            note(f'libvirt {site.version()}')
            run(site)
    tap.add(f'{title} ({version.__name__} libvirt)', test, full)


def add_cases(tap: Tap, cases: Cases) -> None:
    """Each with the release's libvirt and that of its backports"""
    for version in (libvirt.installed, libvirt.backported):
        for title, run, short in cases:
            _add(tap, title, run, version, version.__name__ not in short)
