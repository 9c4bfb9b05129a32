# SPDX-License-Identifier: GPL-2.0-or-later
"""On what it was measured: figures mean nothing without"""

import os
from pathlib import Path
import platform
import re
import subprocess
from typing import Dict

from lib import debian, paths


def _field(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text('utf-8'), re.M)
    except OSError:
        return 'unknown'
    return found.group(1).strip() if found else 'unknown'


def _git(*command: str) -> str:
    done = subprocess.run(['git', '-C', str(paths.REPO), *command],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else 'unknown'


def describe() -> Dict[str, object]:
    """The machine, and the commit that was measured"""
    return {
        'cpu': _field('/proc/cpuinfo', r'^model name\s*:\s*(.*)$'),
        'cpus': len(os.sched_getaffinity(0)),
        'memory': _field('/proc/meminfo', r'^MemTotal:\s*(.*)$'),
        'memory available': _field('/proc/meminfo',
                                   r'^MemAvailable:\s*(.*)$'),
        'virtual machine': 'hypervisor' in _field('/proc/cpuinfo',
                                                  r'^flags\s*:\s*(.*)$'),
        'kernel': platform.release(),
        'system': debian.os_release().get('PRETTY_NAME', 'unknown'),
        'load average at start': os.getloadavg(),
        'commit': _git('rev-parse', 'HEAD'),
        'uncommitted changes': bool(_git('status', '--porcelain')),
    }
