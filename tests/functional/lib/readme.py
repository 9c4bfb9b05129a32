# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of the repository's README.rst, to be run as they stand"""

import re
from typing import List, Tuple

from . import paths
from .tap import check


def commands(title: str) -> List[Tuple[str, str]]:
    """Who types what in the section of that title"""
    text = (paths.REPO / 'README.rst').read_text(encoding='utf-8')
    section = re.search(rf'^{re.escape(title)}\n-+\n(.*?)(?=^-+$|\Z)', text,
                        re.MULTILINE | re.DOTALL)
    lines = re.findall(r'^    (mem\d|dst|src|\(dst\)|\(src\))\$? +(.*)$',
                       section[1] if section else '', re.MULTILINE)
    check(lines, f'README.rst has no commands in "{title}"')
    return lines
