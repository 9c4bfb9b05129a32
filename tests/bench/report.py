# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a run of benchmarks leaves: a folder with all that is to be known of it

    result.json   the machine, the commit, every figure of every run
    table.txt     the same for people: medians and spread, marks, what failed
    *.svg         plots, where python3-matplotlib is installed

A folder is one run.  Figures of two are never put beside each other.
"""

import json
import os
from pathlib import Path
import subprocess
import time
from typing import Any, Dict, List
import uuid

from lib import paths, table

import host
from suite import Column, Outcome, Result, Suite


HERE = Path(__file__).resolve().parent
PYTHON = '/usr/bin/python3'
MARKS = {True: 'reached', False: 'NOT REACHED', None: 'not measured'}


def _cell(column: Column, result: Result) -> str:
    value = result.median(column.key)
    if value is None:
        return '-'
    spread = result.spread(column.key)
    # What never varied needs no remark.
    return column.form(value) + (f' ±{spread:.0%}' if spread else '')


def render(suite: Suite, outcome: Outcome) -> str:
    """The table with what is to be said of it"""
    rows = []
    for name, result in outcome.results.items():
        if not result.runs:
            continue
        done = str(len(result.runs))
        if any('completed' in run for run in result.runs):
            done = f'{result.count("completed")}/{done}'
        rows.append([name, done,
                     *(_cell(column, result) for column in suite.columns)])
    # A column that nothing has a figure for says nothing.
    head = ['row', 'runs', *(column.head for column in suite.columns)]
    used = [n for n in range(len(head))
            if n < 2 or any(row[n] != '-' for row in rows)]
    lines = [table.render([head[n] for n in used],
                          [[row[n] for n in used] for row in rows]), '',
             *suite.notes, '']
    verdicts = suite.judge(outcome.results)
    lines += [f'{MARKS[verdict.reached]}: {verdict.claim} '
              f'({verdict.measured})' for verdict in verdicts]
    lines += _noise(outcome)
    lines += [f'skipped: {name}: {why}'
              for name, why in outcome.unavailable.items()]
    lines += [f'SPOILED: {text}' for text in outcome.spoiled]
    lines += [f'FAILED: {text}' for text in outcome.failed]
    return '\n'.join(lines) + '\n'


def _noise(outcome: Outcome) -> List[str]:
    """A word of warning when others were at work"""
    cpus = len(os.sched_getaffinity(0))
    loads = [load for result in outcome.results.values()
             for load in result.values('load_average')]
    most = max(loads, default=0)
    # What was measured before a row is itself a load of about 1.
    if most <= max(cpus, 1.5):
        return []
    return [f'NOISY: the load average before a row was up to {most:.1f} on '
            f'{cpus} CPUs: times are not to be trusted']


def _figures(suite: Suite, result: Result) -> Dict[str, Any]:
    keys = [column.key for column in suite.columns]
    return {'runs': result.runs,
            'median': {key: result.median(key) for key in keys},
            'spread': {key: result.spread(key) for key in keys}}


class Folder:
    """The folder of one run, of one suite or of several"""

    def __init__(self, name: str, runs: int, command: List[str]):
        self.path = self._new(name)
        self.about: Dict[str, Any] = {
            'run': str(uuid.uuid4()), 'runs of each row': runs,
            'command': command, **host.describe()}
        self._suites: Dict[str, Dict[str, Any]] = {}
        self._tables: Dict[str, str] = {}
        self._binaries: Dict[str, Dict[str, Dict[str, str]]] = {}

    @staticmethod
    def _new(name: str) -> Path:
        wanted = paths.BUILD / 'bench' / time.strftime(
            f'{name}-%Y%m%d-%H%M%S')
        number, path = 1, wanted
        while True:
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                number += 1
                path = wanted.with_name(f'{wanted.name}-{number}')

    def title(self) -> str:
        """What was measured, and on what"""
        about = self.about
        dirty = ' with uncommitted changes' if about['uncommitted changes'] \
            else ''
        load = ', '.join(f'{value:.2f}'
                         for value in about['load average at start'])
        return (f'{about["cpu"]}, {about["cpus"]} CPUs, {about["memory"]}, '
                f'{about["system"]}, Linux {about["kernel"]}\n'
                f'Load average at the start {load}; commit '
                f'{about["commit"]}{dirty}\n'
                f'Medians of {about["runs of each row"]}, ± half of the '
                'distance from the least to the greatest\n')

    def save(self, suite: Suite, outcome: Outcome) -> None:
        """Write what there is of @suite by now"""
        if suite.name not in self._binaries:
            self._binaries[suite.name] = {
                used.name: used.describe() for used in suite.binaries}
        binaries = self._binaries[suite.name]
        self._suites[suite.name] = {
            'about': {**suite.about, 'binaries': binaries},
            'rows': {name: _figures(suite, result)
                     for name, result in outcome.results.items()},
            'verdicts': [vars(verdict)
                         for verdict in suite.judge(outcome.results)],
            'notes': list(suite.notes),
            'plots': [plot.spec() for plot in suite.plots],
            'unavailable': outcome.unavailable,
            'spoiled': outcome.spoiled, 'failed': outcome.failed}
        self._tables[suite.name] = ''.join(
            f'{name}: {which["version"]}, built {which["built"]}, sha256 '
            f'{which["sha256"][:16]}\n' for name, which in binaries.items()
        ) + '\n' * bool(binaries) + render(suite, outcome)
        self._write()

    def cannot(self, name: str, why: str) -> None:
        """Suite @name could not even begin"""
        self._suites[name] = {'failed': [why]}
        self._tables[name] = f'FAILED: {why}\n'
        self._write()

    def _write(self) -> None:
        content = {'about': self.about, 'suites': self._suites}
        (self.path / 'result.json').write_text(
            json.dumps(content, indent=1) + '\n', 'utf-8')
        (self.path / 'table.txt').write_text(self.text(), 'utf-8')

    def text(self) -> str:
        """All tables"""
        return self.title() + ''.join(
            f'\n== {name}\n\n{text}' for name, text in self._tables.items())


def draw(folder: Path) -> str:
    """Make the plots of @folder; why there are none, empty when there are"""
    done = subprocess.run(
        [PYTHON, str(HERE / 'plots.py'), str(folder / 'result.json')],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False)
    return '' if done.returncode == 0 else \
        (done.stdout.strip().splitlines() or ['no reason given'])[-1]


def show(folder: Path) -> int:
    """Print the table of an earlier run, and draw its plots anew"""
    if not (folder / 'result.json').is_file():
        raise RuntimeError(f'{folder} is no folder of scripts/bench')
    print((folder / 'table.txt').read_text('utf-8'), end='')
    why = draw(folder)
    print(f'\nNo plots: {why}' if why else f'\nPlots in {folder}')
    return 0
