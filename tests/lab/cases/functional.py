# SPDX-License-Identifier: GPL-2.0-or-later
"""
Functional tests that have more to show under KVM than under TCG

They are the same programs, told that KVM is what they run guests with.
"""

from pathlib import Path
import subprocess
import sys
from typing import Callable, Sequence, Tuple

from lib.tap import Skip, Tap, check, note


TESTS = Path(__file__).resolve().parents[2] / 'functional'
# Program, titles or parts of titles of its tests, whether it is for --full
CHOSEN: Tuple[Tuple[str, Sequence[str], bool], ...] = (
    ('test_redirect.py', ['half-way, busy guest'], False),
    ('test_redirect.py', ['half-way, heavy guest, hybrid',
                          'in a later pass, heavy guest',
                          'there and back again, busy guest',
                          'the relay is cut off, busy guest'], True),
)


def _runner(program: str, titles: Sequence[str]) -> Callable[[], None]:
    def run() -> None:
        path = TESTS / program
        done = subprocess.run([sys.executable, str(path), *titles],
                              stdout=subprocess.PIPE, text=True, check=False,
                              stderr=subprocess.STDOUT)
        note(done.stdout)
        check(done.returncode == 0, f'{program} failed, see above')
        results = [line for line in done.stdout.splitlines()
                   if line.startswith('ok ')]
        check(results, f'{program} tested nothing')
        skipped = [line for line in results if '# SKIP' in line]
        if len(skipped) == len(results):
            raise Skip(skipped[0].split('# SKIP', 1)[1].strip())
    return run


def add(tap: Tap) -> None:
    """Add the cases of this file"""
    for program, titles, full in CHOSEN:
        tap.add(f'{program}: {"; ".join(titles)}', _runner(program, titles),
                full)
