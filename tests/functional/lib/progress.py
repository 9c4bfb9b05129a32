# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows how a migration gets on: one line that changes, or plain lines"""

import sys
import time
from typing import TextIO

from .migration import MIB
from .vm import QMPDict


# Plain lines are for logs: fewer of them
PLAIN_SECONDS = 2.0


class Progress:
    """Progress of one migration after the other on @out"""

    def __init__(self, out: TextIO = sys.stdout):
        self._out = out
        self._tty = out.isatty()
        self._title = ''
        self._began = self._said = time.monotonic()

    def begin(self, title: str) -> None:
        """A new thing begins"""
        self._title = title
        self._began = self._said = time.monotonic()
        self._show('...')

    def end(self, text: str) -> None:
        """It is over"""
        self._show(text)
        if self._tty:
            self._out.write('\n')
            self._out.flush()

    def migration(self, answer: QMPDict) -> None:
        """Where it stands, from query-migrate's answer"""
        now = time.monotonic()
        if not self._tty and now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        ram = answer.get('ram', {})
        status = answer.get('status', 'starting')
        # QEMU calls pre-copy "active".
        phase = {'active': f'pass {ram.get("dirty-sync-count", 0)}',
                 'postcopy-active': 'post-copy'}.get(status, status)
        self._show(f'{now - self._began:5.1f} s  {phase:<9}  '
                   f'{ram.get("transferred", 0) // MIB} MiB sent, '
                   f'{ram.get("remaining", 0) // MIB} MiB left, '
                   f'{ram.get("postcopy-requests", 0)} page requests')

    def _show(self, text: str) -> None:
        line = f'{self._title:<24} {text}'
        self._out.write(f'\r\033[K{line}' if self._tty else f'{line}\n')
        self._out.flush()
