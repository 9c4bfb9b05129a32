# SPDX-License-Identifier: GPL-2.0-or-later
"""
The QEMU binaries under test: ours, and a stock one to compare with

The environment can name others: MIGRATION_TESTS_QEMU and
MIGRATION_TESTS_STOCK_QEMU, each a path.
"""

from dataclasses import dataclass, field
import fcntl
import hashlib
import os
from pathlib import Path
import re
import shutil
import subprocess
import time
from typing import Dict, List, Optional

from . import debian, paths


# Firmware for a binary that does not find its own
FIRMWARE = ('usr/share/seabios', 'usr/share/qemu', 'usr/lib/ipxe/qemu')
DEBIAN_QEMU = paths.BUILD / 'debian-qemu'
SERIES = '10.0'


class NoBinary(Exception):
    """There is no such binary; the text says what to do"""


@dataclass(frozen=True)
class Binary:
    """A QEMU with what it needs to run"""
    name: str
    path: Path
    data: List[Path] = field(default_factory=list)
    environment: Dict[str, str] = field(default_factory=dict)

    def firmware_args(self) -> List[str]:
        """Where the firmware is, for the command line"""
        return [arg for path in self.data for arg in ('-L', str(path))]

    def identity(self) -> str:
        """Changes when it is built anew"""
        status = self.path.resolve().stat()
        return f'{status.st_ino}:{status.st_size}:{status.st_mtime_ns}'

    def describe(self) -> Dict[str, str]:
        """Which one this is, for whoever reads what it was measured with"""
        with open(self.path, 'rb') as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return {'version': self.version(), 'sha256': digest.hexdigest(),
                'built': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(
                    self.path.resolve().stat().st_mtime))}

    def version(self) -> str:
        """What it says of itself, as "10.0.13 (Debian ...)" """
        done = subprocess.run([str(self.path), '--version'], check=True,
                              stdout=subprocess.PIPE, text=True,
                              env={**os.environ, **self.environment})
        found = re.search(r'version (.*)', done.stdout)
        return found.group(1).strip() if found else \
            done.stdout.strip().splitlines()[0]


def _data_dirs(root: Path) -> List[Path]:
    return [root / name for name in FIRMWARE if (root / name).is_dir()]


def _firmware_for(path: Path) -> List[Path]:
    """Data directories for @path; none when it finds its firmware itself"""
    done = subprocess.run([str(path), '-L', 'help'], check=True,
                          stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        if (Path(line.strip()) / 'bios-256k.bin').is_file():
            return []
    return _data_dirs(Path('/'))


def ours() -> Binary:
    """The binary that scripts/build made"""
    path = Path(os.environ.get('MIGRATION_TESTS_QEMU',
                               paths.BUILD / 'bin' / 'qemu-system-x86_64'))
    if not path.exists():
        raise NoBinary(f'{path} does not exist: run scripts/build first')
    return Binary('ours', path, _firmware_for(path))


def _debian_binary() -> Optional[Binary]:
    """Debian's own, unpacked in build/debian-qemu or installed"""
    root = DEBIAN_QEMU / 'root'
    unpacked = root / 'usr' / 'bin' / 'qemu-system-x86_64'
    if unpacked.exists():
        libraries = [root / where / 'x86_64-linux-gnu'
                     for where in ('usr/lib', 'lib')]
        return Binary('debian', unpacked,
                      _data_dirs(root) + _data_dirs(Path('/')),
                      {'LD_LIBRARY_PATH': ':'.join(map(str, libraries)),
                       'QEMU_MODULE_DIR': str(libraries[0] / 'qemu')})
    installed = shutil.which('qemu-system-x86_64', path='/usr/bin')
    if installed:
        binary = Binary('debian', Path(installed))
        if binary.version().startswith(SERIES + '.'):
            return binary
    return None


def _fetch_debian_binary() -> None:
    """Unpack Debian's QEMU of our series with the libraries it needs"""
    backports = debian.codename() == 'bookworm'
    apt = debian.Apt(DEBIAN_QEMU / 'apt', backports=backports)
    apt.update()
    suite = apt.release + ('-backports' if backports else '')
    packages = apt.closure('qemu-system-x86', suite)
    scratch = DEBIAN_QEMU / 'new'
    shutil.rmtree(scratch, ignore_errors=True)
    debian.unpack(packages, scratch)
    for package in packages:
        package.unlink()
    scratch.rename(DEBIAN_QEMU / 'root')


def debian_own() -> Binary:
    """Debian's own QEMU of our series, fetched at need"""
    DEBIAN_QEMU.mkdir(parents=True, exist_ok=True)
    with open(DEBIAN_QEMU / '.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _debian_binary()
        if not found:
            try:
                _fetch_debian_binary()
            except debian.DebianError as exc:
                raise NoBinary(f'no stock QEMU {SERIES}: {exc}') from exc
            found = _debian_binary()
    if not found or not found.version().startswith(SERIES + '.'):
        raise NoBinary(f'Debian has no QEMU {SERIES} for this release')
    return found


def stock(same_source: bool = False) -> Binary:
    """
    A stock QEMU of our series

    @same_source: only one built from the source that ours was built from
    """
    path = Path(os.environ.get(
        'MIGRATION_TESTS_STOCK_QEMU',
        paths.BUILD / 'stock' / 'bin' / 'qemu-system-x86_64'))
    if path.exists():
        found = Binary('stock', path, _firmware_for(path))
        have, wanted = found.version(), ours().version() if same_source else ''
        if same_source and have != wanted:
            raise NoBinary(f'{path} is QEMU {have}, and ours is {wanted}: '
                           'run scripts/build and scripts/build --stock')
        return found
    if same_source:
        raise NoBinary(f'{path} does not exist: '
                       'run scripts/build --stock first')
    return debian_own()
