"""How brokers learn of this node's quorums: each is told every row that has changed since it last listened.

Every change of a row gets the next number, and the row's former number is forgotten; so the changes after the number
that a broker was last told are just the rows it does not have as they are, whether it was away for a second or for a
month. Changes are gathered for a moment, and told from committed rows in pages, one page at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.events import BROKER, PeerUp
from offgrid_node.protocol.quorum.commands import TellTag
from offgrid_node.protocol.quorum.tables import (
    CHANGES,
    LAST_CHANGE,
    META,
    QUORUMS,
    TOLD,
    number_key,
    number_of,
    quorum_key,
)

GATHER_MS = 200  # changes are told together
PAGE_ROWS = 64  # in one call; a broker checks every signature in it
RETRY_MS, RETRY_MAX_MS = 1_000, 60_000
TELL_TIMEOUT_MS = 60_000  # a page of the largest rows is 1.5 MB, on a slow road
TRACK = "offgrid.v1.QuorumService/TrackQuorums"


@dataclass(slots=True)
class _Broker:
    """`told` is the last change that it was told; `due_ms` when it may be told more, None while a call is under way."""

    told: int
    due_ms: int | None
    delay_ms: int = RETRY_MS


class Telling:
    """Numbers changes, and brings them to the brokers that are alive."""

    def __init__(self, self_id: str, draft: Draft) -> None:
        self._self_id, self._draft = self_id, draft
        self._brokers: dict[str, _Broker] = {}
        self._last = 0

    def load(self) -> None:
        self._last = number_of(self._draft.get(META, LAST_CHANGE))

    def on_change(self, row: quorum_pb2.QuorumRow, quorum_id: str, now: Now) -> None:
        """Gives `row`, about to be written, its number."""
        if row.change:
            self._draft.delete(CHANGES, number_key(row.change))
        self._last += 1
        row.change = self._last
        self._draft.put_bytes(CHANGES, number_key(self._last), quorum_id.encode())
        self._draft.put_bytes(META, LAST_CHANGE, number_key(self._last))
        for broker in self._brokers.values():
            if broker.told == self._last - 1 and broker.due_ms is not None:
                broker.due_ms = now.mono_ms + GATHER_MS

    def on_up(self, event: PeerUp, now: Now) -> None:
        if BROKER not in event.roles or event.node_id == self._self_id:
            self.on_down(event.node_id)
            return
        known = self._brokers.get(event.node_id)
        told = known.told if known else number_of(self._draft.get(TOLD, event.node_id.encode()))
        self._brokers[event.node_id] = _Broker(min(told, self._last), now.mono_ms)  # a restored backup counts anew

    def on_down(self, node_id: str) -> None:
        self._brokers.pop(node_id, None)

    def on_told(self, tag: TellTag, answer: Answered, now: Now) -> None:
        """The end of a TrackQuorums."""
        broker = self._brokers.get(tag.broker)
        if answer.fault is not None:
            if broker is not None:
                broker.due_ms = now.mono_ms + broker.delay_ms
                broker.delay_ms = min(RETRY_MAX_MS, 2 * broker.delay_ms)
            return
        if broker is None or tag.upto <= broker.told:
            return
        broker.told, broker.due_ms, broker.delay_ms = tag.upto, now.mono_ms, RETRY_MS
        self._draft.put_bytes(TOLD, tag.broker.encode(), number_key(tag.upto))

    def deadline_ms(self) -> int | None:
        waiting = (b.due_ms for b in self._brokers.values() if b.due_ms is not None and b.told < self._last)
        return min(waiting, default=None)

    def close_step(self, now: Now) -> None:
        for node_id, broker in self._brokers.items():
            if broker.due_ms is not None and broker.told < self._last and broker.due_ms <= now.mono_ms:
                self._tell(node_id, broker, now)

    def _tell(self, node_id: str, broker: _Broker, now: Now) -> None:
        rows: list[quorum_pb2.QuorumRow] = []
        upto = broker.told
        for key, quorum_id in self._draft.committed(CHANGES, number_key(broker.told + 1)):
            upto = number_of(key)
            row = self._draft.row(QUORUMS, quorum_key(self._self_id, quorum_id.decode()), quorum_pb2.QuorumRow)
            if row is not None:
                row.ClearField("change")
                rows.append(row)
            if len(rows) == PAGE_ROWS:
                break
        if not rows:  # what changed is in this very batch
            broker.due_ms = now.mono_ms + GATHER_MS
            return
        broker.due_ms = None
        request = quorum_pb2.TrackQuorumsRequest(quorums=rows)
        self._draft.send(Call("quorum", node_id, TRACK, request, TellTag(node_id, upto), TELL_TIMEOUT_MS))
