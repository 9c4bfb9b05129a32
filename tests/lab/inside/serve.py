#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure in the lab what a benchmark outside asks for

One request a line, as JSON: {"what": NAME, "with": {...}}.  The answer is a
line {"figures": {...}} or {"error": TEXT}.  The first line says {"ready": ...}:
what is written before goes to a console that still echoes.
"""

import json
from pathlib import Path
import sys
from typing import Any, Callable, Dict

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / 'functional')]

# pylint: disable=wrong-import-position
from inside import asyncpf  # noqa: E402

KNOWN: Dict[str, Callable[..., Dict[str, Any]]] = {
    'asyncpf': asyncpf.measure,
}


def main() -> None:
    """Until the other end closes"""
    print('\n' + json.dumps({'ready': sorted(KNOWN)}), flush=True)
    for line in sys.stdin:
        try:
            request = json.loads(line)
            figures = KNOWN[request['what']](**request['with'])
            answer = {'figures': figures}
        except Exception as exc:  # pylint: disable=broad-except
            answer = {'error': f'{type(exc).__name__}: {exc}'}
        print('\n' + json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
