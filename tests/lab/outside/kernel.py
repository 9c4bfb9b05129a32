# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel of the lab's host and its initramfs, in build/lab

Debian's own for clouds, of Linux 6.8 or later: UFFDIO_MOVE is what split
memory wants.  In Debian 12 that is the one of backports.  It is fetched once.
"""

import fcntl
from pathlib import Path
import shutil
import tempfile
from typing import NamedTuple

from lib import debian, image, paths


LAB = paths.BUILD / 'lab'
BUSYBOX = Path('/bin/busybox')
INIT = Path(__file__).parent / 'initramfs-init'
# That of the hardware that TCG plays comes first
MODULES = ('virtio_blk', 'kvm_amd', 'veth', 'bridge', 'sch_netem', 'sch_tbf')


class Kernel(NamedTuple):
    """What the lab boots from"""
    vmlinuz: Path
    initramfs: Path
    release: str


class KernelError(Exception):
    """There is no kernel; the text says why"""


def _fetch(where: Path) -> None:
    """Put vmlinuz, release and the modules into @where"""
    backports = debian.codename() == 'bookworm'
    apt = debian.Apt(where / 'apt', backports=backports)
    apt.update()
    suite = apt.release + ('-backports' if backports else '')
    names = [name for name in apt.depends(image.KERNEL_PACKAGE, suite)
             if name.startswith('linux-image-')]
    if not names:
        raise KernelError(f'{image.KERNEL_PACKAGE} of {suite} names no kernel')
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        tree = Path(scratch) / 'tree'
        debian.unpack([apt.download(names[0], Path(scratch))], tree)
        vmlinuz = next((tree / 'boot').glob('vmlinuz-*'))
        modules = where / 'modules'
        shutil.rmtree(modules, ignore_errors=True)
        modules.mkdir()
        for name, content in image.module_members(tree, MODULES).items():
            (modules / name).write_bytes(content)
        (where / 'release').write_text(vmlinuz.name.split('-', 1)[1], 'ascii')
        _wanted(where).write_text(' '.join(MODULES), 'ascii')
        # Last, as it is what says that all is there.
        shutil.copyfile(vmlinuz, where / 'vmlinuz.new')
        (where / 'vmlinuz.new').rename(where / 'vmlinuz')


def _wanted(where: Path) -> Path:
    """Says which modules were asked for"""
    return where / 'modules-wanted'


def _is_there(where: Path) -> bool:
    try:
        return ((where / 'vmlinuz').exists() and
                _wanted(where).read_text('ascii') == ' '.join(MODULES))
    except OSError:
        return False


def _build_initramfs(where: Path) -> Path:
    if not BUSYBOX.exists():
        raise KernelError(f'{BUSYBOX} is not there: install busybox-static')
    members = {'init': INIT.read_bytes(), 'busybox': BUSYBOX.read_bytes()}
    for path in sorted((where / 'modules').iterdir()):
        members[f'modules/{path.name}'] = path.read_bytes()
    made = where / 'initramfs.cpio'
    (where / 'initramfs.new').write_bytes(image.archive(members))
    (where / 'initramfs.new').rename(made)
    return made


def ensure(where: Path = LAB) -> Kernel:
    """Make what is missing; safe to call at the same time"""
    where.mkdir(parents=True, exist_ok=True)
    with open(where / '.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_there(where):
            _fetch(where)
        return Kernel(where / 'vmlinuz', _build_initramfs(where),
                      (where / 'release').read_text('ascii'))
