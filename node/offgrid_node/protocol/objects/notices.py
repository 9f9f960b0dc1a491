"""What nodes have yet to hear about objects of this node's own: each is told until it has answered, if it takes weeks.

A row says that a node has something to hear of an object, not what: that follows from what is so of the object when the
call leaves. So a node that was long away hears only how things stand, in pages, and a call may come twice. The row's
number tells whether anything has happened since the call left; behind the number of one that is about nothing but the
reader's wrap stands a mark, and less is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call, Rows
from offgrid_node.protocol.latecomers import next_life
from offgrid_node.protocol.objects.tables import (
    LAST_NOTICE,
    META,
    NOTICE_LIFE,
    NOTICES,
    NUMBER_BYTES,
    notice_key,
    notice_prefix,
    number_key,
    number_of,
)
from offgrid_node.protocol.quorum.tables import LIFE

GATHER_MS = 50  # what is to be told is in committed rows by then, and much of it goes in one call
PAGE_NOTICES = 256  # in one call; a host writes some rows for each of them
RETRY_MS, RETRY_MAX_MS = 1_000, 60_000
NOTICE_TIMEOUT_MS = 30_000
WRAP_MARK = b"w"
DELIVER = "offgrid.v1.ObjectService/DeliverNotices"
NO_MEMBER = "NotAMember"  # the client's word for a node that was removed: it can never be told


class NoticeTag(msgspec.Struct, frozen=True):
    """Of a DeliverNotices under way: the objects, each with the number that its notice had."""

    node_id: str
    told: tuple[tuple[str, bytes], ...]


class _Listener(msgspec.Struct):
    """A node with something to hear, the newest of it noted down at `added_ms`. `due_ms` is None while a call is under
    way. The next page begins behind `behind`."""

    due_ms: int | None
    delay_ms: int = RETRY_MS
    added_ms: int = 0
    behind: bytes = b""


class Notices:
    """Notes down who has to hear of what, and tells those who are alive."""

    def __init__(
        self,
        self_id: str,
        draft: Draft,
        make: Callable[[str, Sequence[tuple[str, bool]], Now], objects_pb2.DeliverNoticesRequest],
        on_told: Callable[[str, str, Now], None],
    ) -> None:
        """`make`: the request that tells a node how things stand with these objects, each with whether only its wrap is
        new. `on_told` hears that a node knows of an object, with nothing newer to tell it, or that it is no member any
        more."""
        self._self_id, self._draft, self._make, self._on_told = self_id, draft, make, on_told
        self._alive: set[str] = set()
        self._listeners: dict[str, _Listener] = {}
        self._last = self._life = 0

    def load(self, rows: Rows, now: Now) -> None:
        """Finds who has something to hear, by a look at one row of each."""
        self._life = next_life(
            number_of(rows.get(META, NOTICE_LIFE) or b""), number_of(rows.get(META, LIFE) or b""), now
        )
        self._last = number_of(rows.get(META, LAST_NOTICE) or b"")
        start = b""
        while (found := next(iter(rows.scan(NOTICES, start)), None)) is not None:
            node_id = found[0].decode().partition("/")[0]
            self._listeners[node_id] = _Listener(0)
            start = notice_prefix(node_id)[:-1] + b"0"  # the first key behind all of this node's: "0" follows "/"

    def add(self, node_id: str, object_id: str, now: Now) -> None:
        """From now on `node_id` has to hear how things stand with the object."""
        self._add(node_id, object_id, b"", now)

    def add_wrap(self, node_id: str, object_id: str, now: Now) -> None:
        """The reader has to hear of its new wrap; of more, if it had to before."""
        waiting = self._draft.get(NOTICES, notice_key(node_id, object_id))
        self._add(node_id, object_id, WRAP_MARK if waiting is None or _is_wrap(waiting) else b"", now)

    def _add(self, node_id: str, object_id: str, mark: bytes, now: Now) -> None:
        self._last += 1
        self._draft.put_bytes(NOTICES, notice_key(node_id, object_id), number_key(self._last) + mark)
        self._draft.put_bytes(META, LAST_NOTICE, number_key(self._last))
        self._listeners.setdefault(node_id, _Listener(now.mono_ms + GATHER_MS)).added_ms = now.mono_ms

    # ---- inputs

    def on_up(self, node_id: str, now: Now) -> None:
        if node_id == self._self_id:
            return
        self._alive.add(node_id)
        listener = self._listeners.get(node_id)
        if listener is not None and listener.due_ms is not None:
            listener.due_ms, listener.delay_ms = now.mono_ms, RETRY_MS

    def on_down(self, node_id: str) -> None:
        self._alive.discard(node_id)

    def on_answered(self, tag: NoticeTag, answer: Answered, now: Now) -> None:
        listener = self._listeners.setdefault(tag.node_id, _Listener(None))
        if answer.fault is not None and answer.fault.reason != NO_MEMBER:
            listener.due_ms = now.mono_ms + listener.delay_ms
            listener.delay_ms = min(RETRY_MAX_MS, 2 * listener.delay_ms)
            if tag.told:  # a page that is refused keeps nothing else back: what has no room now may have it behind that
                listener.behind = notice_key(tag.node_id, tag.told[-1][0])
            return
        for object_id, value in tag.told:
            key = notice_key(tag.node_id, object_id)
            if self._draft.get(NOTICES, key) == value:
                self._draft.delete(NOTICES, key)
                self._on_told(tag.node_id, object_id, now)
        listener.due_ms, listener.delay_ms = now.mono_ms + GATHER_MS, RETRY_MS

    # ---- time

    def deadline_ms(self) -> int | None:
        due = (listener.due_ms for node_id, listener in self._listeners.items() if node_id in self._alive)
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    def close_step(self, now: Now) -> None:
        for node_id, listener in [*self._listeners.items()]:
            if node_id in self._alive and listener.due_ms is not None and listener.due_ms <= now.mono_ms:
                self._tell(node_id, listener, now)

    def _tell(self, node_id: str, listener: _Listener, now: Now) -> None:
        """Of what this very batch writes the next call tells, GATHER_MS after."""
        told = self._page(node_id, listener.behind + b"\0") if listener.behind else []
        listener.behind, told = b"", told or self._page(node_id, b"")
        if not told and listener.added_ms == now.mono_ms:
            listener.due_ms = now.mono_ms + GATHER_MS
            return
        if not told:
            del self._listeners[node_id]
            return
        listener.due_ms = None
        request = self._make(node_id, [(object_id, _is_wrap(value)) for object_id, value in told], now)
        self._draft.put_bytes(META, NOTICE_LIFE, number_key(self._life))
        request.life, request.number = self._life, self._last
        self._draft.send(Call("objects", node_id, DELIVER, request, NoticeTag(node_id, tuple(told)), NOTICE_TIMEOUT_MS))

    def _page(self, node_id: str, start: bytes) -> list[tuple[str, bytes]]:
        prefix, page = notice_prefix(node_id), list[tuple[str, bytes]]()
        for key, value in self._draft.committed(NOTICES, start, prefix=prefix):
            if self._draft.get(NOTICES, key) == value:
                page.append((key[len(prefix) :].decode(), value))
            if len(page) == PAGE_NOTICES:
                break
        return page


def _is_wrap(value: bytes) -> bool:
    return value[NUMBER_BYTES:] == WRAP_MARK
