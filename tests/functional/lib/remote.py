# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM with remote memory, as seen from its monitor and from /proc

The one place that knows the names of query-remote-memory and what belongs to
it.
"""

import os
from pathlib import Path
import re
import time
from typing import Any, Dict, List, Optional, cast

from .vm import QMPDict, VM


PATIENCE = 180.0
PAGE = 4096
# Of wait_stuck(); all together are much shorter than what loses a memory host
STUCK_LOOKS = 12


class RemoteError(Exception):
    """Remote memory did not do what it should"""


def query(machine: VM) -> QMPDict:
    """What query-remote-memory says"""
    return cast(QMPDict, machine.cmd('query-remote-memory'))


def wait_for(machine: VM, name: str, status: Optional[str] = None,
             timeout: float = PATIENCE, never: str = '') -> QMPDict:
    """Wait for the event @name, with @status, dropping events before it

    An event @never before it is an error.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RemoteError(f'no {name} {status or ""} within {timeout} s: '
                              f'{query(machine)}')
        event = machine.next_event(left)
        if event and event['event'] == never:
            raise RemoteError(f'{never} before {name} {status or ""}')
        if event and event['event'] == name and (
                not status or event['data']['status'] == status):
            return event


def wait_event(machine: VM, status: str, timeout: float = PATIENCE,
               never: str = '') -> QMPDict:
    """Wait for REMOTE_MEMORY with @status, dropping events before it"""
    return wait_for(machine, 'REMOTE_MEMORY', status, timeout, never)


def wait_stuck(machine: VM, timeout: float = PATIENCE) -> None:
    """
    Wait until somebody waits for a page, and nothing else happens

    Which is so when nothing has changed in many looks: on a busy machine, a
    page that comes may take some time as well.
    """
    deadline = time.monotonic() + timeout
    before: Any = None
    looks = 0
    while looks < STUCK_LOOKS:
        said = query(machine)
        now = [said['faults'], said['resident'], said['remote'],
               *(host['fetched'] for host in said['hosts'])]
        looks = looks + 1 if said['waiting'] and now == before else 0
        if time.monotonic() > deadline:
            raise RemoteError(f'nobody waits for a page: {said}')
        before = now
        time.sleep(0.2)


def gather(machine: VM) -> None:
    """Bring everything home; returns when it is there"""
    machine.cmd('remote-memory-gather')
    wait_event(machine, 'gathered')


class Mapping:
    """One mapping of a process, from smaps"""

    def __init__(self, fields: Dict[str, str]):
        self.size = int(fields['Size'].split()[0]) * 1024
        self.rss = int(fields['Rss'].split()[0]) * 1024
        flags = fields['VmFlags'].split()
        self.userfault = 'um' in flags or 'uw' in flags


def mappings(machine: VM) -> List[Mapping]:
    """All mappings of the VM's process"""
    text = Path(f'/proc/{machine.get_pid()}/smaps').read_text(encoding='utf-8')
    found: List[Mapping] = []
    fields: Dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r'(\w+):\s*(.*)', line)
        if match:
            fields[match.group(1)] = match.group(2)
            if match.group(1) == 'VmFlags':
                found.append(Mapping(fields))
                fields = {}
    return found


def paged_rss(machine: VM) -> int:
    """Bytes resident where userfaultfd watches: guest RAM and staging"""
    return sum(one.rss for one in mappings(machine) if one.userfault)


def wait_resident(machine: VM, limit: int,
                  timeout: float = PATIENCE) -> None:
    """Wait until what is here is below a new, lower main-memory"""
    deadline = time.monotonic() + timeout
    while True:
        said = query(machine)
        if said['unmanaged'] + said['resident'] + said['staged'] <= limit:
            return
        if time.monotonic() > deadline:
            raise RemoteError(f'more than {limit} bytes stay here: {said}')
        time.sleep(0.1)


def status_bytes(machine: VM, field: str) -> int:
    """What /proc says of the VM's process, such as VmRSS"""
    text = Path(f'/proc/{machine.get_pid()}/status').read_text('ascii')
    found = re.search(rf'^{field}:\s*(\d+) kB$', text, re.MULTILINE)
    if not found:
        raise RemoteError(f'no {field} in: {text}')
    return int(found.group(1)) * 1024


def leftovers(machine: VM) -> List[str]:
    """What is left of remote memory in the process: nothing, when gathered"""
    pid = machine.get_pid()
    found = [f'{one.size >> 20} MiB watched by userfaultfd'
             for one in mappings(machine) if one.userfault]
    for number in os.listdir(f'/proc/{pid}/fd'):
        try:
            target = os.readlink(f'/proc/{pid}/fd/{number}')
        except FileNotFoundError:
            continue
        if target == 'anon_inode:[userfaultfd]':
            found.append(f'descriptor {number}: {target}')
    names = [name for name, _ in machine.thread_ticks().values()]
    found += [f'thread {name}' for name in names if 'pager' in name]
    return found


def info(machine: VM) -> Dict[str, Any]:
    """The member split of query-migrate's strategy, at the source"""
    said = machine.migration().get('strategy', {}).get('split')
    if said is None:
        raise RemoteError('query-migrate tells nothing of split memory')
    return cast(Dict[str, Any], said)


__all__ = ['PAGE', 'RemoteError', 'gather', 'info', 'leftovers', 'mappings',
           'paged_rss', 'query', 'status_bytes', 'wait_event', 'wait_for',
           'wait_resident', 'wait_stuck']
