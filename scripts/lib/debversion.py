#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sort Debian version numbers, one a line, newest first (by dpkg's rules)."""

import functools
import subprocess
import sys


def compare(one, two):
    for relation, answer in (('lt', -1), ('gt', 1)):
        if subprocess.call(['dpkg', '--compare-versions',
                            one, relation, two]) == 0:
            return answer
    return 0


versions = sys.stdin.read().split()
versions.sort(key=functools.cmp_to_key(compare), reverse=True)
print('\n'.join(versions))
