"""The hosts that this node has heard of since it started, itself apart."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from msgspec.structs import replace

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import HOST, PeerUp
from offgrid_node.protocol.objects.preference import UNKNOWN, Facts, Host, refusal
from offgrid_node.protocol.pace import Pace, Paces, all_free
from offgrid_node.protocol.timers import Timers

WHY_CHARS_MAX = 256


class Hosts:
    """Each with how often it has come up, so that what failed before is forgiven then, and since when it is dead. One
    that is dead for `repair_after_ms`, or was removed, is lost: what it holds is to be held by others too."""

    def __init__(
        self, self_id: str, repair_after_ms: int, *, only_chosen: bool = False, paces: Paces = all_free
    ) -> None:
        """`only_chosen`: nothing new for any host before `choose` has said for which."""
        self._paces = paces
        self._self_id, self._repair_after_ms = self_id, repair_after_ms
        self._chosen: frozenset[str] | None = frozenset() if only_chosen else None
        self._lost_ms: dict[str, int] = {}  # dead hosts: from when on they are lost
        self._waits: Timers[str] = Timers()  # for those that are not yet
        self._hosts: dict[str, Host] = {}
        self._drained: list[str] = []
        self._lives: dict[str, int] = {}
        self._failures: dict[
            str, tuple[str, str]
        ] = {}  # of each, in its present life: of which object the last was, why

    def load(self, holders: Iterable[str], now: Now) -> None:
        """Whoever holds something and is not heard of from now on is dead since now."""
        for node_id in holders:
            self._dies(node_id, now, self._repair_after_ms)

    def on_up(self, event: PeerUp, now: Now) -> bool:
        """Whether it is a host. One that is none any more is as good as dead."""
        if event.node_id == self._self_id:
            return False
        if HOST not in event.roles:
            self.on_down(event.node_id, now)
            return False
        before = self._hosts.get(event.node_id)
        facts = before.facts if before is not None and before.alive else UNKNOWN
        self._hosts[event.node_id] = Host(event.node_id, event.weight_milli, event.failure_domain, True, facts)
        self._lives[event.node_id] = self.lives(event.node_id) + 1
        self._lost_ms.pop(event.node_id, None)
        self._waits.cancel(event.node_id)
        self._failures.pop(event.node_id, None)
        return True

    def on_down(self, node_id: str, now: Now, *, removed: bool = False) -> bool:
        """Whether that changes anything. One that was `removed` does not come back."""
        host = self._hosts.get(node_id)
        if host is not None and host.alive:
            self._hosts[node_id] = replace(host, alive=False)
        elif not removed:
            return False
        self._dies(node_id, now, 0 if removed else self._repair_after_ms)
        return True

    def on_facts(self, node_id: str, facts: Facts) -> bool:
        """What a living host was found to be. Whether it takes more than it did, as far as was known."""
        host = self._hosts.get(node_id)
        if host is None or not host.alive:
            return False
        if facts.drained and not host.facts.drained:
            self._drained.append(node_id)
        self._hosts[node_id] = found = replace(host, facts=facts)
        return _takes(found) > _takes(host)

    def on_failed(self, node_id: str, object_id: str, why: str) -> None:
        """What was brought there was not taken."""
        self._failures[node_id] = object_id, why[:WHY_CHARS_MAX]

    def on_took(self, node_id: str) -> None:
        self._failures.pop(node_id, None)

    def failure(self, node_id: str) -> tuple[str, str] | None:
        """Of which object the host has failed since it last took anything, the last time, and why."""
        return self._failures.get(node_id)

    def _dies(self, node_id: str, now: Now, lost_after_ms: int) -> None:
        self._lost_ms[node_id] = now.mono_ms + lost_after_ms
        self._waits.set(node_id, self._lost_ms[node_id])

    def choose(self, node_ids: frozenset[str]) -> bool:
        """Only these are given anything new. Whether that is more than before."""
        before, self._chosen = self._chosen, node_ids
        return before is None or bool(node_ids - before)

    def deadline_ms(self) -> int | None:
        return self._waits.next_ms()

    def take_lost(self, now: Now) -> list[str]:
        """Those that are lost from now on."""
        return self._waits.take_due(now.mono_ms)

    def take_drained(self) -> list[str]:
        """Hosts that say since the last question that they are drained."""
        drained, self._drained = self._drained, []
        return drained

    def is_lost(self, node_id: str, now_ms: int) -> bool:
        lost_ms = self._lost_ms.get(node_id)
        return lost_ms is not None and lost_ms <= now_ms

    def all(self) -> list[Host]:
        return [self._as_chosen(host) for host in self._hosts.values()]

    def get(self, node_id: str, weight_milli: int) -> Host:
        """With the weight that it has in some epoch; one not heard of is taken for dead."""
        host = self._hosts.get(node_id)
        if host is None:
            return Host(node_id, weight_milli, "", alive=False)
        return self._as_chosen(host if host.weight_milli == weight_milli else replace(host, weight_milli=weight_milli))

    def is_alive(self, node_id: str) -> bool:
        host = self._hosts.get(node_id)
        return host is not None and host.alive

    def was_heard(self, node_id: str) -> bool:
        """Since this node was started."""
        return node_id in self._hosts

    def is_drained(self, node_id: str) -> bool:
        """As it last said."""
        return self.get(node_id, 0).facts.drained

    def weight_milli(self, node_id: str) -> int | None:
        """Of now; None of one not heard of."""
        host = self._hosts.get(node_id)
        return host.weight_milli if host is not None else None

    def _as_chosen(self, host: Host) -> Host:
        return host if self._chosen is None or host.node_id in self._chosen else replace(host, chosen=False)

    def pace(self, node_id: str) -> Pace:
        """Of the road there."""
        return self._paces(node_id)

    def lives(self, node_id: str) -> int:
        return self._lives.get(node_id, 0)


def _takes(host: Host) -> float:
    """Bytes more."""
    if refusal(host, 0) is not None:
        return 0
    return inf if host.facts.room_bytes is None else host.facts.room_bytes
