"""What the other domains are told of each member, and when: PeerUp and PeerDown, said once per change.

A member is up from the first sign of life until it is found dead or loses its membership; a suspect stays what it was.
PeerUp is said again when name or roles change and when the node has restarted (a higher boot), PeerDown also of a
member that was never heard of since this node started: others may hold rows of it. The journal says nothing of that,
for nobody has seen it die: a mesh that starts is full of members that are still to come.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Effect, Raise, Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.mesh.swim import ALIVE, DEAD, SUSPECT

AUDIENCE = ("jobs", "objects", "quorum", "ledger", "state", "mail")


class _Said(msgspec.Struct, frozen=True):
    up: PeerUp | None
    boot: int
    removed: bool = False


class Standing:
    """Remembers what was said of whom."""

    def __init__(self, self_id: str) -> None:
        self._self_id = self_id
        self._said: dict[str, _Said] = {}

    def known(self) -> list[str]:
        """Nodes of which something was said."""
        return list(self._said)

    def report(self, up: PeerUp, liveness: int, boot: int) -> list[Effect]:
        """A member's present state. `up`: what would be said of it if it is alive; `boot`: 0 if never heard of."""
        said = self._said.get(up.node_id)
        was_up = said is not None and said.up is not None
        if liveness == SUSPECT and not was_up:
            return []
        if liveness == DEAD:
            if said is not None and not was_up and not said.removed:
                return []
            self._said[up.node_id] = _Said(None, boot)
            died = [_record(up.node_id, DEAD)] if boot else []
            return [*died, *_tell(PeerDown(up.node_id))]
        if said == _Said(up, boot):
            return []
        self._said[up.node_id] = _Said(up, boot)
        same_life = said is not None and was_up and said.boot == boot
        told: list[Effect] = [] if same_life or up.node_id == self._self_id else [_record(up.node_id, ALIVE)]
        return [*told, *_tell(up)]

    def gone(self, node_id: str, *, removed: bool) -> list[Effect]:
        """It is no member any more (`removed`), or this node takes part no longer. Said once, and also of a member of
        which nothing was said since this node started: others may hold rows of it."""
        said = self._said.get(node_id)
        if said is not None and said.up is None and said.removed >= removed:
            return []
        self._said[node_id] = _Said(None, 0, removed)
        return _tell(PeerDown(node_id, removed))


def _tell(news: PeerUp | PeerDown) -> list[Effect]:
    return [Raise(domain, news) for domain in AUDIENCE]


def _record(node_id: str, liveness: int) -> Record:
    etype, word = (EventType.PEER_ALIVE, "alive") if liveness == ALIVE else (EventType.PEER_DEAD, "dead")
    event = state_pb2.Event(etype=etype, subject=node_id)
    event.peer.node_id, event.peer.liveness = node_id, word
    return Record(event)
