#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the cases of tests/lab/cases, in the lab or to list them"""

import importlib
from pathlib import Path
import sys

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / 'functional')]

# pylint: disable=wrong-import-position
from lib.tap import Tap  # noqa: E402


def main() -> int:
    """Each file has a function add(tap), which adds its cases"""
    tap = Tap()
    for path in sorted((HERE.parents[1] / 'cases').glob('[a-z]*.py')):
        importlib.import_module(f'cases.{path.stem}').add(tap)
    return tap.main()


if __name__ == '__main__':
    sys.exit(main())
