"""Blocks that came before those they lean on, and the blocks that are wanted.

An orphan waits for what it leans on, its `prev` and parents above all. Most of these are on their way by themselves;
what has not come after ASK_MS is asked for by name, first of all at those who named it. Orphans are bounded for each
peer apart, for honest peers bring only what they hold; wants for each author whose block was the first to name them,
whoever brought it. So a liar who names what nobody has crowds out nobody else, and what falls out comes again by
anti-entropy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.tables import NAMED

ORPHANS_MAX = 512  # from one peer, and
ORPHAN_BYTES_MAX = 4 * 1024 * 1024  # together
WANTED_MAX = 512  # digests that one author was the first to name
NAMED_MAX = 256  # of one author, such as only a `Seen` has named: they are in rows, and asked for as long as it takes
ASK_MS = 100
GIVE_UP_MS = 600_000  # after so long no one has it; another block that names it begins anew


class _Want(msgspec.Struct):
    since_ms: int
    by: bytes  # the author who named it first
    of: dict[str, None] = msgspec.field(default_factory=dict)  # who named it, the first one first
    named: bool = False


class _Pool(msgspec.Struct):
    """What one peer has brought, the oldest first."""

    orphans: dict[bytes, int] = msgspec.field(default_factory=dict)  # digest → bytes
    size: int = 0


class _Wants(msgspec.Struct):
    """What one author has named, the oldest first."""

    wanted: dict[bytes, None] = msgspec.field(default_factory=dict)
    named: dict[bytes, None] = msgspec.field(default_factory=dict)


class Orphans:
    """By digest, and by what each waits for."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._blocks: dict[bytes, tuple[CheckedBlock, str]] = {}
        self._waiting: dict[bytes, dict[bytes, None]] = {}  # what is missing → who waits for it
        self._wanted: dict[bytes, _Want] = {}  # the one asked for longest ago first
        self._pools: dict[str, _Pool] = {}
        self._wants: dict[bytes, _Wants] = {}
        self._ask: dict[str, None] = {}
        self._again: dict[str, None] = {}  # peers that brought blocks too early
        self._ask_ms: int | None = None

    def load(self, now_ms: int) -> None:
        for digest, author in self._draft.committed(NAMED, b""):
            self._wanted[digest] = _Want(now_ms, author, named=True)
            self._wants.setdefault(author, _Wants()).named[digest] = None

    # ---- questions

    def is_wanted(self, digest: bytes) -> bool:
        """Somebody's block names it: it is taken in whoever its author is."""
        return digest in self._wanted

    def deadline_ms(self) -> int | None:
        return self._ask_ms

    # ---- changes

    def add(
        self, block: CheckedBlock, sender: str, missing: Sequence[bytes], by_name: Sequence[bytes], now_ms: int
    ) -> None:
        """Keeps it until all that it lacks is here, which is asked for `by_name`; said again it names that again. What
        its chain lacks before it is asked for by height: see backfill.py."""
        if block.digest not in self._blocks:
            self._blocks[block.digest] = block, sender
            pool = self._pools.setdefault(sender, _Pool())
            pool.orphans[block.digest] = len(block.raw)
            pool.size += len(block.raw)
            while len(pool.orphans) > ORPHANS_MAX or pool.size > ORPHAN_BYTES_MAX:
                self._drop(next(iter(pool.orphans)))
        if block.digest in self._blocks:
            for digest in missing:
                self._waiting.setdefault(digest, {})[block.digest] = None
            self.want(by_name, block.header.author, sender, now_ms)

    def want(self, digests: Iterable[bytes], author: bytes, sender: str, now_ms: int, *, named: bool = False) -> None:
        """`author` names these; they are to be had, first of all from `sender`. One that waits here already may lean on
        what nobody has asked for by name, as long as its chain was plain: that is wanted now."""
        wants, line = self._wants.setdefault(author, _Wants()), deque((digest, named) for digest in digests)
        while line:
            digest, named = line.popleft()
            if digest not in self._wanted:
                line.extend((lacked, False) for lacked in self._lacked_by(digest))
            want = self._wanted.get(digest)
            if want is None:
                want = self._wanted[digest] = _Want(now_ms, author)
                wants.wanted[digest] = None
                if len(wants.wanted) > WANTED_MAX:
                    self._unwant(next(iter(wants.wanted)))
            if sender not in want.of:
                want.of[sender] = None
                if digest not in self._blocks:
                    self._ask[sender] = None
                    self._ask_ms = self._ask_ms or now_ms + ASK_MS
            if named and not want.named:
                self._forget(digest, want)
                want.by, want.named = author, True
                self._wants[author] = wants  # it may have been the last that this author had
                wants.named[digest] = None
                self._draft.put_bytes(NAMED, digest, author)
                if len(wants.named) > NAMED_MAX:
                    self._unwant(next(iter(wants.named)))

    def ask_soon(self, peer: str, now_ms: int) -> None:
        """It brought a block before what that leans on: it is to bring it again."""
        self._again[peer] = None
        self._ask_ms = self._ask_ms or now_ms + ASK_MS

    def came(self, digest: bytes) -> list[tuple[CheckedBlock, str]]:
        """A block was taken in: those that waited for it, with who sent them, the first to come first."""
        self._unwant(digest)
        waited = self._waiting.pop(digest, {})
        return [self._pop(orphan) for orphan in waited if orphan in self._blocks]

    def take_asks(self, now_ms: int) -> list[str]:
        """Peers to ask now for what is wanted."""
        if self._ask_ms is None or self._ask_ms > now_ms:
            return []
        asks = [*{**self._again, **(self._ask if self._wanted else {})}]
        self._ask, self._again, self._ask_ms = {}, {}, None
        return asks

    def ask_for(self, peer: str, most: int, now_ms: int) -> list[bytes]:
        """What to ask this peer for: what it has named itself, then whatever was asked for longest ago."""
        for digest in [d for d, w in self._wanted.items() if not w.named and w.since_ms + GIVE_UP_MS <= now_ms]:
            self._unwant(digest)
        open_ = [digest for digest in self._wanted if digest not in self._blocks]
        open_.sort(key=lambda digest: peer not in self._wanted[digest].of)
        for digest in open_[:most]:
            self._wanted[digest] = self._wanted.pop(digest)
        return open_[:most]

    # ---- inside

    def _lacked_by(self, digest: bytes) -> list[bytes]:
        """What this orphan waits for."""
        if digest not in self._blocks:
            return []
        block = self._blocks[digest][0]
        return [lacked for lacked in block.leans_on if digest in self._waiting.get(lacked, ())]

    def _pop(self, digest: bytes) -> tuple[CheckedBlock, str]:
        block, sender = self._blocks.pop(digest)
        self._pools[sender].size -= self._pools[sender].orphans.pop(digest)
        return block, sender

    def _drop(self, digest: bytes) -> None:
        block, _ = self._pop(digest)
        for missing in block.leans_on:
            waiting = self._waiting.get(missing)
            if waiting is not None:
                waiting.pop(digest, None)
                if not waiting:
                    del self._waiting[missing]

    def _unwant(self, digest: bytes) -> None:
        want = self._wanted.pop(digest, None)
        if want is None:
            return
        self._forget(digest, want)
        if want.named:
            self._draft.delete(NAMED, digest)

    def _forget(self, digest: bytes, want: _Want) -> None:
        wants = self._wants.get(want.by, _Wants())
        wants.wanted.pop(digest, None)
        wants.named.pop(digest, None)
        if not wants.wanted and not wants.named:
            self._wants.pop(want.by, None)
