# SPDX-License-Identifier: GPL-2.0-or-later
"""
A test program that speaks the Test Anything Protocol

    tap = Tap()

    @tap.test('what it proves')
    def first() -> None:
        check(1 + 1 == 2, 'arithmetic')

    sys.exit(tap.main())

A test fails by raising, is left out by raising Skip.  Tests marked full=True
are left out unless --full is given or MIGRATION_TESTS_FULL is 1.  Arguments
that are no options choose tests by their titles, or, where none is a title,
those whose title contains one of them.
"""

import argparse
import os
import sys
import time
import traceback
from typing import Callable, List, NamedTuple, Optional


class Skip(Exception):
    """The test cannot be done here; the text says why"""


class Failure(Exception):
    """What was tested is wrong"""


def check(holds: object, what: object) -> None:
    """Fail with @what unless it holds"""
    if not holds:
        raise Failure(str(what))


def check_equal(have: object, want: object, what: str) -> None:
    """Fail unless both are the same"""
    if have != want:
        raise Failure(f'{what}: have {have!r}, want {want!r}')


class _Test(NamedTuple):
    title: str
    function: Callable[[], None]
    full: bool


class Tap:
    """Collects tests and runs them in order"""

    def __init__(self) -> None:
        self._tests: List[_Test] = []

    def test(self, title: str, full: bool = False
             ) -> Callable[[Callable[[], None]], Callable[[], None]]:
        """Decorator for a function that is a test"""
        def register(function: Callable[[], None]) -> Callable[[], None]:
            self.add(title, function, full)
            return function
        return register

    def add(self, title: str, function: Callable[[], None],
            full: bool = False) -> None:
        """Add a test that is made at run time"""
        self._tests.append(_Test(title, function, full))

    def main(self, arguments: Optional[List[str]] = None) -> int:
        """Run what the command line asks for; the exit status"""
        parser = argparse.ArgumentParser()
        parser.add_argument('--full', action='store_true',
                            default=os.environ.get('MIGRATION_TESTS_FULL')
                            == '1', help='run the long tests too')
        parser.add_argument('--list', action='store_true',
                            help='print the titles and do nothing')
        parser.add_argument('title', nargs='*',
                            help='run tests whose title contains this')
        options = parser.parse_args(arguments)
        if options.list:
            for test in self._tests:
                print(test.title + (' (full)' if test.full else ''))
            return 0
        chosen = [test for test in self._tests
                  if not options.title or test.title in options.title]
        chosen = chosen or [test for test in self._tests if any(
            part in test.title for part in options.title)]
        if not chosen:
            print('1..0 # SKIP no such test')
            return 0 if not options.title else 2
        print(f'1..{len(chosen)}', flush=True)
        failed = 0
        for number, test in enumerate(chosen, 1):
            if test.full and not (options.full or options.title):
                print(f'ok {number} - {test.title} # SKIP long: needs --full',
                      flush=True)
                continue
            failed += not self._run(number, test)
        return 1 if failed else 0

    @staticmethod
    def _run(number: int, test: _Test) -> bool:
        began = time.monotonic()
        try:
            test.function()
        except Skip as exc:
            print(f'ok {number} - {test.title} # SKIP {exc}', flush=True)
            return True
        except Exception as exc:  # pylint: disable=broad-except
            text = ''.join(traceback.format_exception(
                type(exc), exc, exc.__traceback__, chain=False))
            note(text)
            print(f'not ok {number} - {test.title}', flush=True)
            return False
        print(f'ok {number} - {test.title}')
        print(f'# {time.monotonic() - began:.1f} s', flush=True)
        return True


def note(text: str) -> None:
    """Say something that is not a result"""
    for line in text.splitlines():
        print(f'# {line}', flush=True)


__all__ = ['Failure', 'Skip', 'Tap', 'check', 'check_equal', 'note']

if __name__ == '__main__':
    sys.exit('this is a library')
