# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of one run, in build/lab"""

import os
from pathlib import Path
import shutil
import time

from .kernel import LAB


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
    """Of the last run: what the cases wrote, and the kernel's console"""
    last = LAB / 'last'
    shutil.rmtree(last, ignore_errors=True)
    last.mkdir()
    for name in ('out', 'console.log'):
        if (folder / name).exists():
            (folder / name).rename(last / name)
    return last


def keep(folder: Path) -> Path:
    """Let no later run remove it"""
    return folder.rename(LAB / time.strftime('kept-%Y%m%d-%H%M%S'))
