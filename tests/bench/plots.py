#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Draw the plots of one run of scripts/bench, from its result.json alone

A program of its own, as matplotlib is Debian's (python3-matplotlib) and need
not be there: the benchmarks themselves do without.
"""

import json
from pathlib import Path
import re
import statistics
import sys
from typing import Any, Dict, List

try:
    import matplotlib
except ImportError:
    sys.exit('matplotlib is not there: apt install python3-matplotlib')

matplotlib.use('svg')
# pylint: disable=wrong-import-position
from matplotlib import pyplot  # noqa: E402

# The same file for the same figures
matplotlib.rcParams.update({'svg.hashsalt': 'bench', 'font.size': 9})
STOCK, OURS = '#8a8a8a', '#1f6fb4'


def numbers(row: Dict[str, Any], key: str, scale: float) -> List[float]:
    """The figures of all runs of a row"""
    return [run[key] * scale for run in row['runs']
            if isinstance(run.get(key), (int, float))
            and not isinstance(run.get(key), bool)]


def bars(axes: Any, rows: Dict[str, Any], spec: Dict[str, Any]) -> bool:
    """Medians, and a mark for each run; whether there was anything"""
    drawn = {name: values for name, values in (
        (name, numbers(row, spec['key'], spec['scale']))
        for name, row in rows.items()) if values}
    for place, (name, values) in enumerate(drawn.items()):
        axes.barh(place, statistics.median(values), height=0.7, alpha=0.6,
                  color=STOCK if 'stock' in name else OURS)
        axes.plot(values, [place] * len(values), 'k|', markersize=7)
    axes.set_yticks(range(len(drawn)))
    axes.set_yticklabels(drawn)
    axes.invert_yaxis()
    axes.set_xlabel(spec['unit'])
    axes.set_xlim(left=0)
    return bool(drawn)


def lines(axes: Any, rows: Dict[str, Any], spec: Dict[str, Any]) -> bool:
    """A series of each run, one colour a row; whether there was anything"""
    colours = pyplot.get_cmap('tab20').colors
    drawn = 0
    for name, row in rows.items():
        series = [run[spec['key']] for run in row['runs']
                  if run.get(spec['key'])]
        for number, points in enumerate(series):
            axes.plot([x for x, _ in points],
                      [y * spec['scale'] for _, y in points],
                      color=colours[drawn % len(colours)], linewidth=1,
                      label=None if number else name)
        drawn += bool(series)
    axes.set_xlabel('s')
    axes.set_ylabel(spec['unit'])
    axes.set_ylim(bottom=0)
    if drawn:
        axes.legend(fontsize=7)
    return bool(drawn)


def points(rows: Dict[str, Any], text: str, spec: Dict[str, Any],
           key: str) -> List[List[float]]:
    """Medians of @key over those of the spec's x, for rows with @text"""
    found = []
    for name, row in rows.items():
        over, values = (numbers(row, which, scale) for which, scale in
                        ((spec['x'], 1), (key, spec['scale'])))
        if text in name and over and values:
            found.append([statistics.median(over), statistics.median(values)])
    return sorted(found)


def curve(axes: Any, rows: Dict[str, Any], spec: Dict[str, Any]) -> bool:
    """A line for each group, and the ideal; whether there was anything"""
    drawn = False
    for number, text in enumerate(spec['groups']):
        found = points(rows, text, spec, spec['key'])
        if found:
            axes.plot(*zip(*found), 'o-', label=text,
                      color=STOCK if number else OURS)
            drawn = True
    ideal = points(rows, spec['groups'][0], spec, spec['ideal'])
    if ideal:
        axes.plot(*zip(*ideal), 'k--', label='ideal', linewidth=1)
    axes.set_xlabel(spec['x'])
    axes.set_ylabel(spec['unit'])
    axes.set_ylim(bottom=0)
    if drawn:
        axes.legend()
    return drawn


def draw(where: Path, suite: str, about: Dict[str, Any],
         rows: Dict[str, Any], spec: Dict[str, Any]) -> None:
    """One plot into a file of its own"""
    chosen = {name: row for name, row in rows.items()
              if spec['rows'] in name}
    size = (8, 1.5 + 0.28 * len(chosen)) if spec['kind'] == 'bars' else (9, 5)
    figure, axes = pyplot.subplots(figsize=size)
    kinds = {'bars': bars, 'lines': lines, 'curve': curve}
    if kinds[spec['kind']](axes, chosen, spec):
        axes.set_title(spec['title'])
        figure.text(0.01, 0.01, f'{about["cpu"]}; {about["commit"][:12]}',
                    fontsize=6, color='#666666')
        name = re.sub(r'[^a-z0-9]+', '-',
                      f'{suite} {spec["title"]}'.lower()).strip('-')
        figure.savefig(where / f'{name}.svg', bbox_inches='tight',
                       metadata={'Date': None})
    pyplot.close(figure)


def main() -> int:
    """Exit status: 0 when all plots for which there are figures were drawn"""
    if len(sys.argv) != 2:
        print('plots.py: the result.json of one run, please: figures of '
              'several cannot be compared')
        return 2
    path = Path(sys.argv[1])
    content = json.loads(path.read_text('utf-8'))
    for name, suite in content['suites'].items():
        for spec in suite.get('plots', ()):
            draw(path.parent, name, content['about'], suite['rows'], spec)
    return 0


if __name__ == '__main__':
    sys.exit(main())
