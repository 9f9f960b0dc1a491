"""Stripes of coded objects, read ahead: a reader that goes on from stripe to stripe gets large pieces of every shard.

A first read fetches one row of each of k shards; whoever reads on gets windows that double, up to a piece of about a
mebibyte of each shard, and the next window is under way while he reads the last. What all of them hold is bounded; a
reader who finds no room is served stripe by stripe, and adds no more than the one stripe that he waits for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, Fault, PeerFault
from offgrid_node.protocol.merkle import PathError, root_by_path
from offgrid_node.protocol.objects.manifest import Manifest, stripe_digest
from offgrid_node.protocol.objects.shards import Buffer, row_span, stripe_of
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, Step
from offgrid_node.services.objects.gathering import Gathered, Gathering, Piece, Span
from offgrid_node.services.objects.holders import LYING_MS, Holders, Trust
from offgrid_node.services.objects.pulls import Pulls

PIECE_BYTES_MAX = 1 << 20  # of one shard in one answer
WINDOWS_BYTES_MAX = 32 << 20  # held or under way, of all objects; beyond it one stripe for each that is waited for
READERS_MAX = 256  # objects of which it is remembered how far they were read
NEAR = 4  # stripes: several are asked for at once, in any order

Waiting = Callable[["Gathered | Fault"], None]


class _Window(msgspec.Struct):
    """Of one object; `gathered` comes when it has ended."""

    span: Span
    served: set[int] = msgspec.field(default_factory=set)  # stripes; when all are, it goes
    waiting: list[Waiting] = msgspec.field(default_factory=list)
    gathered: Gathered | Fault | None = None
    rows: Mapping[int, Buffer] = msgspec.field(
        default_factory=dict
    )  # of the data, those that are worked out among them

    @property
    def size_bytes(self) -> int:
        made = sum(row >= self.span.manifest.k for row in self.pieces)
        return (self.span.manifest.k + made) * self.span.bytes[1]

    @property
    def pieces(self) -> Mapping[int, Piece]:
        return self.gathered.pieces if isinstance(self.gathered, Gathered) else {}


class Windows:
    """Reads coded stripes."""

    def __init__(
        self, trust: Trust, pulls: Pulls, later: Later, bulk: Bulk, coder: Coder, salt: Callable[[], bytes]
    ) -> None:
        self._trust, self._pulls, self._later = trust, pulls, later
        self._bulk, self._coder, self._salt = bulk, coder, salt
        self._windows: OrderedDict[tuple[str, int], _Window] = OrderedDict()  # the longest unused first
        self._reached: OrderedDict[str, tuple[int, int]] = OrderedDict()  # the last stripe asked for; its window's size

    @property
    def held_bytes(self) -> int:
        return sum(window.size_bytes for window in self._windows.values())

    def stripe(
        self, manifest: Manifest, key: bytes, index: int, holders: Holders
    ) -> Flow[tuple[bytes, str] | Gathered]:
        """The plaintext and who gave it, or what there is of fewer shards than it takes.

        Of k rows that do not open together at least one was made up: then rows are asked for with proofs, and who
        gave other bytes before is found out.
        """
        window = self._window(manifest, index, holders)
        gathered: Gathered = yield partial(_when_gathered, window)
        if len(gathered.pieces) >= manifest.k:
            try:
                opened = yield from self._opened(manifest, key, index, gathered, window.span, window.rows)
            except Corrupt:
                self._forget(window)
            else:
                window.served.add(index)
                if len(window.served) == window.span.count:
                    self._forget(window)
                return opened
        proved: Gathered = yield partial(self._gather, Span(manifest, index, 1, prove=True), holders)
        self._find_liars(window, gathered, index, proved)
        if len(proved.pieces) < manifest.k:
            return Gathered(proved.pieces, gathered.refused | proved.refused, gathered.silent | proved.silent)
        span = Span(manifest, index, 1)
        rows = yield self._bulk.run(partial(self._data_rows, span, proved), size_bytes=2 * manifest.stripe_bytes)
        return (yield from self._opened(manifest, key, index, proved, span, rows))

    def holds(self, object_id: str, index: int) -> bool:
        """Whether the stripe is here or on its way: it was asked for ahead."""
        return self._find(object_id, index) is not None

    def _opened(
        self, manifest: Manifest, key: bytes, index: int, gathered: Gathered, span: Span, rows: Mapping[int, Buffer]
    ) -> Flow[tuple[bytes, str]]:
        def work() -> bytes:
            sealed = stripe_of(manifest, index, (_row(span, index, rows[row]) for row in range(manifest.k)))
            return open_stripe(key, manifest.nonce, index, index == manifest.stripes - 1, sealed)

        opened: bytes = yield self._bulk.run(work, size_bytes=2 * manifest.stripe_bytes)
        return opened, ",".join(sorted({piece.host for piece in gathered.pieces.values()}))

    def _data_rows(self, span: Span, gathered: Gathered) -> Mapping[int, Buffer]:
        """In a thread: the missing ones of all stripes by one call of the coder, since it sums byte by byte."""
        k, n = span.manifest.k, span.manifest.n
        have: dict[int, Buffer] = {shard: piece.data for shard, piece in gathered.pieces.items()}
        missing = [row for row in range(k) if row not in have]
        made = self._coder.rebuild(k, n, have, missing) if missing else []
        return {row: have[row] for row in range(k) if row in have} | dict(zip(missing, made, strict=True))

    def _find_liars(self, window: _Window, gathered: Gathered, index: int, proved: Gathered) -> None:
        for shard, piece in gathered.pieces.items():
            true = proved.pieces.get(shard)
            if true is not None and true.data != _row(window.span, index, piece.data):
                self._trust.shun(piece.host, LYING_MS)

    # ---- windows

    def _window(self, manifest: Manifest, index: int, holders: Holders) -> _Window:
        reached, size = self._reached.get(manifest.object_id, (-NEAR, 0))
        goes_on = abs(index - reached) <= NEAR
        found = self._find(manifest.object_id, index)
        if found is None:
            size = min(2 * size, _stripes_max(manifest)) if goes_on and size and index > reached else 1
            found = self._begin(manifest, index, size, holders)
        self._remember(manifest.object_id, (max(index, reached) if goes_on else index, found.span.count))
        if goes_on and index:
            self._read_ahead(found.span, index, holders)
        return found

    def _read_ahead(self, span: Span, index: int, holders: Holders) -> None:
        """Whoever reads on has no more use for what lies behind him; the next window may come in its place."""
        manifest, following = span.manifest, span.last + 1
        for (object_id, first), window in list(self._windows.items()):
            if object_id == manifest.object_id and window.span.last < index - NEAR and window.gathered is not None:
                del self._windows[object_id, first]
        size = min(2 * span.count, _stripes_max(manifest))
        room = self.held_bytes + size * manifest.k * manifest.row_bytes <= WINDOWS_BYTES_MAX
        if following < manifest.stripes and room and self._find(manifest.object_id, following) is None:
            self._begin(manifest, following, size, holders)

    def _begin(self, manifest: Manifest, first: int, count: int, holders: Holders) -> _Window:
        """One that fails is forgotten, so that the next read asks again."""
        window = _Window(Span(manifest, first, min(count, manifest.stripes - first)))
        if not self._make_room(window.size_bytes):
            window.span = Span(manifest, first, 1)
        self._windows[manifest.object_id, first] = window

        self._gather(window.span, holders, lambda gathered: self._complete(window, gathered))
        return window

    def _complete(self, window: _Window, gathered: Gathered) -> None:
        """What was lost of the data is worked out, for all its stripes."""

        def ended(outcome: Mapping[int, Buffer] | Fault) -> None:
            window.gathered = outcome if isinstance(outcome, Fault) else gathered
            if isinstance(outcome, Fault) or len(gathered.pieces) < window.span.manifest.k:
                self._forget(window)
            else:
                window.rows = outcome
            for waiting in window.waiting:
                waiting(window.gathered)

        manifest = window.span.manifest
        if len(gathered.pieces) < manifest.k or all(row in gathered.pieces for row in range(manifest.k)):
            ended({row: piece.data for row, piece in gathered.pieces.items()})
        else:
            work = partial(self._data_rows, window.span, gathered)
            self._bulk.run(work, size_bytes=manifest.k * window.span.bytes[1])(ended)

    def _find(self, object_id: str, index: int) -> _Window | None:
        for (owner, first), window in self._windows.items():
            if owner == object_id and first <= index <= window.span.last:
                self._windows.move_to_end((owner, first))
                return window
        return None

    def _forget(self, window: _Window) -> None:
        key = window.span.manifest.object_id, window.span.first
        if self._windows.get(key) is window:
            del self._windows[key]

    def _make_room(self, more_bytes: int) -> bool:
        """Forgets the longest unused ones that have come; those under way are waited for."""
        for key, window in list(self._windows.items()):
            if self.held_bytes + more_bytes <= WINDOWS_BYTES_MAX:
                break
            if window.gathered is not None:
                del self._windows[key]
        return self.held_bytes + more_bytes <= WINDOWS_BYTES_MAX

    def _remember(self, object_id: str, reached: tuple[int, int]) -> None:
        self._reached[object_id] = reached
        self._reached.move_to_end(object_id)
        if len(self._reached) > READERS_MAX:
            self._reached.popitem(last=False)

    def _gather(self, span: Span, holders: Holders, done: Callable[[Gathered], None]) -> None:
        check = partial(_check_proof, span, self._salt()) if span.prove else _unchecked
        Gathering(span, holders, self._trust, self._pulls, self._later, check, done).start()


def _when_gathered(window: _Window, done: Waiting) -> None:
    if window.gathered is not None:
        done(window.gathered)
    else:
        window.waiting.append(done)


def _row(span: Span, index: int, rows: Buffer) -> memoryview:
    """One stripe's of those of a shard."""
    offset, length = row_span(span.manifest, index)
    begin = offset - span.bytes[0]
    return memoryview(rows)[begin : begin + length]


def _stripes_max(manifest: Manifest) -> int:
    """Of a window: of three of them one is read, one is held and one is under way."""
    together = WINDOWS_BYTES_MAX // 3 // (manifest.k * manifest.row_bytes)
    return max(1, min(PIECE_BYTES_MAX // manifest.row_bytes, together))


def _unchecked(shard: int, answer: objects_pb2.ReadReplicaResponse) -> Step[Buffer]:
    """The seal tells, once k rows are here."""
    return lambda done: done(answer.data)


def _check_proof(span: Span, salt: bytes, shard: int, answer: objects_pb2.ReadReplicaResponse) -> Step[Buffer]:
    """Whether the row is the manifest's."""
    manifest, leaf = span.manifest, stripe_digest(salt, answer.data)
    try:
        proved = root_by_path(leaf, span.first, manifest.stripes, answer.path) == manifest.roots[shard]
    except PathError:
        proved = False
    wrong = PeerFault(f"the row is not that of shard {shard}", reason="WrongRow")
    return lambda done: done(answer.data if proved else wrong)
