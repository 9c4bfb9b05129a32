# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab that stays up and measures what it is asked to"""

import json
from pathlib import Path
import shutil
import threading
from typing import Any, Dict, Optional

from lib import binary

from . import disk, folder, kernel, machine


COMMAND = (f'{disk.ENVIRONMENT}'
           f'exec python3 {disk.REPO}/tests/lab/inside/serve.py\n')
# What hangs
PATIENCE = 30 * 60


class SessionError(RuntimeError):
    """The lab does not answer, or could not measure it"""


class Session:
    """Boots the lab with the first question; close() ends it"""

    def __init__(self) -> None:
        self._lab: Optional[machine.Lab] = None
        self._where: Optional[Path] = None

    def _open(self) -> machine.Lab:
        if not self._lab:
            self._where = folder.make()
            ours = binary.ours()
            made = disk.make(self._where, ours, COMMAND)
            self._lab = machine.Lab(ours, kernel.ensure(), made, self._where,
                                    asks=True)
            self._lab.start()
            self._answer(self._lab)
        return self._lab

    @staticmethod
    def _answer(lab: machine.Lab) -> Dict[str, Any]:
        """The next line of JSON"""
        assert lab.stdout
        timer = threading.Timer(PATIENCE, lab.end)
        timer.daemon = True
        timer.start()
        try:
            for line in lab.stdout:
                if line.startswith(b'{'):
                    answer: Dict[str, Any] = json.loads(line)
                    return answer
        finally:
            timer.cancel()
        raise SessionError(f'the lab ended: {lab.last_words()}')

    def ask(self, what: str, **how: Any) -> Dict[str, Any]:
        """The figures of one measurement"""
        lab = self._open()
        assert lab.stdin
        lab.stdin.write(json.dumps({'what': what, 'with': how}).encode()
                        + b'\n')
        lab.stdin.flush()
        answer = self._answer(lab)
        if 'error' in answer:
            raise SessionError(answer['error'])
        figures: Dict[str, Any] = answer['figures']
        return figures

    def close(self) -> None:
        """End the lab and remove its files"""
        if self._lab:
            self._lab.end()
            self._lab = None
        if self._where:
            shutil.rmtree(self._where, ignore_errors=True)
            self._where = None
