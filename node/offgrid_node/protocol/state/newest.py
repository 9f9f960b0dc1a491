"""Whether this node's store is its newest one: hosts are asked what they keep of its journal that it does not know.

Numbers do not tell: an old copy of a store that runs before any host answers gives them anew, and may have caught up.
But in a life a store cuts each number once: a segment leaves in the commit by which SEGMENTS names it, so one that was
cut and never kept was seen by nobody, and one that is lost keeps its number. So two segments of one life and number,
both under this node's signature, are of two histories, and the host that shows the other one proves it. Each host that
keeps something of the other history can: the last of it that lies there has either a number that this store never gave,
or one that it gave to a segment of its own.

It proves nothing when a host shows less than it might. One that was put back from a backup itself shows segments that
went long ago: PAST names the last of them, others lie before a base of this life that is safe, and it is told to drop
them. And after a restore, or `--accept-stale`, what the node forgot is of a life
before its own, which begins behind all numbers that its store has given.

An object of which the store knows nothing proves the same, and may be all that does: what was put last was in no
segment yet. Its note tells it from a segment whose head a host keeps back (`services/objects/regaining.py`).

A host that has not heard of this life hears of it (`objects/lives.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count, takewhile

import msgspec

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call, Rows, Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.objects.lives import Life, last_life, sign_life, verify_life
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.segments import KnownSegments, SegmentHead, verify_head
from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.state.tables import JOURNAL, NEWER_KEY, PAST, Newer, number_key, number_of

LIST, BEGIN = "offgrid.v1.ObjectService/ListSegments", "offgrid.v1.ObjectService/BeginLife"
ASK_TIMEOUT_MS = 10_000
AGAIN_MS = 60_000  # until who gave no answer is asked again, while it is alive
ASK_BYTES = 200  # of a question with its answer
PAGE_SIZE = 32  # segments, of each of which the signature may have to be looked at
PAGES_MAX = 128  # of one host, one after the other: as many segments as the largest base has behind it
PAST_MAX = 65_536  # segments whose ids are kept, some 3 MB; at one in 2 s a day and a half without a break

Segments = Mapping[int, state_pb2.SegmentRow]


class HeadTag(msgspec.Struct, frozen=True):
    """Of a ListSegments under way, `page` others before it."""

    page: int = 0


class LifeTag(msgspec.Struct, frozen=True):
    """Of a BeginLife under way."""


class Newest:
    """`newer`: what this store should know of and does not."""

    def __init__(
        self,
        signer: Signer,
        verify: Verifier,
        salt: bytes,
        key_number: int,
        draft: Draft,
        safe_base: Callable[[], int],
        on_past: Callable[[str, str], None],
        paces: Paces = all_free,
    ) -> None:
        """Nobody needs what lies before `safe_base` any more; `on_past` hears of such an object and who shows it."""
        self._signer, self._verify, self._salt, self._key_number = signer, verify, salt, key_number
        self._draft, self._safe_base, self._on_past, self._paces = draft, safe_base, on_past, paces
        self.newer: Newer | None = None
        self._alive: set[str] = set()  # of whom it was asked
        self._again_ms: dict[str, int] = {}  # when those of them are asked again that gave no answer

    def load(self, rows: Rows) -> None:
        newer = rows.get(JOURNAL, NEWER_KEY)
        self.newer = Newer.decode(newer) if newer is not None else None

    @property
    def deadline_ms(self) -> int | None:
        return min(self._again_ms.values(), default=None) if self.newer is None else None

    # ---- asking

    def ask(self, host: str, row: state_pb2.JournalRow, segments: Segments, page: int = 0, token: str = "") -> None:
        numbers = takewhile(lambda number: number in segments, count(row.number, -1))
        object_ids = [segments[number].object_id for number in numbers][::-1]
        known = KnownSegments.of(row.life, row.number, object_ids).message()
        request = objects_pb2.ListSegmentsRequest(page_size=PAGE_SIZE, page_token=token, known=known)
        self._draft.send(Call("state", host, LIST, request, HeadTag(page), ASK_TIMEOUT_MS))
        self._alive.add(host)
        self._again_ms.pop(host, None)

    def ask_again(self, row: state_pb2.JournalRow, segments: Segments, now: Now) -> None:
        """Those whose time has come."""
        due = [host for host, due_ms in self._again_ms.items() if due_ms <= now.mono_ms and self.newer is None]
        for host in due:
            self.ask(host, row, segments)

    def on_gone(self, host: str) -> None:
        """It is asked when it comes up."""
        self._alive.discard(host)
        self._again_ms.pop(host, None)

    # ---- hearing

    def on_told(self, answer: Answered, row: state_pb2.JournalRow, segments: Segments, now: Now) -> None:
        if self.newer is not None:
            return
        reply, page = answer.reply, answer.tag.page if isinstance(answer.tag, HeadTag) else 0
        if not isinstance(reply, objects_pb2.ListSegmentsResponse):
            if answer.node in self._alive:
                self._again_ms[answer.node] = now.mono_ms + max(AGAIN_MS, self._paces(answer.node).apart_ms(ASK_BYTES))
            return
        if page == 0:
            self._heed_life(answer.node, reply, row)
        for manifest in reply.segments[:PAGE_SIZE]:
            self._heed_segment(answer.node, manifest, row, segments)
        more = reply.next_page_token and page + 1 < PAGES_MAX and answer.node in self._alive
        if more and self.newer is None:
            self.ask(answer.node, row, segments, page + 1, reply.next_page_token)

    def _heed_segment(
        self, host: str, manifest: objects_pb2.Manifest, row: state_pb2.JournalRow, segments: Segments
    ) -> None:
        try:
            head = SegmentHead.decode(manifest.segment.body)
            is_anothers = self._is_anothers(head, row, segments)
            if not is_anothers and not (head.life == row.life and head.number < self._safe_base()):
                return
            if is_anothers or self._past(head.number) != head.object_id:
                body = Manifest.decode(manifest.signed.body)
                verify_head(manifest, body, [self._signer.public_key], self._verify, self._salt)
        except PeerFault:
            return  # made up, or signed with a key of before
        if head.owner != self._signer.node_id or head.life > last_life(self._key_number):
            return
        if is_anothers:
            self._on_newer(Newer(head.life, max(head.number, row.number)))
        else:
            self._on_past(head.object_id, host)

    def _is_anothers(self, head: SegmentHead, row: state_pb2.JournalRow, segments: Segments) -> bool:
        """Whether it was cut by none of the stores from which this one comes."""
        if head.life != row.life or head.number > row.number:
            return head.order > (row.life, row.number)
        held = segments.get(head.number)
        own = held.object_id if held is not None else self._past(head.number)
        return own not in ("", head.object_id)

    def _past(self, number: int) -> str:
        """The object that a segment was, which has gone; "" for one that nothing is known of."""
        return (self._draft.get(PAST, number_key(number)) or b"").decode()

    def _heed_life(self, host: str, told: objects_pb2.ListSegmentsResponse, own: state_pb2.JournalRow) -> None:
        key, owner, known = self._signer.public_key, self._signer.node_id, 1
        try:
            if told.HasField("life"):
                life = verify_life(told.life, owner, key, self._key_number, self._verify, self._salt)
                if life.is_over(own.life, own.token):
                    self._on_newer(Newer(life.life, max(life.number, own.number)))
                known = life.life
        except PeerFault:
            pass  # made up, or signed with a key of before
        if known < own.life:
            begun = sign_life(Life(owner, own.life, own.number, own.token), self._signer, self._salt)
            request = objects_pb2.BeginLifeRequest(life=begun)
            self._draft.send(Call("state", host, BEGIN, request, LifeTag(), ASK_TIMEOUT_MS))

    def on_object(self, row: state_pb2.JournalRow) -> None:
        """A host has shown an object of this life that this store knows nothing of: no segment needs to say so."""
        if self.newer is None:
            self._on_newer(Newer(row.life, row.number))

    def _on_newer(self, newer: Newer) -> None:
        """Of all that is shown the latest life and the highest number."""
        if self.newer is not None:
            newer = Newer(max(newer.life, self.newer.life), max(newer.number, self.newer.number))
        self.newer = newer
        self._draft.put_bytes(JOURNAL, NEWER_KEY, newer.encode())

    # ---- what hosts need not keep any more

    def remember(self, number: int, object_id: str) -> None:
        """A segment that goes, so that one who still shows it is no stranger."""
        self._draft.put_bytes(PAST, number_key(number), object_id.encode())
        for key, _ in self._draft.committed(PAST, b""):
            if number_of(key) + PAST_MAX > number:
                break
            self._draft.delete(PAST, key)
