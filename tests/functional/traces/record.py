#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Record the traces of tests/unit/pager-traces

    tests/functional/traces/record.py [NAME...] [--out FOLDER]

A Linux guest boots under TCG in Debian's QEMU, which has plugins (ours is
built without), and busybox works on QEMU's sources in it.  Packages that it
needs beyond those of the KVM lab: pkg-config and GLib's headers.
recorder.c writes down which pages of memory are used.  The format of the
result is described in README.rst there.
"""

import argparse
import array
import io
import mmap
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile
from typing import Dict, List, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / 'lab')]

# pylint: disable=wrong-import-position
from lib import binary, image, paths                # noqa: E402
from outside import kernel                          # noqa: E402

TRACES = paths.REPO / 'tests' / 'unit' / 'pager-traces'
# Of QEMU's tree
DATA = ('block', 'hw/core', 'migration', 'util')
# See recorder.c
FILTER = 256
# Of the guest
MEBIBYTES = 256
# Ended with this program; 900 s is for something that hangs: boot and work
# take less than a minute
WRAPPER = ('setpriv', '--pdeathsig', 'TERM', 'timeout', '900')
DIGITS = ('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
          '0123456789+/')
WIDTH = 76
HEAD = """\
# SPDX-License-Identifier: GPL-2.0-or-later
# {what}; guest of {mebibytes} MiB
pages {pages}
accesses {accesses}
"""


class Work(NamedTuple):
    """What is recorded"""
    what: str
    accesses: int               # at most
    skip: int = 0               # so many before


WORKS = {
    'pack': Work('busybox tar, gzip -9, gunzip and diff', 100000),
    'sort': Work('busybox find, tr, sort and uniq count words', 95000),
    'unpack': Work('a Linux kernel unpacks itself (xz)', 36000, 300000),
}
# Work that begins with the machine, and not when the guest is asked to
AT_RESET = 'unpack'


def build(folder: Path) -> Path:
    """The plugin"""
    made = folder / 'recorder.so'
    flags = subprocess.run(['pkg-config', '--cflags', 'glib-2.0'], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.split()
    subprocess.run(['cc', '-shared', '-fPIC', '-O2', '-Wall', *flags,
                    f'-I{paths.qemu_source()}/include/qemu',
                    '-o', str(made), str(HERE / 'recorder.c')], check=True)
    return made


def data() -> bytes:
    """An archive of QEMU's own files, without what is laid into its tree"""
    tree, made = paths.qemu_source(), io.BytesIO()
    with tarfile.open(fileobj=made, mode='w', format=tarfile.USTAR_FORMAT) \
            as tar:
        for path in sorted(path for folder in DATA
                           for path in (tree / folder).rglob('*')):
            if path.is_file() and not path.is_symlink():
                tar.add(path, str(path.relative_to(tree)))
    return made.getvalue()


def initramfs(folder: Path) -> Path:
    """busybox, what it is to do, and the files of QEMU to do it on"""
    members = {'init': (HERE / 'init').read_bytes(),
               'busybox': kernel.BUSYBOX.read_bytes(), 'data.tar': data()}
    made = folder / 'initramfs.cpio'
    made.write_bytes(image.archive(members))
    return made


def run(name: str, work: Work, folder: Path) -> List[int]:
    """Boot, work, and the numbers of the pages that were used"""
    qemu = binary.debian_own()
    control, out = folder / 'control', folder / 'out'
    control.write_bytes(bytes([name == AT_RESET]))
    plugin = ','.join((str(build(folder)), f'out={out}', f'control={control}',
                       f'pages={MEBIBYTES * 256}',
                       f'skip={work.skip}', f'limit={work.accesses}',
                       f'filter={FILTER}'))
    args = [str(qemu.path), *qemu.firmware_args(), '-nodefaults', '-no-reboot',
            '-display', 'none', '-serial', 'stdio', '-machine', 'pc',
            '-accel', 'tcg,thread=single', '-smp', '1',
            '-m', f'{MEBIBYTES}M', '-plugin', plugin,
            '-kernel', str(kernel.ensure().vmlinuz),
            '-initrd', str(initramfs(folder)),
            '-append', f'console=ttyS0 quiet panic=-1 work={name}']
    with subprocess.Popen([*WRAPPER, *args],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, **qemu.environment}) as vm, \
            open(control, 'r+b') as file, mmap.mmap(file.fileno(), 1) as byte:
        for line in vm.stdout:
            sys.stderr.buffer.write(b'# ' + line)
            if line.startswith(b'recorder: ready'):
                byte[0] = name != AT_RESET
                vm.stdin.write(b'\n')
                vm.stdin.flush()
    if vm.returncode:
        raise SystemExit(f'{name}: QEMU ended with {vm.returncode}')
    pages = array.array('I', out.read_bytes())
    return list(pages)


def encode(pages: List[int]) -> str:
    """Differences, as tests/unit/pager-traces/README.rst has it"""
    text: List[str] = []
    before = 0
    for page in pages:
        value = (page - before) * 2 if page >= before else \
            (before - page) * 2 - 1
        before = page
        while value >= 32:
            text.append(DIGITS[value % 32 + 32])
            value //= 32
        text.append(DIGITS[value])
    line = ''.join(text)
    return ''.join(line[i:i + WIDTH] + '\n'
                   for i in range(0, len(line), WIDTH))


def renumber(pages: List[int]) -> List[int]:
    """Pages that are used, from 0 and in the order of their addresses"""
    order: Dict[int, int] = {page: number for number, page
                             in enumerate(sorted(set(pages)))}
    return [order[page] for page in pages]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(WORKS))
    parser.add_argument('--out', type=Path, default=TRACES)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or WORKS:
        work = WORKS[name]
        with tempfile.TemporaryDirectory(dir=paths.scratch()) as folder:
            pages = renumber(run(name, work, Path(folder)))
        made = args.out / f'{name}.trace'
        made.write_text(HEAD.format(what=work.what, mebibytes=MEBIBYTES,
                                    pages=max(pages) + 1,
                                    accesses=len(pages)) + encode(pages),
                        encoding='ascii')
        print(f'{made}: {len(pages)} accesses, {max(pages) + 1} pages, '
              f'{made.stat().st_size} bytes')


if __name__ == '__main__':
    main()
