#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the tests that top-level meson.build runs, by their file names.

    tests.py unit          names of the programs
    tests.py functional    path, timeout in seconds, slow|quick
    tests.py libvirt, scripts   the same
"""

import glob
import os
import re
import sys

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
FILES = {'functional': 'tests/functional/test_*.py',
         'libvirt': 'tests/functional/libvirt/test_*.py',
         'scripts': 'tests/scripts/test-*'}


def unit():
    for path in sorted(glob.glob(os.path.join(REPO, 'tests/unit/test-*.c'))):
        yield os.path.basename(path)[:-2]


def runnable(kind):
    for path in sorted(glob.glob(os.path.join(REPO, FILES[kind]))):
        if not os.access(path, os.X_OK):
            continue
        with open(path, encoding='utf-8') as file:
            head = ''.join(file.readlines()[:40])
        timeout = re.search(r'^# timeout: (\d+)$', head, re.M)
        slow = re.search(r'^# slow$', head, re.M)
        yield (f"{os.path.relpath(path, REPO)} "
               f"{timeout.group(1) if timeout else 900} "
               f"{'slow' if slow else 'quick'}")


print('\n'.join(unit() if sys.argv[1] == 'unit' else runnable(sys.argv[1])))
