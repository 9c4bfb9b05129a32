# SPDX-License-Identifier: GPL-2.0-or-later
"""
Migrations whose destination changes, between hosts of a network
"""

import time
from typing import Any, Dict, Optional, Tuple

from .guest import Guest
from .links import Links
from .migration import MIB, PATIENCE, Migration, MigrationError, Settings
from .vm import ExecuteError, QMPDict, VM


class Redirection(Migration):
    """
    Moves @guest from @source to the first of @hosts, unless redirected

    @hosts: name on @links, and the VM that waits there
    """

    def __init__(self, source: VM, hosts: Dict[str, VM], guest: Guest,
                 settings: Settings, links: Links):
        self.hosts = hosts
        self.links = links
        self.now_to = next(iter(hosts))
        super().__init__(source, hosts[self.now_to], guest, settings)

    def prepare(self) -> None:
        """Configure all"""
        super().prepare()
        wanted = {'events', *self.settings.capabilities}
        for machine in self.hosts.values():
            if machine is not self.destination:
                machine.forget_events()
                machine.set_capabilities(wanted)

    def listen(self) -> str:
        """Have the first host listen, return where"""
        return self.listen_on(self.now_to)

    def listen_on(self, name: str) -> str:
        """Have a host listen, return where"""
        uri = self.links.uri(name)
        self.hosts[name].cmd('migrate-incoming', uri=uri)
        return uri

    def wait_sent(self, amount: int) -> None:
        """Wait until the source has sent so many bytes in the first pass"""
        def test() -> bool:
            ram = self.source.migration().get('ram', {})
            return bool(ram.get('transferred', 0) >= amount)

        deadline = time.monotonic() + PATIENCE
        while not test():
            if self.ended or time.monotonic() > deadline:
                raise MigrationError(f'{amount} bytes were never sent: '
                                     f'{self.source.migration()}')
            self.step(0.02)

    def redirect(self, name: str) -> Optional[str]:
        """Go to another host, which listens; or why it does not"""
        uri = self.links.uri(name)
        try:
            self.source.cmd('migrate-redirect', uri=uri)
        except ExecuteError as exc:
            return str(exc)
        self.now_to = name
        self.destination = self.hosts[name]
        return None

    def redirect_info(self, machine: VM) -> QMPDict:
        """What @machine says of the redirect; empty when it says nothing"""
        strategy: Dict[str, Any] = machine.migration().get('strategy', {})
        return dict(strategy.get('redirect', {}))

    def wait_relayed(self, name: str) -> Tuple[str, QMPDict]:
        """Wait for the old destination's word that it has no part in it"""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            event = self.hosts[name].next_event(1.0)
            if event and event['event'] == 'MIGRATION_REDIRECTED':
                data: QMPDict = event['data']
                return str(data['status']), data
        raise MigrationError(f'no MIGRATION_REDIRECTED from {name}: '
                             f'{self.hosts[name].migration()}')


def data_of(fill: int) -> int:
    """Bytes that a guest with @fill MiB of data has to be sent, roughly"""
    return (fill + 64) * MIB
