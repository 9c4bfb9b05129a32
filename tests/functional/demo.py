#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Boot a Linux guest and live-migrate it once per strategy; see scripts/demo
"""

import argparse
from dataclasses import replace
import sys
from typing import List, NamedTuple, Tuple

from lib import accel, binary, debian, image, machines, table
from lib.guest import GuestError, Load
from lib.migration import MIB, Migration, MigrationError, Record, Settings
from lib.progress import Progress
from lib.strategy import Strategy
from lib.vm import ExecuteError, QEMUMachineError, VM


# Where pre-copy does not converge, this many passes show it
HOPELESS_PASSES = 6


class Act(NamedTuple):
    """One migration of the demo"""
    busy: bool
    settings: Settings
    must_complete: bool = True


POSTCOPY = ['postcopy-ram']
ACTS = (
    Act(False, Settings('precopy', Strategy('precopy'))),
    Act(False, Settings('auto', Strategy('auto'), POSTCOPY)),
    Act(True, Settings('precopy', Strategy('precopy'),
                       max_passes=HOPELESS_PASSES), must_complete=False),
    Act(True, Settings('postcopy', Strategy('postcopy'), POSTCOPY)),
    Act(True, Settings('hybrid', Strategy('hybrid', passes=1), POSTCOPY)),
    Act(True, Settings('auto', Strategy('auto'), POSTCOPY)),
    # With a bound too: it depends on the load whether it converges.
    Act(True, Settings('delta', Strategy('precopy'), ['xbzrle'],
                       {'xbzrle-cache-size': 0}, max_passes=40)),
)
NAMES = tuple(dict.fromkeys(act.settings.name for act in ACTS))
HEAD = ('strategy', 'guest', 'completed', 'total', 'downtime', 'sent',
        'passes', 'to post-copy', 'requests', 'stall', 'wrong pages')


def parse(arguments: List[str]) -> argparse.Namespace:
    """The command line; scripts/demo documents it"""
    parser = argparse.ArgumentParser(prog='scripts/demo', add_help=False)
    parser.add_argument('--memory', type=int, default=512)
    parser.add_argument('--working-set', type=int, default=128)
    parser.add_argument('--bandwidth', type=int, default=64)
    parser.add_argument('--write-rate', type=int)
    parser.add_argument('--strategies', default=','.join(NAMES))
    options = parser.parse_args(arguments)
    options.chosen = options.strategies.split(',')
    for name in options.chosen:
        if name not in NAMES:
            parser.error(f'no strategy "{name}"; there are {", ".join(NAMES)}')
    if options.memory < 128 or options.bandwidth < 1 or (
            not 0 < options.working_set < options.memory):
        parser.error('memory from 128 MiB on, a bandwidth from 1 MiB/s on, a '
                     'working set smaller than the memory')
    if options.write_rate is None:
        # More than the link can carry
        options.write_rate = options.bandwidth * 3 // 2
    return options


def _figure(value: object, form: str, unit: str) -> str:
    return '-' if value is None else f'{value:{form}}{unit}'


def row(act: Act, record: Record) -> Tuple[str, ...]:
    """One line of the table"""
    switch = 'no'
    if record.switched:
        switch = ('at ' + _figure(None if record.switch_ms is None else
                                  record.switch_ms / 1000, '.1f', ' s')
                  + f', {record.switch_reason}')
    return (
        record.name, 'busy' if act.busy else 'idle',
        'yes' if record.completed else 'no',
        _figure(None if record.total_ms is None else
                record.total_ms / 1000, '.1f', ' s'),
        _figure(record.downtime_ms, '.0f', ' ms'),
        f'{record.bytes // MIB} MiB', _figure(record.passes, 'd', ''), switch,
        str(record.requests), _figure(record.stall_ms, '.0f', ' ms'),
        _figure(record.wrong_pages, 'd', ''))


def perform(options: argparse.Namespace, show: Progress
            ) -> List[Tuple[Act, Record]]:
    """Do all migrations, one guest from the first to the last"""
    done: List[Tuple[Act, Record]] = []
    load = Load(ws=options.working_set, rate=options.write_rate, write=64,
                load=0)
    show.begin('guest')
    with machines.Machines(binary.ours(), load, options.memory) as room:
        home: VM = room.start()
        under = {'kvm': 'under KVM', 'tcg': 'under TCG'}[room.accel]
        show.end(f'Linux is up {under}' + (
            f' (KVM cannot be used: {accel.reason()})'
            if room.accel == 'tcg' and accel.reason() else ''))
        for act in ACTS:
            if act.settings.name not in options.chosen:
                continue
            settings = replace(act.settings, bandwidth=options.bandwidth)
            show.begin(f'{settings.name}, '
                       f'{"busy" if act.busy else "idle"} guest')
            room.guest.set(load=int(act.busy))
            there = room.expect()
            record = Migration(home, there, room.guest, settings).run(
                show.migration)
            show.end(f'{record.outcome}; the guest found '
                     f'{record.wrong_pages} pages wrong')
            done.append((act, record))
            if record.completed:
                room.end(home)
                home = there
            else:
                room.end(there)
    return done


def report(options: argparse.Namespace,
           done: List[Tuple[Act, Record]]) -> bool:
    """Print the table and what is to be said of it; whether all is well"""
    print(f'\nA guest of {options.memory} MiB; when busy it dirties '
          f'{options.write_rate} MiB/s of {options.working_set} MiB.  '
          f'The link carries {options.bandwidth} MiB/s.\n')
    print(table.render(HEAD, [row(*entry) for entry in done], left=2))
    print('\nstall: the longest time that the guest stood still; '
          'requests: pages that it had to ask for.\n')
    well = True
    for act, record in done:
        title = f'{record.name}, {"busy" if act.busy else "idle"} guest'
        if not record.completed:
            print(f'{title}: {record.outcome}; the guest went on where it '
                  'was')
            well = well and not act.must_complete
        elif record.sentence:
            print(f'{title}: {record.sentence}')
    wrong = max((record.wrong_pages or 0 for _, record in done), default=0)
    if wrong:
        print(f'\n{wrong} PAGES WERE WRONG')
    return well and not wrong


def main() -> int:
    """Exit status: 0 when all migrations that can complete did, unharmed"""
    options = parse(sys.argv[1:])
    try:
        done = perform(options, Progress())
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130
    except (binary.NoBinary, debian.DebianError, image.ImageError,
            ExecuteError, GuestError, MigrationError,
            QEMUMachineError) as exc:
        print(f'\nscripts/demo: {exc}', file=sys.stderr)
        return 1
    return 0 if report(options, done) else 1


if __name__ == '__main__':
    sys.exit(main())
