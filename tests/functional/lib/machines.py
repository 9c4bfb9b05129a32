# SPDX-License-Identifier: GPL-2.0-or-later
"""
The machines of one test: a guest, the VM it runs in, the VMs it may go to

Use it as a context manager: whatever happens, all processes are ended.
"""

from types import TracebackType
from typing import List, Optional, Tuple, Type

from . import accel, image
from .binary import Binary
from .guest import Guest, Load
from .tap import note
from .vm import HERE, PORTABLE_CPU, Host, VM


# Speaks up when the kernel dies, and does without what takes time under TCG.
# On a busy machine the timer interrupts that the kernel checks its wiring by
# come too late, and it would panic at once.
KERNEL_ARGS = ('console=ttyS0 quiet loglevel=1 panic=0 mitigations=off '
               'nokaslr tsc=reliable cryptomgr.notests audit=0 '
               'transparent_hugepage=never no_timer_check')


def boot_args(made: image.Image, load: Load) -> Tuple[str, ...]:
    """To boot the guest with @load"""
    return ('-kernel', str(made.kernel), '-initrd', str(made.initrd),
            '-append', f'{KERNEL_ARGS} {load.cmdline()}')


class Machines:
    """Starts VMs that are alike and ends them all"""

    def __init__(self, binary: Binary, load: Load, memory: int = 512,
                 smp: int = 1, extra: Tuple[str, ...] = (),
                 cpu: str = PORTABLE_CPU, accel_properties: str = ''):
        self.binary = binary
        self.load = load
        self.memory = memory
        self.smp = smp
        self.extra = extra
        self.image = image.ensure()
        self.cpu = cpu
        self.accel = accel.choose(binary, self.image) + accel_properties
        self.guest = Guest(load.beat)
        self._all: List[VM] = []
        self._count = 0

    def __enter__(self) -> 'Machines':
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close(explain=kind is not None)

    def close(self, explain: bool = False) -> None:
        """End all processes; @explain: print what they and the guest said"""
        for machine in self._all:
            machine.stop_process()
            said = machine.get_log()
            if explain and said:
                note(f'{machine.label} said:\n{said}')
        if explain and self.guest.lines:
            note('the guest said:\n' + '\n'.join(self.guest.lines[-16:]))
        self._all.clear()
        self.guest.close()

    def _add(self, name: str, binary: Optional[Binary],
             extra: Tuple[str, ...], host: Host) -> VM:
        self._count += 1
        machine = VM(binary or self.binary, f'{name}-{self._count}',
                     self.accel, self.memory, self.smp,
                     # What the guest boots from is part of the machine:
                     # fw_cfg's contents migrate.
                     extra=(*boot_args(self.image, self.load), *self.extra,
                            *extra), cpu=self.cpu, host=host)
        self._all.append(machine)
        self.guest.attach(machine)
        machine.launch()
        return machine

    def start(self, binary: Optional[Binary] = None,
              wait: bool = True, host: Host = HERE) -> VM:
        """Boot the guest"""
        machine = self._add('source', binary, (), host)
        self.guest.runs_in(machine)
        if wait:
            self.guest.wait_ready()
        return machine

    def expect(self, binary: Optional[Binary] = None,
               host: Host = HERE) -> VM:
        """A VM that waits for a migration, to be told where from"""
        return self._add('destination', binary, ('-incoming', 'defer'), host)

    def end(self, machine: VM) -> None:
        """End one of the VMs"""
        machine.stop_process()
        self._all.remove(machine)
