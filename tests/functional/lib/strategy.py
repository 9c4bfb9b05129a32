# SPDX-License-Identifier: GPL-2.0-or-later
"""
The monitor interface of strategies: the one place that knows its names

Nothing else in the tests, the demo and the benchmarks spells a member of the
"strategy" parameter or of query-migrate's "strategy".
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional


MODES = ('precopy', 'postcopy', 'hybrid', 'auto')
# The section of the stream, present when another mode than precopy is set
STRATEGY_SECTION = 'ram-strategy'


@dataclass(frozen=True)
class Strategy:
    """What is asked for; members that are None are left as they are"""
    mode: Optional[str] = None
    passes: Optional[int] = None
    background: Optional[bool] = None
    split: Optional[Dict[str, Any]] = None
    redirectable: Optional[bool] = None

    def arguments(self) -> Dict[str, Any]:
        """For migrate-set-parameters"""
        members = {name: value for name, value in vars(self).items()
                   if value is not None}
        return {'strategy': members}


@dataclass(frozen=True)
class Report:
    """What query-migrate says of a strategy; None where it says nothing"""
    mode: Optional[str] = None
    passes: Optional[int] = None
    switched: bool = False
    switch_reason: Optional[str] = None
    switch_ms: Optional[int] = None
    sentence: Optional[str] = None
    requests_in_flight: Optional[int] = None
    requests_peak: Optional[int] = None

    @classmethod
    def of(cls, answer: Dict[str, Any]) -> Optional['Report']:
        """From the answer to query-migrate, None when it has no strategy"""
        said = answer.get('strategy')
        if said is None:
            return None
        return cls(mode=said.get('mode'), passes=said.get('pass'),
                   switched=bool(said.get('switched')),
                   switch_reason=said.get('switch-reason'),
                   switch_ms=said.get('switch-time'),
                   sentence=said.get('reason'),
                   requests_in_flight=said.get('requests-in-flight'),
                   requests_peak=said.get('requests-peak'))


def is_supported(schema: Any) -> bool:
    """Whether the answer to query-qmp-schema has the parameter"""
    return any(member.get('name') == 'strategy'
               for entry in schema for member in entry.get('members', ()))
