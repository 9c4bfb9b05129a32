# SPDX-License-Identifier: GPL-2.0-or-later
"""
Which accelerator can run the test guest here

/dev/kvm may exist and run firmware but not Linux, as under some nested
hypervisors: so the guest is booted under KVM once, within a bound.  The answer
is kept in build/guest until the host or the guest's kernel is another.
MIGRATION_TESTS_ACCEL names one instead.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Dict

from . import image, paths
from .binary import Binary


# KVM boots the guest in about a second; where it cannot, it hangs or dies.
PROBE_SECONDS = 15.0


def _facts(made: image.Image) -> Dict[str, object]:
    def state(path: Path) -> str:
        status = path.resolve().stat()
        return f'{status.st_mtime_ns}:{status.st_size}'

    return {
        'boot': Path('/proc/sys/kernel/random/boot_id').read_text(
            'ascii').strip(),
        'kernel': state(made.kernel),
    }


def _boots_under_kvm(binary: Binary, made: image.Image) -> str:
    """Why KVM cannot be used, empty when it can"""
    # pylint: disable=import-outside-toplevel,cyclic-import
    from .guest import Guest, GuestError, Load
    from .machines import boot_args
    from .vm import VM, QEMUMachineError

    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return '/dev/kvm cannot be opened'
    load = Load(fill=16)
    guest = Guest(load.beat)
    machine = VM(binary, 'kvm-probe', 'kvm', memory=256,
                 extra=boot_args(made, load))
    try:
        guest.attach(machine)
        machine.launch()
        guest.wait_ready(PROBE_SECONDS)
    except GuestError:
        return f'the guest did not boot within {PROBE_SECONDS:.0f} s'
    except QEMUMachineError:
        said = (machine.get_log() or '').strip().splitlines()
        return f'QEMU does not start: {said[0] if said else "no reason given"}'
    finally:
        machine.stop_process()
        guest.close()
    return ''


def choose(binary: Binary, made: image.Image) -> str:
    """ "kvm" where it really runs the guest, "tcg" elsewhere """
    wanted = os.environ.get('MIGRATION_TESTS_ACCEL')
    if wanted:
        return wanted
    answers = paths.GUEST / 'accel.json'
    with open(paths.GUEST / '.accel-lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = _facts(made)
        try:
            known = json.loads(answers.read_text('utf-8'))
        except (OSError, ValueError):
            known = {}
        if known.get('facts') != facts:
            why_not = _boots_under_kvm(binary, made)
            known = {'facts': facts, 'accel': 'tcg' if why_not else 'kvm',
                     'why': why_not}
            answers.write_text(json.dumps(known, indent=1) + '\n', 'utf-8')
    return str(known['accel'])


def reason() -> str:
    """Why KVM is not used, empty when it is or when nobody asked yet"""
    try:
        known = json.loads((paths.GUEST / 'accel.json').read_text('utf-8'))
    except (OSError, ValueError):
        return ''
    return str(known.get('why', ''))
