# SPDX-License-Identifier: GPL-2.0-or-later
"""
The disk of the lab's host: programs of this machine, our QEMU, the cases

A file system made anew for each run from copies of what is needed and the
libraries that these need, so that nothing of this machine is shared with the
lab, and no privilege is needed.
"""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sysconfig
from typing import Iterable, Set

from lib import image, paths
from lib.binary import Binary


PYTHON = Path('/usr/bin/python3')
# More than busybox can do
PROGRAMS = ('ip', 'tc', 'nsenter', 'setsid', 'setpriv', 'env')
PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
# Of Python's library what no test imports
UNUSED = shutil.ignore_patterns(
    'test', 'tests', 'idlelib', 'tkinter', 'lib2to3', 'pydoc_data',
    'ensurepip', 'dist-packages', 'config-*', 'turtledemo', 'distutils')
FIRMWARE = ('bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin')
# Where the repository and what it built are in the lab
REPO = Path('/lab/repo')
BUILD = Path('/lab/build')
# Of the repository
PARTS = ('tests/functional', 'tests/lab', 'tests/bench')
# For LD_PRELOAD, each of tests/lab/inside/NAME.c as /lab/NAME.so
PRELOADS = ('no-manual-protect', 'no-nodelay')
# What the lab's shell has in its environment
ENVIRONMENT = (f'export REPO={REPO} BUILD_DIR={BUILD} '
               'MIGRATION_TESTS_RESULTS=/lab/out MIGRATION_TESTS_ACCEL=kvm\n')
FREE_MIB = 256


class DiskError(Exception):
    """The disk could not be made; the text says why"""


def _libraries(program: Path) -> Set[Path]:
    """What @program is linked with"""
    said = subprocess.run(['ldd', str(program)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    missing = re.findall(r'(\S+) => not found', said.stdout)
    if missing:
        raise DiskError(f'{program} lacks {", ".join(missing)}')
    return {Path(path) for path in
            re.findall(r'(/\S+) \(0x', said.stdout)}


class Tree:
    """A directory that becomes the disk"""

    def __init__(self, root: Path):
        self.root = root
        shutil.rmtree(root, ignore_errors=True)
        for name in ('proc', 'sys', 'dev', 'tmp', 'run', 'root', 'etc',
                     'usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'var',
                     'lab/out', 'lab/build'):
            (root / name).mkdir(parents=True)
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            (root / name).symlink_to(f'usr/{name}')
        (root / 'etc' / 'passwd').write_text('root::0:0:root:/root:/bin/sh\n')

    def _there(self, path: Path) -> Path:
        there = self.root / path.relative_to('/')
        there.parent.mkdir(parents=True, exist_ok=True)
        return there

    def add(self, path: Path, where: Path) -> None:
        """One file of this machine"""
        shutil.copy2(path.resolve(), self._there(where))

    def add_program(self, path: Path, where: Path,
                    strip: bool = False) -> None:
        """One program and the libraries that it needs"""
        there = self._there(where)
        if strip:
            subprocess.run(['strip', '-o', str(there), str(path.resolve())],
                           check=True)
        else:
            shutil.copy2(path.resolve(), there)
        self.add_libraries([path.resolve()])

    def add_libraries(self, programs: Iterable[Path]) -> None:
        """What @programs are linked with"""
        for program in programs:
            for library in _libraries(program):
                if not self._there(library).exists():
                    shutil.copy2(library.resolve(), self._there(library))

    def add_folder(self, path: Path, where: Path) -> None:
        """A folder of this machine but for what is built or not used"""
        shutil.copytree(path, self._there(where), symlinks=True,
                        ignore=UNUSED, dirs_exist_ok=True)


def _add_python(tree: Tree) -> None:
    tree.add_program(PYTHON, PYTHON)
    library = Path(sysconfig.get_path('stdlib'))
    tree.add_folder(library, library)
    tree.add_libraries(sorted((library / 'lib-dynload').glob('*.so')))


def _add_programs(tree: Tree) -> None:
    busybox = Path('/bin/busybox')
    tree.add(busybox, Path('/usr/bin/busybox'))
    names = subprocess.run([str(busybox), '--list'], check=True, text=True,
                           stdout=subprocess.PIPE).stdout.split()
    for name in names:
        if name != 'busybox':
            (tree.root / 'usr' / 'bin' / name).symlink_to('busybox')
    for name in PROGRAMS:
        found = shutil.which(name, path=PATH)
        if not found:
            raise DiskError(f'{name} is not installed')
        (tree.root / 'usr' / 'bin' / name).unlink(missing_ok=True)
        tree.add_program(Path(found), Path('/usr/bin') / name)


def _add_preloads(tree: Tree) -> None:
    compiler = os.environ.get('CC', 'gcc').split()
    for name in PRELOADS:
        source = paths.REPO / 'tests' / 'lab' / 'inside' / f'{name}.c'
        subprocess.run([*compiler, '-shared', '-fPIC', '-O2', '-Wall', '-o',
                        str(tree.root / 'lab' / f'{name}.so'), str(source)],
                       check=True)


def _add_qemu(tree: Tree, binary: Binary, where: Path) -> None:
    tree.add_program(binary.path, where / 'qemu-system-x86_64', strip=True)
    memserver = binary.path.parent / 'qemu-memserver'
    if memserver.exists():
        tree.add_program(memserver, where / 'qemu-memserver', strip=True)


def _add_firmware(tree: Tree) -> None:
    for name in FIRMWARE:
        found = [Path('/usr/share') / folder / name
                 for folder in ('seabios', 'qemu')
                 if (Path('/usr/share') / folder / name).exists()]
        if not found:
            raise DiskError(f'{name} is not installed')
        tree.add(found[0], Path('/usr/share/qemu') / name)


def _add_tests(tree: Tree) -> None:
    for part in PARTS:
        tree.add_folder(paths.REPO / part, REPO / part)
    made = image.ensure()
    where = made.kernel.parent
    for path in (made.kernel, made.initrd, where / 'version',
                 image.made_from(where)):
        tree.add(path, BUILD / 'guest' / path.name)
    python = paths.qemu_source() / 'python' / 'qemu'
    for package in ('machine', 'qmp', 'utils'):
        tree.add_folder(python / package,
                        BUILD / 'qemu-src' / 'python' / 'qemu' / package)
    shutil.copy2(paths.REPO / 'tests' / 'lab' / 'inside' / 'init',
                 tree.root / 'lab' / 'init')


def make(where: Path, ours: Binary, command: str) -> Path:
    """
    Make the disk in the folder @where

    @command: what the lab's shell runs, after which the lab ends
    """
    tree = Tree(where / 'tree')
    _add_python(tree)
    _add_programs(tree)
    _add_preloads(tree)
    _add_firmware(tree)
    _add_qemu(tree, ours, BUILD / 'bin')
    _add_tests(tree)
    (tree.root / 'lab' / 'command').write_text(command, 'utf-8')
    used = sum(path.lstat().st_size for path in tree.root.rglob('*'))
    disk = where / 'disk'
    disk.unlink(missing_ok=True)
    subprocess.run(['/sbin/mke2fs', '-q', '-t', 'ext4', '-E',
                    'root_owner=0:0', '-O', '^has_journal', '-d',
                    str(tree.root), str(disk),
                    f'{(used * 5 // 4 >> 20) + FREE_MIB}M'], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.rmtree(tree.root)
    return disk
