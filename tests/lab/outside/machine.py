# SPDX-License-Identifier: GPL-2.0-or-later
"""
The lab's host as a virtual machine of this one, under TCG

Its virtio console is this program's input and output, its serial line goes to
a file.  It dies with the thread that started it.
"""

from pathlib import Path
import subprocess
import tarfile
from typing import IO, List, Optional

from lib.binary import Binary
from lib.vm import WRAPPER

from .kernel import Kernel


MEMORY_MIB = 2560
CPUS = 2
RESULTS_MIB = 64
KERNEL_ARGS = ('console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off '
               'nokaslr no_timer_check tsc=reliable cryptomgr.notests audit=0 '
               'nmi_watchdog=0 rcupdate.rcu_cpu_stall_suppress=1')


class Lab:
    """
    One run of the lab, with all its files in the folder @where

    @interactive: the console is a terminal's
    @asks: what runs there is to be given something by @stdin
    """

    def __init__(self, binary: Binary, kernel: Kernel, disk: Path,
                 where: Path, interactive: bool = False, asks: bool = False):
        self.console = where / 'console.log'
        self.stdout: Optional[IO[bytes]] = None
        self.stdin: Optional[IO[bytes]] = None
        self._results = where / 'results.tar'
        with open(self._results, 'wb') as results:
            results.truncate(RESULTS_MIB << 20)
        self._command = self._arguments(binary, kernel, disk, interactive)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._interactive = interactive
        self._asks = asks

    def _arguments(self, binary: Binary, kernel: Kernel, disk: Path,
                   interactive: bool) -> List[str]:
        def drive(path: Path, name: str) -> List[str]:
            return ['-drive', f'file={path},format=raw,if=none,id={name},'
                    'cache=unsafe', '-device', f'virtio-blk-pci,drive={name}']

        return [
            # A shell wants to stay in its terminal's session.
            *(WRAPPER[1:] if interactive else WRAPPER), str(binary.path),
            *binary.firmware_args(), '-nodefaults', '-no-user-config',
            '-name', 'kvm-lab', '-display', 'none', '-no-reboot',
            '-machine', 'q35', '-accel', 'tcg,thread=multi',
            # Five levels of page tables are one more to walk, twice.
            '-cpu', 'max,la57=off', '-smp', str(CPUS),
            '-m', f'{MEMORY_MIB}M',
            '-kernel', str(kernel.vmlinuz), '-initrd', str(kernel.initramfs),
            '-append', KERNEL_ARGS, *drive(disk, 'root'),
            *drive(self._results, 'results'),
            '-serial', f'file:{self.console}',
            '-device', 'virtio-serial-pci',
            '-chardev', 'stdio,id=lab,signal=off' if interactive
            else 'stdio,id=lab,signal=on',
            '-device', 'virtconsole,chardev=lab']

    def start(self) -> None:
        """Boot it"""
        if self._interactive:
            stdin, stdout = None, None
        else:
            stdin = subprocess.PIPE if self._asks else subprocess.DEVNULL
            stdout = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=stdin,
                                         stdout=stdout)
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def end(self) -> None:
        """End it, whatever state it is in"""
        if self._process:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until it has switched itself off"""
        assert self._process
        self._process.wait()

    def last_words(self) -> str:
        """The end of what its kernel said"""
        try:
            text = self.console.read_text('utf-8', 'replace')
        except OSError:
            return 'nothing was said'
        return ' / '.join(text.splitlines()[-4:])

    def collect(self, into: Path) -> Optional[int]:
        """
        Unpack what the cases left in /lab/out

        Returns the exit status of what ran in the lab, None if it never ended.
        """
        try:
            with tarfile.open(self._results) as archive:
                for member in archive.getmembers():
                    if member.isfile():
                        archive.extract(member, into)
            return int((into / 'status').read_text('ascii'))
        except (tarfile.TarError, OSError, ValueError):
            return None
