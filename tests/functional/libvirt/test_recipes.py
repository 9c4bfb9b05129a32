#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 1500
"""
The recipes for libvirt do what they say, each run as the document has it

docs/devel/migration/strategies-libvirt.rst is where the commands are; here is
what must be true then: the domain runs on the right host with the definition
that it had, libvirt's events and figures tell so, and the guest finds all of
its memory.  The same with Debian 12's libvirt and that of its backports.
"""

from pathlib import Path
import re
import sys
from typing import Callable, Dict, List
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from lib import libvirt, paths, scenario  # noqa: E402
from lib.guest import Load  # noqa: E402
from lib.hosts import Host  # noqa: E402
from lib.libvirt import DOMAIN, Libvirt, Site  # noqa: E402
from lib.tap import Tap, check, check_equal, note  # noqa: E402

tap = Tap()

DOCUMENT = paths.REPO / 'docs/devel/migration/strategies-libvirt.rst'
Versions = Callable[[], Libvirt]


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


def site_of(version: Versions, load: Load) -> Site:
    """Two hosts, and a link that the test guests are made for"""
    return Site(version(), scenario.our_binary(), load, scenario.MEMORY)


def limit(site: Site) -> None:
    """As domains have it that share a network"""
    site.hosts[0].run('virsh', 'migrate-setspeed', DOMAIN,
                      str(scenario.BANDWIDTH))


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


def check_job(site: Site, postcopy: bool, delta: bool) -> None:
    """libvirt's figures are sane; it forgets them once they are read"""
    job = site.job(site.hosts[0], '--completed')
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
                left: str = 'shut off (migrated)',
                delta: bool = False) -> None:
    """It runs on the second host, unharmed and unchanged"""
    first, second = site.hosts[:2]
    check_equal(site.state(second), 'running (migrated)', 'at host2')
    check_equal(site.state(first), left, 'at host1')
    check_equal(hardware(site.xml(second)), before, 'definition')
    site.is_on(second)
    site.guest.wait_beats(2)
    check_equal(site.guest.verify().total, 0,
                f'pages found wrong: {site.guest.wrong_lines}')
    site.wait('event that it left',
              lambda: 'Stopped Migrated' in events(first))
    want = 'Resumed Post-copy' if postcopy else 'Resumed Migrated'
    site.wait(f'event "{want}"', lambda: want in events(second))
    check_equal(events(second)[0], 'Started Migrated', 'first event at host2')
    check_equal('Suspended Post-copy' in events(first), postcopy,
                f'switched to post-copy, by {events(first)}')
    if left == 'shut off (migrated)':
        check_job(site, postcopy, delta)


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
        before = hardware(site.xml(site.hosts[0]))
        # The human monitor's errors are no failures of virsh.
        check_equal(site.hosts[0].run(*recipe(name)).strip(), '',
                    'what the recipe prints')
        check_moved(site, before, postcopy, delta=name == 'delta')
    run.load = load                         # type: ignore[attr-defined]
    return run


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
    said = process.communicate()[0]
    check(process.returncode != 0 and 'cancel' in said,
          f'the aborted migration says: {said}')
    check_stayed(site, {'mode': 'auto'})

    limit(site)
    process = first.begin(*recipe('auto'))
    check_equal((process.communicate()[0].strip(), process.returncode),
                ('', 0), 'virsh migrate')
    check_moved(site, before, True)


auto.load = scenario.HEAVY                  # type: ignore[attr-defined]


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
    check_equal(first.run(*recipe('demand-finish')).strip(), '',
                'what the recipe prints')
    said = process.communicate()[0]
    check_equal(process.returncode, 0, f'virsh migrate says: {said}')
    check_moved(site, before, True)


demand.load = scenario.IDLE                 # type: ignore[attr-defined]


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
            process.communicate()
    check_stayed(site, strategy)


overwritten.load = scenario.IDLE            # type: ignore[attr-defined]

CASES = (
    # Title, what is done, also in the short form with which libvirt
    ('auto: refused without --postcopy, aborted, done', auto,
     ('installed', 'backported')),
    ('hybrid', moves('hybrid', scenario.HEAVY, True), ()),
    ('postcopy', moves('postcopy', scenario.HEAVY, True), ('installed',)),
    ('only what the guest uses, then the rest', demand, ()),
    ('encrypted', moves('tls', scenario.HEAVY, True), ('installed',)),
    ('delta', moves('delta', scenario.SPARSE, False), ('installed',)),
    ('the definition moves, too', persistent, ()),
    ('what is set past libvirt is kept or cleared', overwritten,
     ('installed',)),
    ('no strategy', moves('plain', scenario.IDLE, False), ()),
    ('no strategy, post-copy after pre-copy',
     moves('after-precopy', scenario.HEAVY, True), ()),
)


def add(title: str, run: Callable[[Site], None], version: Versions,
        full: bool) -> None:
    """The test of a case with one libvirt"""
    def test() -> None:
        load: Load = run.load               # type: ignore[attr-defined]
        with site_of(version, load) as site:
            note(f'libvirt {site.version()}')
            run(site)
    tap.add(f'{title} ({version.__name__} libvirt)', test, full)


@tap.test('every recipe of the document is run by one of these tests')
def all_run() -> None:
    here = Path(__file__).read_text('utf-8')
    check(len(RECIPES) > 10, f'recipes: {sorted(RECIPES)}')
    check_equal(DOCUMENT.read_text('utf-8').count('code-block:: shell'),
                len(RECIPES), 'blocks of shell commands')
    for name in RECIPES:
        check(f"recipe('{name}')" in here or f"moves('{name}'" in here,
              f'recipe {name} is not run')


for version_of in (libvirt.installed, libvirt.backported):
    for case_title, case_run, short in CASES:
        add(case_title, case_run, version_of,
            version_of.__name__ not in short)


if __name__ == '__main__':
    sys.exit(tap.main())
