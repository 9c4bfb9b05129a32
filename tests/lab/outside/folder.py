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


def keep(folder: Path) -> Path:
    """Let no later run remove it"""
    return folder.rename(LAB / time.strftime('kept-%Y%m%d-%H%M%S'))
