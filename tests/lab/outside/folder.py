# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of one run, in build/lab"""

import os
from pathlib import Path
import shutil
import time

from .kernel import LAB

# Runs of which results stay: the second is of one that failed, perhaps, and
# was tried again
RESULTS = ('last', 'last.1', 'last.2')


def make() -> Path:
    """A new one for this process; those of killed runs go"""
    LAB.mkdir(parents=True, exist_ok=True)
    for old in LAB.glob('run-*'):
        if not Path('/proc', old.name[len('run-'):]).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = LAB / f'run-{os.getpid()}'
    folder.mkdir()
    return folder


def keep_results(folder: Path) -> Path:
    """Of the last runs: what the cases wrote, and the kernel's console"""
    last = LAB / RESULTS[0]
    shutil.rmtree(LAB / RESULTS[-1], ignore_errors=True)
    for newer, older in reversed(list(zip(RESULTS, RESULTS[1:]))):
        if (LAB / newer).exists():
            (LAB / newer).rename(LAB / older)
    last.mkdir()
    for name in ('out', 'console.log'):
        if (folder / name).exists():
            (folder / name).rename(last / name)
    return last


def keep(folder: Path) -> Path:
    """Let no later run remove it"""
    return folder.rename(LAB / time.strftime('kept-%Y%m%d-%H%M%S'))
