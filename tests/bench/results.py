# SPDX-License-Identifier: GPL-2.0-or-later
"""
The figures of a run: medians, spread, and comparisons within it

All figures that are compared come from one Results object, which one process
fills by measuring the rows in turn on one machine.  There is no way to compare
those of two: what a machine did an hour ago says nothing of what it does now.
"""

from dataclasses import dataclass
import statistics
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union


# A list of pairs is a series: time in seconds and a value
Series = Sequence[Tuple[float, float]]
Figure = Union[int, float, str, bool, None, Series]
Figures = Mapping[str, Figure]


@dataclass(frozen=True)
class Verdict:
    """
    Whether a figure that was promised was reached

    @rows: those that it is about
    """
    claim: str
    reached: Optional[bool]     # None: not measured
    measured: str
    rows: Sequence[str] = ()


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

    def spread(self, key: str) -> Optional[float]:
        """
        Half of the distance from the least to the greatest, as a share of
        the median; None when there are fewer than two, or the median is 0
        """
        values = self.values(key)
        middle = self.median(key)
        if len(values) < 2 or not middle:
            return None
        return (max(values) - min(values)) / 2 / abs(middle)

    def count(self, key: str) -> int:
        """Runs of which it is true"""
        return sum(bool(run.get(key)) for run in self.runs)


class Results(Dict[str, Result]):
    """The results of a run's rows by their names"""

    def chosen(self, verdicts: List[Verdict]) -> List[Verdict]:
        """Those that are about rows of this run alone"""
        return [verdict for verdict in verdicts
                if all(row in self for row in verdict.rows)]

    def median(self, row: str, key: str) -> Optional[float]:
        """None when the row was not measured or has no such figure"""
        return self[row].median(key) if row in self else None

    def ratio(self, row: str, reference: str, key: str,
              reference_key: str = '') -> Optional[float]:
        """Of two rows' medians, None when there is no such ratio"""
        have = self.median(row, key)
        want = self.median(reference, reference_key or key)
        return have / want if have is not None and want else None

    # Marks.  @claim is a sentence without figures; they are added to it.

    def at_most(self, claim: str, row: str, reference: str, key: str,
                times: float) -> Verdict:
        """@row's median is at most @times that of @reference"""
        ratio = self.ratio(row, reference, key)
        return Verdict(f'{claim}: at most {times:g} x',
                       None if ratio is None else ratio <= times,
                       _times(ratio), (row, reference))

    def at_least(self, claim: str, row: str, reference: str, key: str,
                 times: float) -> Verdict:
        """@row's median is at least @times that of @reference"""
        ratio = self.ratio(row, reference, key)
        return Verdict(f'{claim}: at least {times:g} x',
                       None if ratio is None else ratio >= times,
                       _times(ratio), (row, reference))

    def within(self, claim: str, row: str, reference: str, key: str,
               share: float) -> Verdict:
        """The medians differ by no more than @share of @reference's"""
        ratio = self.ratio(row, reference, key)
        return Verdict(f'{claim}: within {share:.0%}',
                       None if ratio is None else abs(ratio - 1) <= share,
                       _times(ratio), (row, reference))

    def every(self, claim: str, row: str, key: str,
              wanted: bool = True) -> Verdict:
        """@key is true in every run, or with @wanted false in none"""
        result = self.get(row)
        if not result or not result.runs:
            return Verdict(claim, None, 'not measured', (row,))
        done, of = result.count(key), len(result.runs)
        return Verdict(claim, done == (of if wanted else 0),
                       f'in {done} of {of} runs', (row,))


def _times(ratio: Optional[float]) -> str:
    return 'not measured' if ratio is None else f'{ratio:.3f} x'
