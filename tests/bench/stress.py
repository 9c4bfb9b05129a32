# SPDX-License-Identifier: GPL-2.0-or-later
"""
QEMU's own guestperf (tests/migration-stress), strategies among its scenarios

Its guest writes all of its memory, over and over, and says how long each GiB
took.  guestperf itself wants KVM and the host's CPU; here it runs with what
runs the other guests.  Nothing of it is changed: its Engine is derived from.
"""

import argparse
from functools import partial
from pathlib import Path
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional

from lib import accel, binary, image, paths
from lib.binary import Binary
from lib.strategy import Strategy

from suite import (Bars, Figures, Results, Row, Suite, Verdict, count,
                   mebibytes, milliseconds, options_of, seconds)


HELP = "QEMU's guestperf with strategies"

INITRD = 'tests/migration-stress/initrd-stress.img'
GIB = 1
# Much longer than the guest takes to begin on a busy host
PATIENCE = 180.0
# It dies with the thread that started it, as QEMU does in the other tests
WRAPPER = ['setsid', 'setpriv', '--pdeathsig', 'KILL']


class Way(NamedTuple):
    """A way to migrate: the strategy's are ours alone"""
    name: str
    ours: bool
    strategy: Optional[Strategy] = None
    scenario: Dict[str, Any] = {}


WAYS = (
    Way('stock, precopy', False),
    Way('stock, post-copy after a pass', False,
        scenario={'post_copy': True, 'post_copy_iters': 1}),
    Way('ours, precopy', True),
    Way('ours, postcopy', True, Strategy('postcopy')),
    Way('ours, hybrid', True, Strategy('hybrid', passes=1)),
    Way('ours, auto', True, Strategy('auto')),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this suite alone"""
    parser.add_argument('--link', type=int, default=128, metavar='MIB',
                        help='a second (128)')
    parser.add_argument('--passes', type=int, default=4, metavar='N',
                        help='after which a pre-copy is cancelled (4)')
    parser.add_argument('--settle', type=int, default=5, metavar='SECONDS',
                        help='that the guest runs before and after (5)')


def initrd() -> Path:
    """guestperf's guest, compiled at need"""
    build = paths.BUILD / 'qemu-src' / 'build'
    done = subprocess.run(['ninja', '-C', str(build), INITRD], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    if done.returncode:
        # All that it needs comes with what builds QEMU.
        why = [line for line in done.stdout.splitlines()
               if 'error' in line.lower()] or [done.stdout.strip()]
        raise RuntimeError('the guest of guestperf does not build: run '
                           f'scripts/build ({why[0]})')
    return build / INITRD


def _wait_for_work(machine: Any) -> None:
    """Until the guest has booted, filled its memory and written it once"""
    # pylint: disable=protected-access
    log = Path(machine._qemu_log_path)
    deadline = time.monotonic() + PATIENCE
    while ' copied ' not in log.read_text('utf-8', 'replace'):
        if time.monotonic() > deadline:
            raise RuntimeError("guestperf's guest does not begin to work")
        time.sleep(0.2)


def engine(used: Binary, link_accel: str, way: Way, settle: int) -> Any:
    """QEMU's engine, without what ties it to KVM and to stock"""
    tree = str(paths.qemu_source() / 'tests' / 'migration-stress')
    if tree not in sys.path:
        sys.path.append(tree)
    # pylint: disable=import-error,import-outside-toplevel
    from guestperf.engine import Engine  # type: ignore[import]

    class Derived(Engine):  # type: ignore[misc]
        """With our accelerator, our CPU model and our parameter"""

        def _get_common_args(self, hardware: Any,
                             tunnelled: bool = False) -> List[str]:
            theirs = super()._get_common_args(hardware, tunnelled)
            theirs[theirs.index('-cpu') + 1] = 'qemu64'
            theirs[theirs.index('-accel') + 1] = link_accel
            return [*used.firmware_args(), '-machine', 'q35', '-nodefaults',
                    *theirs]

        @staticmethod
        def _get_common_wrapper(cpu_bind: Any, mem_bind: Any) -> List[str]:
            del cpu_bind, mem_bind
            return WRAPPER

        def _migrate(self, hardware: Any, scenario: Any, src: Any, dst: Any,
                     *rest: Any) -> Any:
            _wait_for_work(src)
            if way.strategy:
                for machine in (src, dst):
                    machine.cmd('migrate-set-capabilities', capabilities=[
                        {'capability': 'postcopy-ram', 'state': True}])
                src.cmd('migrate-set-parameters', way.strategy.arguments())
            result = super()._migrate(hardware, scenario, src, dst, *rest)
            if src.cmd('query-migrate')['status'] != 'completed':
                # It ends by itself then, which Engine takes for a failure.
                dst.shutdown(hard=True)
            return result

    return Derived(str(used.path), 'localhost', str(image.ensure().kernel),
                   str(initrd()), 'unix', settle)


def measure(used: Binary, way: Way, options: argparse.Namespace) -> Figures:
    """One run"""
    made = engine(used, accel.choose(used, image.ensure()), way,
                  options.settle)
    # pylint: disable=import-error,import-outside-toplevel
    from guestperf.hardware import Hardware  # type: ignore[import]
    from guestperf.scenario import Scenario  # type: ignore[import]

    scenario = Scenario(way.name, bandwidth=options.link, downtime=300,
                        max_iters=options.passes, **way.scenario)
    report = made.run(Hardware(cpus=1, mem=GIB), scenario, str(paths.BUILD))
    said = report.serialize()
    history = said['progress_history']
    last = history[-1]
    rounds = [entry['value'] for entry in said['guest_timings']]
    completed = last['status'] == 'completed'
    return {
        'completed': completed,
        'total_ms': last['duration'] if completed else None,
        'downtime_ms': last['downtime'] if completed else None,
        # What was cancelled forgets how far it had come.
        'bytes': max(one['ram']['transferred_bytes'] for one in history),
        'passes': max(one['ram']['iterations'] for one in history),
        'best_ms': min(rounds, default=None),
        'worst_ms': max(rounds, default=None),
    }


def judge(results: Results) -> List[Verdict]:
    """That a guest which writes all the time leaves all the same"""
    return [results.every(f'{name}: {claim}', name, 'completed',
                          claim == 'completes')
            for name, claim in (('stock, precopy', 'does not complete'),
                                ('ours, auto', 'completes'),
                                ('ours, hybrid', 'completes'))]


def make(options: argparse.Namespace) -> Suite:
    """The rows"""
    ours, stock = binary.ours(), binary.stock(same_source=True)
    return Suite(
        'stress',
        [Row(way.name, partial(measure, ours if way.ours else stock, way,
                               options)) for way in WAYS],
        [seconds('total_ms', 'total'), milliseconds('downtime_ms', 'downtime'),
         mebibytes('bytes', 'sent'), count('passes', 'passes'),
         milliseconds('best_ms', 'best GiB'),
         milliseconds('worst_ms', 'worst GiB')],
        judge,
        notes=[f'{GIB} GiB, written all the time; {options.link} MiB/s, '
               f'downtime limit 300 ms; cancelled after {options.passes} '
               'passes.', 'GiB: the time that the guest took to write one.'],
        plots=[Bars('total_ms', 'Total time', 's', 1e-3),
               Bars('worst_ms', 'Longest time to write a GiB', 's', 1e-3)],
        about={'options': options_of(options)}, binaries=[ours, stock])
