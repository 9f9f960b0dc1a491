"""The hosts that this node has heard of since it started, itself apart."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from offgrid_node.protocol.events import HOST, PeerUp
from offgrid_node.protocol.objects.preference import UNKNOWN, Facts, Host, refusal


class Hosts:
    """Each with how often it has come up, so that what failed before is forgiven then."""

    def __init__(self, self_id: str) -> None:
        self._self_id = self_id
        self._hosts: dict[str, Host] = {}
        self._lives: dict[str, int] = {}

    def on_up(self, event: PeerUp) -> bool:
        """Whether it is a host. One that is none any more is as good as dead."""
        if event.node_id == self._self_id:
            return False
        if HOST not in event.roles:
            self.on_down(event.node_id)
            return False
        before = self._hosts.get(event.node_id)
        facts = before.facts if before is not None and before.alive else UNKNOWN
        self._hosts[event.node_id] = Host(event.node_id, event.weight_milli, event.failure_domain, True, facts)
        self._lives[event.node_id] = self.lives(event.node_id) + 1
        return True

    def on_down(self, node_id: str) -> bool:
        """Whether that changes anything."""
        host = self._hosts.get(node_id)
        if host is None or not host.alive:
            return False
        self._hosts[node_id] = replace(host, alive=False)
        return True

    def on_facts(self, node_id: str, facts: Facts) -> bool:
        """What a living host was found to be. Whether it takes more than it did, as far as was known."""
        host = self._hosts.get(node_id)
        if host is None or not host.alive:
            return False
        self._hosts[node_id] = found = replace(host, facts=facts)
        return _takes(found) > _takes(host)

    def all(self) -> list[Host]:
        return list(self._hosts.values())

    def get(self, node_id: str, weight_milli: int) -> Host:
        """With the weight that it has in some epoch; one not heard of is taken for dead."""
        host = self._hosts.get(node_id)
        return replace(host, weight_milli=weight_milli) if host else Host(node_id, weight_milli, "", alive=False)

    def lives(self, node_id: str) -> int:
        return self._lives.get(node_id, 0)


def _takes(host: Host) -> float:
    """Bytes more."""
    if refusal(host, 0) is not None:
        return 0
    return inf if host.facts.room_bytes is None else host.facts.room_bytes
