#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Count what a run of 'meson test' did, from its testlog.json.

Prints each skip with its reason, each failure and each unsteady test (see
scripts/lib/tap-run) with its name and the last that was said before it, then
one line "N passed, N failed[, N skipped]"; exit status 1 if anything failed or
nothing ran.  A test program that dies, times out or prints fewer results than
it planned is a failure of its own.
"""

import collections
import json
import re
import sys

RESULT = re.compile(r'^(not )?ok\b\s*\d*\s*(?:- )?(.*?)'
                    r'(?:\s*#\s*(skip|todo)\S*\s*(.*))?$', re.I)
SAID = re.compile(r'^# (failed|unsteady): (.*)$')
EMPTY = re.compile(r'^1\.\.0\s*(?:#\s*skip\S*\s*(.*))?$', re.I)


# Lines that are printed with a failure
WORDS = 12


class Count:
    def __init__(self):
        self.passed = 0
        self.words = collections.deque(maxlen=WORDS)
        self.why = {}
        self.failed = []
        self.unsteady = []
        self.skipped = []

    def _said(self, test, line):
        said = SAID.match(line)
        if not said:
            self.words.append(line)
        elif said.group(1) == 'failed':
            self.why[said.group(2)] = list(self.words)
            self.words.clear()
        else:
            name = said.group(2)
            self.unsteady.append((f'{test}: {name}', self.why.get(name, [])))

    def line(self, test, line):
        found = RESULT.match(line)
        if not found:
            self._said(test, line)
            empty = EMPTY.match(line)
            if empty:
                self.skipped.append((test, empty.group(1)
                                     or 'the program has no such tests'))
            return
        bad, name, directive, reason = found.groups()
        what = f'{test}: {name}' if name else test
        if directive and directive.lower() == 'skip':
            self.skipped.append((what, reason or 'no reason given'))
        elif bad and not directive:
            self.failed.append((what, '', self.why.pop(name, [])
                                or list(self.words)))
        else:
            self.passed += 1
        self.words.clear()

    def test(self, entry):
        before = len(self.failed)
        for line in entry.get('stdout', '').splitlines():
            self.line(entry['name'], line.rstrip())
        fine = entry['result'] in ('OK', 'SKIP', 'EXPECTEDFAIL')
        if not fine and len(self.failed) == before:
            self.words.extend(entry.get('stderr', '').splitlines())
            self.failed.append((entry['name'],
                                f"{entry['result'].lower()}, exit status "
                                f"{entry.get('returncode')}",
                                list(self.words)))
        self.words.clear()
        self.why.clear()


def main():
    count = Count()
    with open(sys.argv[1], encoding='utf-8', errors='replace') as log:
        for line in log:
            count.test(json.loads(line))
    for name, reason in count.skipped:
        print(f'skipped: {name}: {reason}')
    for name, words in count.unsteady:
        print(f'unsteady: {name}: failed, and passed when run again')
        for line in words:
            print(f'    {line}')
    for name, reason, words in count.failed:
        print(f'FAILED: {name}' + (f' ({reason})' if reason else ''))
        for line in words:
            print(f'    {line}')
    tail = f', {len(count.skipped)} skipped' if count.skipped else ''
    print(f'{count.passed} passed, {len(count.failed)} failed{tail}')
    sys.exit(1 if count.failed or not count.passed else 0)


main()
