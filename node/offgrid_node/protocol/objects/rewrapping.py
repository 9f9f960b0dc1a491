"""An owner's objects are wrapped anew when a key has changed for which they are wrapped: its own, or a reader's.

No byte of an object moves. Its key is opened and sealed again, a page of objects at a time, in the order of their ids;
how far that has come is a row, written with the page's wraps, so a start goes on where the last life was. Each reader
is told its new wraps alone, 68 bytes an object (notices.py).

A node's wrapping key is known by its label, which every wrap for it begins with. For which label of a node the objects
are wrapped is a row as well: another one, heard of with PeerUp, begins a round; so does a wrap that was made for an
older key while a round went by.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES
from offgrid_node.protocol.objects.commands import NewWrap, Rewrapped
from offgrid_node.protocol.objects.errands import Rewrap
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.tables import META, OBJECTS, REWRAPPING, WRAP_LABELS

PAGE_OBJECTS = 128  # in one transaction, which their rows make some 200 KiB of
RETRY_MS, RETRY_MAX_MS = 1_000, 60_000

Tell = Callable[[str, str, Now], None]
"""A reader has to hear of its new wrap of an object."""


class Rewrapping:
    """One round at a time; what changes meanwhile begins it anew."""

    def __init__(self, self_id: str, outbox: Outbox, draft: Draft, tell: Tell) -> None:
        self._self_id, self._outbox, self._draft, self._tell = self_id, outbox, draft, tell
        self._round: objects_pb2.RewrapRow | None = None
        self._asked: str | None = None  # from which object on a page is under way
        self._due_ms, self._delay_ms = 0, RETRY_MS

    def load(self, rows: Rows) -> None:
        row = objects_pb2.RewrapRow.FromString(rows.get(META, REWRAPPING) or b"")
        self._round = row if row.under_way else None
        self._asked = None

    def deadline_ms(self) -> int | None:
        return self._due_ms if self._round is not None and self._asked is None else None

    # ---- inputs

    def on_label(self, node_id: str, label: bytes, now: Now) -> None:
        """For which key objects are wrapped for a node from now on. One of whom nothing is known has no older wraps."""
        known = self._draft.get(WRAP_LABELS, node_id.encode())
        if known == label or not label:
            return
        self._draft.put_bytes(WRAP_LABELS, node_id.encode(), label)
        if known is not None:
            self._begin(now)

    def on_wrapped(self, node_id: str, sealed_key: bytes, now: Now) -> None:
        """A wrap was made: by whoever had not heard yet of the key of now, maybe."""
        known, label = self._draft.get(WRAP_LABELS, node_id.encode()), sealed_key[:LABEL_BYTES]
        if known is None:
            self._draft.put_bytes(WRAP_LABELS, node_id.encode(), label)
        elif known != label:
            self._begin(now)

    def is_current(self, node_id: str, sealed_key: bytes) -> bool:
        """Whether it is wrapped for the node's key of now, as far as this node has heard."""
        return self._draft.get(WRAP_LABELS, node_id.encode()) == sealed_key[:LABEL_BYTES]

    def on_rewrapped(self, event: Rewrapped, now: Now) -> None:
        """A page has come back. What was deleted, unshared or wrapped otherwise meanwhile stays as it is."""
        if event.fault is not None:
            self._asked, self._due_ms = None, now.mono_ms + self._delay_ms
            self._delay_ms = min(RETRY_MAX_MS, 2 * self._delay_ms)
            return
        written = sum(self._write(object_id, wraps, now) for object_id, wraps in event.wraps)
        current, self._asked, self._delay_ms = self._asked == event.start, None, RETRY_MS
        if self._round is None or not current or event.start != self._round.next:
            return
        self._round.next, self._round.under_way = event.next, bool(event.next)
        self._round.looked += event.looked
        self._round.wraps += written
        self._round.unopened += event.unopened
        self._draft.put(META, REWRAPPING, self._round)
        if not event.next:
            self._round = None

    def close_step(self, now: Now) -> None:
        if self._round is not None and self._asked is None and self._due_ms <= now.mono_ms:
            self._asked = self._round.next
            self._draft.send(Rewrap(self._asked))

    # ---- inside

    def _begin(self, now: Now) -> None:
        self._round = objects_pb2.RewrapRow(under_way=True)
        self._due_ms = now.mono_ms
        self._draft.put(META, REWRAPPING, self._round)
        if self._asked is not None:
            self._asked = _OVERTAKEN  # what is under way is for the keys of before; it is taken, and counts for nothing

    def _write(self, object_id: str, wraps: tuple[NewWrap, ...], now: Now) -> int:
        row = self._outbox.find(object_id)
        if row is None:
            return 0
        written = 0
        for wrap in row.object.manifest.wraps:
            for new in wraps:
                if (wrap.node_id, wrap.sealed_key) == (new.node_id, new.before):
                    wrap.sealed_key = new.sealed_key
                    written += 1
                    if new.node_id != self._self_id:
                        self._tell(new.node_id, object_id, now)
        if written:
            self._draft.put(OBJECTS, object_id.encode(), row)
        return written


_OVERTAKEN = "overtaken"
