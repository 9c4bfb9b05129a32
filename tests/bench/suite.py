# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a suite of benchmarks is, and how one is run

A suite is a module in this directory, named in SUITES of scripts/bench, with
a function make(options) that returns a Suite and a function
add_options(parser).  Its rows are measured in turn, run after run, so that
what the host does meanwhile falls on all of them alike; the table shows
medians.
"""

from dataclasses import dataclass, field
import statistics
import sys
import time
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Union


Figure = Union[int, float, str, bool, None]
Figures = Mapping[str, Figure]


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


@dataclass(frozen=True)
class Verdict:
    """Whether a figure that was promised was reached"""
    claim: str
    reached: Optional[bool]     # None: not measured
    measured: str


class Result:
    """The figures of all runs of a row"""

    def __init__(self, name: str):
        self.name = name
        self.runs: List[Figures] = []

    def values(self, key: str) -> List[float]:
        """The numbers among the figures called @key"""
        return [float(value) for value in (run.get(key) for run in self.runs)
                if isinstance(value, (int, float))
                and not isinstance(value, bool)]

    def median(self, key: str) -> Optional[float]:
        """Their median, None when there are none"""
        values = self.values(key)
        return statistics.median(values) if values else None

    def count(self, key: str) -> int:
        """Runs of which it is true"""
        return sum(bool(run.get(key)) for run in self.runs)


Results = Dict[str, Result]


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


def run(suite: Suite, runs: int,
        save: Callable[[Results], None]) -> List[str]:
    """Measure all rows @runs times; what spoiled runs, if any were"""
    results: Results = {row.name: Result(row.name) for row in suite.rows}
    spoiled: List[str] = []
    for number in range(1, runs + 1):
        for row in suite.rows:
            print(f'run {number} of {runs}: {row.name} ...', end='',
                  flush=True, file=sys.stderr)
            began = time.monotonic()
            figures = row.measure()
            results[row.name].runs.append(figures)
            print(f' {time.monotonic() - began:.1f} s', file=sys.stderr)
            why = suite.spoiled(figures)
            if why:
                spoiled.append(f'{row.name}, run {number}: {why}')
            # An interrupted benchmark keeps what it has measured.
            save(results)
    return spoiled
