# SPDX-License-Identifier: GPL-2.0-or-later
"""
Percentiles of the remote pager's latencies, and the bare round trip

The pager counts in buckets of up to an eighth of their value, from the first
fault on: what happened between two looks at it is the difference of counts,
and a percentile lies within its bucket in proportion.
"""

from pathlib import Path
import subprocess
from typing import Any, Dict, List, Mapping

from lib import paths

from results import Figures


SOURCE = Path(__file__).resolve().parent / 'uffd-roundtrip.c'
# Buckets to a power of two
SUB = 8

# By the highest value of a bucket, in ns
Histogram = Mapping[int, int]


def histogram(info: Mapping[str, Any]) -> Histogram:
    """Over all memory hosts, from query-remote-memory's answer"""
    counts: Dict[int, int] = {}
    for host in info['hosts']:
        for bucket in host['latency']['histogram']:
            upto = bucket['upto']
            counts[upto] = counts.get(upto, 0) + bucket['count']
    return counts


def since(before: Histogram, after: Histogram) -> Histogram:
    """What came between two histograms"""
    return {upto: count - before.get(upto, 0)
            for upto, count in after.items()
            if count > before.get(upto, 0)}


def _width(upto: int) -> int:
    """Of the bucket: its values have one length, and the same leading bits"""
    return max(1 << max(upto.bit_length() - 1, 0), SUB) // SUB


def percentile(counts: Histogram, percent: float) -> float:
    """In ns; 0 when there is nothing"""
    wanted = sum(counts.values()) * percent / 100
    below = 0
    for upto, count in sorted(counts.items()):
        if below + count >= wanted and count:
            return upto + 1 - _width(upto) * (1 - (wanted - below) / count)
        below += count
    return 0.0


def figures(counts: Histogram) -> Dict[str, float]:
    """p50 and p99 in us, and how many"""
    return {'p50_us': percentile(counts, 50) / 1000,
            'p99_us': percentile(counts, 99) / 1000,
            'faults': sum(counts.values())}


def _program() -> str:
    """The bare round trip, compiled if need be"""
    program = paths.BUILD / 'bench' / SOURCE.stem
    if not program.exists() or \
            program.stat().st_mtime < SOURCE.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(['cc', '-O2', '-Wall', '-pthread', '-o', str(program),
                        str(SOURCE)], check=True)
    return str(program)


def bare(faults: int) -> Figures:
    """One run of it"""
    done = subprocess.run([_program(), str(faults)], check=True, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=300)
    values: List[float] = [float(word) for word in done.stdout.split()]
    return {**dict(zip(('p50_us', 'p99_us', 'touch_p50_us', 'touch_p99_us'),
                       values)), 'faults': faults}
