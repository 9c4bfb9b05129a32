# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hit rates of the remote pager's policy, by accesses that were recorded

Simulated by the unit test test-pager-policy, with a share of the pages that
are used in memory, against the optimum (Belady's), LRU and FIFO.  The table in
docs/devel/migration/split-pager.rst.  The same on every machine.
"""

import argparse
from functools import partial
import os
from pathlib import Path
import re
import subprocess
from typing import Dict, List, Tuple

from lib import paths

from suite import Column, Curve, Figures, Results, Row, Suite, Verdict


HELP = "hit rates of the remote pager's policy, simulated"

PROGRAM = 'tests/unit/test-pager-policy'
# As the program calls what was recorded, and what it is
RECORDED = {'pack': 'tar, gzip, gunzip, diff', 'sort': 'sort',
            'unpack': 'a kernel unpacks itself'}
SHARES = (30, 50, 80)
KEYS = ('optimum', 'lru', 'fifo', 'pager')


def add_options(parser: argparse.ArgumentParser) -> None:
    """There are none"""
    del parser


def parse(output: str) -> Dict[Tuple[str, int], Dict[str, float]]:
    """What the program says of what was recorded"""
    found = {}
    ours = False
    for line in output.splitlines():
        if line.startswith('# hit rates'):
            ours = 'recorded' in line
        words = re.match(r'# (\S+) +(\d+) % +([\d. ]+)$', line)
        if words and ours:
            found[words.group(1), int(words.group(2))] = dict(
                zip(KEYS, map(float, words.group(3).split())))
    return found


def run(build: Path) -> str:
    """What the program says, that was made in @build"""
    if not (build / PROGRAM).exists():
        raise RuntimeError(f'{build / PROGRAM} does not exist: run '
                           'scripts/build')
    done = subprocess.run(
        [f'./{PROGRAM}', '--tap', '-p', '/pager/policy/recorded'], cwd=build,
        check=True, text=True, stdout=subprocess.PIPE, timeout=300,
        env={**os.environ, 'G_TEST_SRCDIR': str(
            build.parent / 'tests' / 'unit')})
    return done.stdout


def measure(trace: str, share: int) -> Figures:
    """One run of it"""
    said = run(paths.BUILD / 'qemu-src' / 'build')
    rates = parse(said).get((trace, share))
    if not rates:
        raise RuntimeError(f'no hit rates of {trace} in: {said}')
    return {**rates, 'share': share,
            'misses': (1 - rates['pager']) / (1 - rates['lru'])}


def name_of(trace: str, share: int) -> str:
    """Of a row"""
    return f'{RECORDED[trace]}, {share} % local'


def _ahead(results: Results, row: str) -> Verdict:
    ratio = results.ratio(row, row, 'pager', 'fifo')
    return Verdict(f'{row}: hits at least as often as FIFO',
                   None if ratio is None else ratio >= 1,
                   'not measured' if ratio is None else f'{ratio:.3f} x',
                   (row,))


def make(options: argparse.Namespace) -> Suite:
    """A row for each recording and share"""
    del options
    chosen = [(trace, share) for trace in RECORDED for share in SHARES]

    def judge(results: Results) -> List[Verdict]:
        return [_ahead(results, name_of(*which)) for which in chosen]

    return Suite(
        'hitrates',
        [Row(name_of(*which), partial(measure, *which)) for which in chosen],
        [*(Column(key, 'LRU' if key == 'lru' else 'FIFO' if key == 'fifo'
                  else key, '{:.3f}'.format) for key in KEYS),
         Column('misses', 'misses, of those of LRU', '{:.2f} x'.format)],
        judge,
        notes=['Hits by accesses, of which many are the first of their page; '
               'a staging area of a sixteenth, no prefetch.'],
        plots=[Curve('pager', f'Hit rate, {what}', 'of accesses', 1, what,
                     x='share', groups=[what], ideal='optimum')
               for what in RECORDED.values()])
