# SPDX-License-Identifier: GPL-2.0-or-later
"""Post-copy on demand, with a guest that is small enough for a slow host"""

from lib.guest import Load
from lib.tap import Tap
from test_background import at_work


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    tap.add('on demand: a guest at work gets its pages, all of them right',
            lambda: at_work(Load(fill=4, ws=1, load=0)), full=True)
