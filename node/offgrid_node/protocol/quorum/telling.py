"""How brokers learn of this node's quorums: each is told every row that has changed since it last listened.

Every change of a row gets the next number, and the row's former number is forgotten; so the changes after the number
that a broker was last told are just the rows it does not have as they are, whether it was away for a second or for a
month. Changes are gathered for a moment, and told from committed rows in pages, one page at a time. That a quorum is
closed is a change too, whose number is kept until every broker that was ever told anything has heard it.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.events import BROKER, PeerUp
from offgrid_node.protocol.latecomers import next_life
from offgrid_node.protocol.quorum.commands import TellTag
from offgrid_node.protocol.quorum.tables import (
    CHANGES,
    CLOSED,
    LAST_CHANGE,
    LIFE,
    META,
    QUORUMS,
    TOLD,
    TOLD_LIFE,
    number_key,
    number_of,
    quorum_key,
)

GATHER_MS = 200  # changes are told together
PAGE_ROWS = 64  # in one call; a broker checks every signature in it
CLOSED_MAX = 1_000_000  # changes: a broker that missed more than that keeps what was closed before
RETRY_MS, RETRY_MAX_MS = 1_000, 60_000
TELL_TIMEOUT_MS = 60_000  # a page of the largest rows is 1.5 MB, on a slow road
TRACK = "offgrid.v1.QuorumService/TrackQuorums"


class _Broker(msgspec.Struct):
    """`told` is the last change that it was told; `due_ms` when it may be told more, None while a call is under way."""

    told: int
    due_ms: int | None
    delay_ms: int = RETRY_MS


class Telling:
    """Numbers changes, and brings them to the brokers that are alive."""

    def __init__(self, self_id: str, draft: Draft) -> None:
        self._self_id, self._draft = self_id, draft
        self._brokers: dict[str, _Broker] = {}
        self._last = self._life = 0

    def load(self, now: Now) -> None:
        self._life = next_life(number_of(self._draft.get(META, TOLD_LIFE)), number_of(self._draft.get(META, LIFE)), now)
        self._last = number_of(self._draft.get(META, LAST_CHANGE))

    def on_change(self, row: quorum_pb2.QuorumRow, quorum_id: str, now: Now) -> None:
        """Gives `row`, about to be written, its number."""
        if row.change:
            self._draft.delete(CHANGES, number_key(row.change))
        self._number(CHANGES, quorum_id, now)
        row.change = self._last

    def _number(self, table: str, quorum_id: str, now: Now) -> None:
        """The next one, and brokers that have heard all others are to hear it."""
        self._last += 1
        self._draft.put_bytes(table, number_key(self._last), quorum_id.encode())
        self._draft.put_bytes(META, LAST_CHANGE, number_key(self._last))
        for broker in self._brokers.values():
            if broker.told == self._last - 1 and broker.due_ms is not None:
                broker.due_ms = now.mono_ms + GATHER_MS

    def on_closed(self, row: quorum_pb2.QuorumRow, quorum_id: str, now: Now) -> None:
        """`row` is about to be deleted."""
        self._draft.delete(CHANGES, number_key(row.change))
        oldest = next(iter(self._draft.committed(CLOSED, b"")), None)
        if oldest is not None and number_of(oldest[0]) <= self._last - CLOSED_MAX:
            self._draft.delete(CLOSED, oldest[0])
        if self._brokers or next(iter(self._draft.committed(TOLD, b"")), None) is not None:
            self._number(CLOSED, quorum_id, now)

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
        self._forget_closed()

    def _forget_closed(self) -> None:
        """What all brokers have heard, those that are away among them; a page at a time."""
        told = {key.decode(): number_of(value) for key, value in self._draft.committed(TOLD, b"")}
        told |= {node_id: broker.told for node_id, broker in self._brokers.items()}
        heard = min(told.values(), default=0)
        for count, (key, _) in enumerate(self._draft.committed(CLOSED, b"")):
            if count == PAGE_ROWS or number_of(key) > heard:
                return
            self._draft.delete(CLOSED, key)

    def deadline_ms(self) -> int | None:
        waiting = (b.due_ms for b in self._brokers.values() if b.due_ms is not None and b.told < self._last)
        return min(waiting, default=None)

    def close_step(self, now: Now) -> None:
        for node_id, broker in self._brokers.items():
            if broker.due_ms is not None and broker.told < self._last and broker.due_ms <= now.mono_ms:
                self._tell(node_id, broker, now)

    def _tell(self, node_id: str, broker: _Broker, now: Now) -> None:
        request, ends = quorum_pb2.TrackQuorumsRequest(), list[int]()
        upto, start = broker.told, number_key(broker.told + 1)
        for key, quorum_id in self._draft.committed(CHANGES, start):
            upto = number_of(key)
            row = self._draft.row(QUORUMS, quorum_key(self._self_id, quorum_id.decode()), quorum_pb2.QuorumRow)
            if row is not None:
                row.ClearField("change")
                request.quorums.append(row)
            if len(request.quorums) == PAGE_ROWS:
                ends.append(upto)
                break
        for key, quorum_id in self._draft.committed(CLOSED, start):  # early ones too: they make room for others
            upto = max(upto, number_of(key))
            request.closed.append(quorum_id.decode())
            if len(request.closed) == PAGE_ROWS:
                ends.append(number_of(key))
                break
        if not request.quorums and not request.closed:  # what changed is in this very batch
            broker.due_ms = now.mono_ms + GATHER_MS
            return
        upto = min(ends, default=upto)
        broker.due_ms = None
        self._draft.put_bytes(META, TOLD_LIFE, number_key(self._life))
        request.life, request.number = self._life, upto
        if self._draft.get(TOLD, node_id.encode()) is None:  # what it is told now it has to hear the end of
            self._draft.put_bytes(TOLD, node_id.encode(), number_key(broker.told))
        self._draft.send(Call("quorum", node_id, TRACK, request, TellTag(node_id, upto), TELL_TIMEOUT_MS))
