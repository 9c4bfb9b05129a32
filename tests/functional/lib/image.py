# SPDX-License-Identifier: GPL-2.0-or-later
"""
The test guest's kernel and initramfs, in build/guest

The kernel is Debian's own for clouds, unpacked and not installed; init is
tests/functional/guest/init.c.  ensure() does only what is missing or out of
date and needs no network when the kernel is there.
"""

import fcntl
import hashlib
import lzma
import os
from pathlib import Path
import re
import shutil
import stat
import subprocess
import tempfile
from typing import Dict, List, NamedTuple, Tuple

from . import debian, paths


KERNEL_PACKAGE = 'linux-image-cloud-amd64'
INIT_SOURCE = (paths.REPO / 'tests' / 'functional' / 'guest' / 'init.c')
# What a virtio disk needs beyond the kernel itself
MODULES = ('virtio_pci', 'virtio_blk')
CFLAGS = ('-static', '-O2', '-Wall', '-Wextra', '-pthread')


class Image(NamedTuple):
    """What QEMU needs to boot the guest"""
    kernel: Path
    initrd: Path


class ImageError(Exception):
    """The guest could not be made; the text is a sentence for the user"""


def _fetch_kernel(where: Path) -> None:
    """Put vmlinuz and the modules into @where"""
    apt = debian.Apt(where / 'apt')
    apt.update()
    kernels = [name for name in apt.depends(KERNEL_PACKAGE)
               if name.startswith('linux-image-')]
    if not kernels:
        raise ImageError(f'{KERNEL_PACKAGE} names no kernel')
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        package = apt.download(kernels[0], Path(scratch))
        tree = Path(scratch) / 'tree'
        debian.unpack([package], tree)
        vmlinuz = next((tree / 'boot').glob('vmlinuz-*'))
        modules = Path(scratch) / 'modules'
        modules.mkdir()
        for name, content in module_members(tree, MODULES).items():
            (modules / name).write_bytes(content)
        shutil.rmtree(where / 'modules', ignore_errors=True)
        modules.rename(where / 'modules')
        (where / 'version').write_text(package.name + '\n', encoding='ascii')
        # Last, as it is what says that all is there.
        shutil.copyfile(vmlinuz, where / 'vmlinuz.new')
        (where / 'vmlinuz.new').rename(where / 'vmlinuz')


def _with_dependencies(tree: Path,
                       wanted: Tuple[str, ...]) -> List[Tuple[str, bytes]]:
    """Modules and what they depend on, in an order to load them in"""
    files: Dict[str, Path] = {}
    for path in tree.rglob('*.ko*'):
        files[path.name.split('.')[0].replace('-', '_')] = path
    order: List[Tuple[str, bytes]] = []

    def add(name: str) -> None:
        # A module that is not there is part of the kernel.
        if name not in files or name in (done for done, _ in order):
            return
        content = files[name].read_bytes()
        if files[name].suffix == '.xz':
            content = lzma.decompress(content)
        found = re.search(rb'\0depends=([^\0]*)\0', content)
        for needed in found.group(1).decode().split(',') if found else []:
            add(needed.replace('-', '_'))
        order.append((name, content))

    for name in wanted:
        add(name)
    return order


def module_members(tree: Path, wanted: Tuple[str, ...]) -> Dict[str, bytes]:
    """Files of @wanted modules and, in "order", the order to load them in"""
    found = _with_dependencies(tree, wanted)
    members = {f'{name}.ko': content for name, content in found}
    members['order'] = ''.join(f'{name}\n' for name in members).encode()
    return members


def _newc(name: str, mode: int, content: bytes = b'',
          device: Tuple[int, int] = (0, 0), inode: int = 0) -> bytes:
    """One member of a cpio archive of the kind that the kernel reads"""
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0,
              device[0], device[1], len(name) + 1, 0)
    header = b'070701' + b''.join(b'%08X' % field for field in fields)
    header += name.encode() + b'\0'
    header += b'\0' * (-len(header) % 4)
    return header + content + b'\0' * (-len(content) % 4)


def archive(members: Dict[str, bytes]) -> bytes:
    """The initramfs with @members, the directories they need and a console"""
    parts = [_newc('dev', stat.S_IFDIR | 0o755, inode=1),
             _newc('dev/console', stat.S_IFCHR | 0o600, device=(5, 1),
                   inode=2),
             _newc('modules', stat.S_IFDIR | 0o755, inode=3)]
    for inode, (name, content) in enumerate(members.items(), 4):
        parts.append(_newc(name, stat.S_IFREG | 0o755, content, inode=inode))
    parts.append(_newc('TRAILER!!!', 0))
    return b''.join(parts)


def _build_initrd(where: Path) -> None:
    compiler = os.environ.get('CC', 'gcc')
    try:
        subprocess.run([*compiler.split(), *CFLAGS, '-o', str(where / 'init'),
                        str(INIT_SOURCE), '-lm'], check=True)
    except FileNotFoundError as exc:
        raise ImageError(f'{compiler} is not installed: it compiles the '
                         "guest's init") from exc
    except subprocess.CalledProcessError as exc:
        raise ImageError(f'{INIT_SOURCE} does not compile') from exc
    members = {'init': (where / 'init').read_bytes()}
    for path in sorted((where / 'modules').iterdir()):
        members[f'modules/{path.name}'] = path.read_bytes()
    (where / 'initramfs.new').write_bytes(archive(members))
    (where / 'initramfs.new').rename(where / 'initramfs.cpio')
    made_from(where).write_text(_sources(where), encoding='ascii')


def _sources(where: Path) -> str:
    """
    What initramfs.cpio is made from, as a digest

    Times would not do: those of a copy may be in whole seconds.
    """
    digest = hashlib.sha256()
    for path in (INIT_SOURCE, Path(__file__), where / 'version'):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_up_to_date(where: Path) -> bool:
    try:
        return ((where / 'initramfs.cpio').exists() and
                made_from(where).read_text('ascii') == _sources(where))
    except OSError:
        return False


def made_from(where: Path = paths.GUEST) -> Path:
    """The file that says what the initramfs was made from"""
    return where / 'made-from'


def ensure(where: Path = paths.GUEST) -> Image:
    """Make what is missing or out of date; safe to call at the same time"""
    where.mkdir(parents=True, exist_ok=True)
    image = Image(where / 'vmlinuz', where / 'initramfs.cpio')
    with open(where / '.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.kernel.exists():
            _fetch_kernel(where)
        if not _is_up_to_date(where):
            _build_initrd(where)
    return image
