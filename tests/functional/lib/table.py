# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for people"""

from typing import List, Sequence


def render(head: Sequence[str], rows: Sequence[Sequence[str]],
           left: int = 1) -> str:
    """A table; the first @left columns are set left, the others right"""
    cells: List[Sequence[str]] = [head, *rows]
    widths = [max(len(row[column]) for row in cells)
              for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return '  '.join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))).rstrip()

    rule = '  '.join('-' * width for width in widths)
    return '\n'.join([line(head), rule, *(line(row) for row in rows)])
