# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are: the repository, what was built, QEMU's own Python"""

import os
from pathlib import Path
import sys


REPO = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get('BUILD_DIR', REPO / 'build')).resolve()
GUEST = BUILD / 'guest'
SCRATCH = BUILD / 'functional'


def qemu_source() -> Path:
    """The tree of QEMU whose Python packages and scripts are used"""
    wanted = os.environ.get('MIGRATION_TESTS_QEMU_SOURCE')
    return Path(wanted) if wanted else BUILD / 'qemu-src'


def use_qemu_python() -> None:
    """Let "import qemu.machine" find the packages of QEMU's own tree"""
    tree = qemu_source() / 'python'
    if not (tree / 'qemu' / 'machine').is_dir():
        raise RuntimeError(f'{tree} holds no QEMU Python packages: '
                           'run scripts/build first')
    if str(tree) not in sys.path:
        sys.path.insert(0, str(tree))


def scratch() -> Path:
    """A directory for sockets and logs; short, for the sockets' sake"""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return SCRATCH
