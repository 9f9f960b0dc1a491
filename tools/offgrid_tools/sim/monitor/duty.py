"""Rules of hosts' owners: what they have switched off begins nothing, whom they deny gets nothing, and nobody's work is
done for less than their rules say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.duty import ON
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.settings import Rule
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules

ALL = "*"


class DutyRules(Rules):
    """Told of what owners were answered, and of all that begins. Rules here name members by name, and no hours; of
    several that are for somebody the first is the cheapest, and has slots of its own."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._off: set[str] = set()
        self._starts: dict[tuple[str, ClaimKey], tuple[int, int]] = {}  # (host, attempt): price and size

    def requests(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.StartJobsRequest: self._started}

    def lies(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.StartJobsRequest: self._started}

    def _started(self, core: str, host: str, request: jobs_pb2.StartJobsRequest) -> None:
        for start in request.starts:
            order = JobOrder.decode(start.order)
            self._starts[host, order.key] = start.price_micro, order.size_tokens

    def on_toggling(self, host: str, state: str) -> None:
        """Its owner is about to say so."""
        if state == ON:
            self._off.discard(host)

    def on_toggled(self, host: str, state: str) -> None:
        """Its owner was told that it is so."""
        if state != ON:
            self._off.add(host)

    def on_execute(
        self, host: str, rules: Sequence[Rule], key: ClaimKey, needs: str, executing: Collection[ClaimKey]
    ) -> None:
        """`executing` is what is under way there already."""
        if host in self._off:
            raise Violation(f"{self._evidence.name_of(host)} is switched off, and begins {key[1]}/{key[2]}")
        if not rules or key[0] == host:
            return
        own = [rule for rule in rules if self._is_for(rule, key[0], needs)]
        if not own or own[0].deny:
            name = self._evidence.name_of(key[0])
            raise Violation(f"{self._evidence.name_of(host)} does {needs} for {name}, whom its rules deny it")
        asks = [rule.price_micro for rule in own]
        others = [other for other in executing if other != key and other[0] == key[0]]
        cheap = sum(self._pays_less(host, other, max(asks)) for other in others)
        crowded = self._pays_less(host, key, max(asks)) and cheap >= own[0].slots
        if self._pays_less(host, key, min(asks)) or crowded:
            raise Violation(f"{self._evidence.name_of(host)} does {key[1]}/{key[2]} for less than its rules ask")

    def _pays_less(self, host: str, key: ClaimKey, ask_micro: int) -> bool:
        price_micro, size_tokens = self._starts.get((host, key), (0, 0))
        return price_micro < price_of(ask_micro, size_tokens)

    def _is_for(self, rule: Rule, core: str, needs: str) -> bool:
        covered = any(needs == each or (each.endswith(ALL) and needs.startswith(each[:-1])) for each in rule.executors)
        return covered and (ALL in rule.owners or self._evidence.name_of(core) in rule.owners)
