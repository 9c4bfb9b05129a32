# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a suite of benchmarks is, and how one is run

A suite is a module in this directory, named in SUITES of scripts/bench, with

    HELP                 a line for scripts/bench --help
    add_options(parser)  its own options, each with a default
    make(options)        the Suite

and a doc string that says what is measured.  A suite is data:

    def measure() -> Figures:
        '''One run: figures by their names'''
        return {'total_ms': 1234, 'completed': True,
                'throughput': [(0.0, 1.0), (0.25, 0.4)]}

    def judge(results: Results) -> List[Verdict]:
        return [results.at_most('split, idle guest', 'split', 'stock',
                                'total_ms', 1.1),
                results.every('auto completes', 'auto', 'completed')]

    def make(options: argparse.Namespace) -> Suite:
        return Suite('split',
                     [Row('stock', measure_stock), Row('split', measure)],
                     [seconds('total_ms', 'total'), count('wrong', 'wrong')],
                     judge,
                     plots=[Bars('total_ms', 'Total time', 's', 1e-3),
                            Lines('throughput', 'Guest', 'of normal')])

Rows are measured in turn, run after run, every other run in reverse order, so
that what the host does meanwhile falls on all of them alike: put what is
compared, stock and ours, into rows of one suite.  The table has medians and
the spread; judge() is given all figures and compares them, see results.py.

A row raises Unavailable where it cannot be measured at all, with the reason,
or Skip, as what it has in common with the tests does, and is skipped;
whatever else it raises is a failure, which is reported and makes the exit
status 1, while the other rows go on.  A mark that is missed is a result like
any other.  What a guest lost while it was moved is measured by lost.py.
"""

import argparse
from dataclasses import asdict, dataclass, field
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from lib.binary import Binary
from lib.tap import Skip

from results import Figure, Figures, Result, Results, Series, Verdict


__all__ = ['Bars', 'Column', 'Curve', 'Figure', 'Figures', 'Lines', 'Result',
           'Results', 'Row', 'Series', 'Suite', 'Unavailable', 'Verdict',
           'count', 'mebibytes', 'milliseconds', 'options_of', 'percent',
           'run', 'seconds', 'wrong_pages']


class Unavailable(Exception):
    """This row cannot be measured here; the text says why"""


@dataclass(frozen=True)
class Row:
    """Something to measure; @measure returns the figures of one run"""
    name: str
    measure: Callable[[], Figures]


@dataclass(frozen=True)
class Column:
    """A figure in the table: its key, its head, and how to print it"""
    key: str
    head: str
    form: Callable[[float], str]


def seconds(key: str, head: str) -> Column:
    """A time that is measured in ms"""
    return Column(key, head, lambda value: f'{value / 1000:.2f} s')


def milliseconds(key: str, head: str) -> Column:
    """A time that is measured in ms"""
    return Column(key, head, lambda value: f'{value:.0f} ms')


def mebibytes(key: str, head: str) -> Column:
    """An amount that is measured in bytes"""
    return Column(key, head, lambda value: f'{value / (1 << 20):.1f} MiB')


def count(key: str, head: str) -> Column:
    """A number of things"""
    return Column(key, head, lambda value: f'{value:.0f}')


def percent(key: str, head: str) -> Column:
    """A share"""
    return Column(key, head, lambda value: f'{value:.1%}')


@dataclass(frozen=True)
class _Plot:
    """
    @scale: what the figure is multiplied with to be in @unit.
    @rows: text that a row's name must contain
    """
    key: str
    title: str
    unit: str
    scale: float = 1.0
    rows: str = ''

    def spec(self) -> Dict[str, Any]:
        """For JSON, from which plots.py draws"""
        return {'kind': type(self).__name__.lower(), **asdict(self)}


class Bars(_Plot):
    """A plot of medians, with a mark for each run"""


class Lines(_Plot):
    """A plot of a series against the time, one line for each run"""


@dataclass(frozen=True)
class Curve(_Plot):
    """
    A plot of medians over another figure, @x, with one line for each of
    @groups: text that a row's name must contain.  @ideal: a figure of the
    first group's rows that is drawn as a line of its own
    """
    x: str = ''
    groups: Sequence[str] = ('',)
    ideal: str = ''


def wrong_pages(figures: Figures) -> Optional[str]:
    """What makes worthless whatever has figures of wrong pages"""
    wrong = figures.get('wrong_pages')
    return f'{wrong} pages were wrong' if wrong else None


@dataclass
class Suite:
    """Rows, how to show them and what they should be"""
    name: str
    rows: List[Row]
    columns: List[Column]
    verdicts: Callable[[Results], List[Verdict]]
    # What makes a run worthless, as wrong pages: the text or nothing
    spoiled: Callable[[Figures], Optional[str]] = lambda figures: None
    notes: Sequence[str] = field(default_factory=list)
    about: Dict[str, object] = field(default_factory=dict)
    # That are measured: what is built anew meanwhile makes a run worthless
    binaries: Sequence[Binary] = field(default_factory=list)
    # Bars, Lines, Curve
    plots: Sequence[Any] = field(default_factory=list)

    def judge(self, results: Results) -> List[Verdict]:
        """What @verdicts says of the rows that were chosen"""
        return results.chosen(self.verdicts(results))


@dataclass
class Outcome:
    """What came of running a suite, so far"""
    results: Results
    spoiled: List[str] = field(default_factory=list)
    failed: List[str] = field(default_factory=list)
    unavailable: Dict[str, str] = field(default_factory=dict)

    def well(self) -> bool:
        """Whether all that can be measured here was, and is worth something"""
        return not self.spoiled and not self.failed


def _say(text: str, end: str = '\n') -> None:
    print(text, end=end, flush=True, file=sys.stderr)


def _why(exc: Exception) -> str:
    """What failed; of a command also what it said"""
    if not isinstance(exc, subprocess.CalledProcessError):
        return f'{type(exc).__name__}: {exc}'
    said = exc.stderr or exc.stdout or b''
    if isinstance(said, bytes):
        said = said.decode('utf-8', 'replace')
    return f'{exc} {said.strip()}'


def _measure(row: Row, outcome: Outcome, which: str) -> Optional[Figures]:
    before = os.getloadavg()[0]
    try:
        return {'load_average': before, **row.measure()}
    except (Unavailable, Skip) as exc:
        outcome.unavailable[row.name] = str(exc)
        _say(f' skipped: {exc}')
    except Exception as exc:  # pylint: disable=broad-except
        outcome.failed.append(f'{row.name}, {which}: {_why(exc)}')
        _say(f' FAILED: {outcome.failed[-1]}')
    return None


def _identities(suite: Suite) -> Dict[str, str]:
    """Of the binaries, by name; of one that is being built there is none"""
    found = {}
    for used in suite.binaries:
        try:
            found[used.name] = used.identity()
        except OSError:
            found[used.name] = ''
    return found


def options_of(options: argparse.Namespace) -> Dict[str, object]:
    """For Suite.about: what JSON can hold"""
    return {key: value for key, value in vars(options).items()
            if isinstance(value, (int, float, str))}


def _in_turn(rows: List[Row], number: int) -> List[Row]:
    """Every other run backwards: no row always comes after the same one"""
    return rows if number % 2 else rows[::-1]


def run(suite: Suite, runs: int, save: Callable[[Outcome], None]) -> Outcome:
    """Measure all rows @runs times; @save is called after each"""
    outcome = Outcome(Results(
        {row.name: Result(row.name) for row in suite.rows}))
    built = _identities(suite)
    for number in range(1, runs + 1):
        for row in _in_turn(suite.rows, number):
            if row.name in outcome.unavailable:
                continue
            which = f'run {number}'
            _say(f'{suite.name}, {which} of {runs}: {row.name} ...', end='')
            began = time.monotonic()
            figures = _measure(row, outcome, which)
            if figures is not None:
                _say(f' {time.monotonic() - began:.1f} s')
                outcome.results[row.name].runs.append(figures)
                reasons = [suite.spoiled(figures)] + [
                    f'{name} was built anew in the meantime'
                    for name, now in _identities(suite).items()
                    if now != built[name]]
                outcome.spoiled += [f'{row.name}, {which}: {why}'
                                    for why in reasons if why]
            # An interrupted benchmark keeps what it has measured.
            save(outcome)
    return outcome
