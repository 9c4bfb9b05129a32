# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a run leaves for whoever wants to look at it afterwards

Files in the folder that MIGRATION_TESTS_RESULTS names, in the order in which
they were written; nothing where that is not set.  The lab sets it.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any


# Of a log, the end; characters
LONGEST = 256 * 1024
_number = itertools.count(1)


def keep(name: str, text: str) -> None:
    """One more file, whose name ends with @name"""
    folder = os.environ.get('MIGRATION_TESTS_RESULTS')
    if folder and text:
        # A case may be a program of its own, in the same folder
        path = Path(folder, f'{os.getpid()}-{next(_number):03}-'
                    + name.replace('/', '_').replace(' ', '_'))
        path.write_text(text[-LONGEST:], 'utf-8', 'replace')


def keep_answer(name: str, answer: Any) -> None:
    """What a monitor answered"""
    keep(f'{name}.json', json.dumps(answer, indent=1, default=str) + '\n')
