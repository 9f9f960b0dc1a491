"""What two nodes say to each other to find out where their heads differ: anti-entropy (Demers et al. 1987).

The side that asks shows the summary of its heads; 72 bytes with the answer when they are the same. If they are not, the
answer begins a row of coded symbols under the key that came with the question, and the side that asks wants more of
them until it knows the difference (reconcile/symbols.py). It then shows its heads that differ, as author and height,
and asks for the names of the other's, which it knows by id; so both sides know. Where more differs than symbols are
worth, or they come to no end, both show all their heads: one for each author, so that is bounded.

Who answers keeps nothing between two messages. Both sides show besides which block of the other's is the newest that
they have: see voice.py. Blocks are asked for apart from this (backfill.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ledger.beacon import Heard
from offgrid_node.protocol.ledger.heads import (
    HEADS_MAX,
    ID_BYTES,
    SUMMARY_BYTES,
    Heads,
    decode_heads,
    encode_heads,
)
from offgrid_node.protocol.reconcile.sessions import Asking, answer
from offgrid_node.protocol.reconcile.symbols import KEY_BYTES, SymbolCode

FIRST_SYMBOLS = 16  # with the first answer: enough for some ten heads
WINDOW_SYMBOLS_MAX = 1_024
SYMBOLS_MAX = 8_192  # of one meeting: of more heads than there may be
LISTED_SHARE = 0.3  # of all heads: where so many differ, to show them all takes fewer bytes than symbols and names


class Learnt(msgspec.Struct):
    """What a meeting has told the side that asks. `theirs`: heads that the other has and this side has not."""

    theirs: dict[bytes, int] = msgspec.field(default_factory=dict)
    here: frozenset[tuple[bytes, int]] = frozenset()  # heads that this side showed, for the other has none like them
    in_sync: bool = False


class Meeting:
    """The side that asks; one meeting with one peer."""

    def __init__(self, heads: Heads, genesis_digest: bytes, key: bytes) -> None:
        """`key`: random, of this meeting alone."""
        self._heads = heads
        self._code = SymbolCode(key, ID_BYTES)
        self._summary = heads.summary(genesis_digest)
        self._short: dict[int, tuple[bytes, int]] = {}
        self._asking: Asking | None = None
        self._their_summary = b""
        self.greeted = False  # the first answer has come
        self._showing, self._here = False, frozenset[tuple[bytes, int]]()

    @classmethod
    def overheard(cls, heads: Heads, genesis_digest: bytes, heard: Heard) -> Meeting:
        """One that has got as far as that by what the other said to all. Raises ValueError where they do not differ."""
        if heard.code is None:
            raise ValueError("there is nothing to find out")
        meeting = cls(heads, genesis_digest, heard.code.key)
        meeting.greeted = meeting._showing = True
        meeting._here = frozenset(heard.here)
        return meeting

    def show(self, heard: Heard) -> ledger_pb2.SyncBlocksRequest:
        """The question that such a one begins with."""
        ids = b"".join(id_.to_bytes(ID_BYTES, "big") for id_ in heard.there[:HEADS_MAX])
        heads = encode_heads(heard.here)
        return ledger_pb2.SyncBlocksRequest(key=self._code.key, heads=heads, ids=ids, summary=self._summary)

    def begin(self) -> ledger_pb2.SyncBlocksRequest:
        return ledger_pb2.SyncBlocksRequest(summary=self._summary, key=self._code.key)

    def on_answer(
        self, response: ledger_pb2.SyncBlocksResponse
    ) -> tuple[ledger_pb2.SyncBlocksRequest | None, Learnt | None]:
        """What to ask next, or what there is to know. Raises PeerFault (BadSymbols, NoEnd, BadHeads, HeadsMoved)."""
        if self._showing:
            return None, Learnt(decode_heads(response.heads), self._here)
        if response.in_sync:
            return None, Learnt(in_sync=True)
        if not response.symbols:  # it holds nothing, or is too busy to say
            return None, Learnt()
        if self._asking is None:
            self._short = self._heads.shortened(self._code)
            self._asking = Asking(self._code, self._short, FIRST_SYMBOLS, WINDOW_SYMBOLS_MAX)
            self._their_summary = response.summary
        if response.summary != self._their_summary:
            raise PeerFault("its heads moved while they were compared", reason="HeadsMoved")
        return self._on_symbols(self._asking, response), None

    def _on_symbols(self, asking: Asking, response: ledger_pb2.SyncBlocksResponse) -> ledger_pb2.SyncBlocksRequest:
        try:
            asking.on_answer(response.symbols, response.items)
        except PeerFault as fault:
            if fault.reason != "NoEnd":
                raise
            return self._show_all()
        if asking.complete:
            self._showing = True
            self._here = frozenset(self._short[id_] for id_ in asking.here)
            ids = b"".join(id_.to_bytes(ID_BYTES, "big") for id_ in sorted(asking.there)[:HEADS_MAX])
            return ledger_pb2.SyncBlocksRequest(
                key=self._code.key, heads=encode_heads(sorted(self._here)), ids=ids, summary=self._summary
            )
        first, count = asking.window
        many = asking.differences > LISTED_SHARE * max(response.items + len(self._short), FIRST_SYMBOLS)
        if many or first >= SYMBOLS_MAX:
            return self._show_all()
        return ledger_pb2.SyncBlocksRequest(key=self._code.key, first=first, count=count, summary=self._summary)

    def _show_all(self) -> ledger_pb2.SyncBlocksRequest:
        self._showing = True
        heads = encode_heads(pair for pair, _ in zip(self._heads.pairs(), range(HEADS_MAX), strict=False))
        return ledger_pb2.SyncBlocksRequest(heads=heads, all_heads=True, summary=self._summary)


class Question(msgspec.Struct, frozen=True):
    """What the side that asks wants to know, bounded and decoded. `count` symbols from `first` on under `key`; or, when
    it shows `heads`, the names of `ids`, or of `all_heads`."""

    summary: bytes
    key: bytes = b""
    first: int = 0
    count: int = FIRST_SYMBOLS
    heads: Mapping[bytes, int] = msgspec.field(default_factory=dict)
    ids: tuple[int, ...] = ()
    all_heads: bool = False

    @property
    def shows(self) -> bool:
        """Whether it has found out, and shows its heads."""
        return self.all_heads or bool(self.heads or self.ids)


def answer_to(heads: Heads, question: Question, genesis_digest: bytes) -> ledger_pb2.SyncBlocksResponse:
    """Of the side that is asked."""
    summary = heads.summary(genesis_digest)
    if question.all_heads:
        pairs = [pair for pair, _ in zip(heads.pairs(), range(HEADS_MAX), strict=False)]
        return ledger_pb2.SyncBlocksResponse(heads=encode_heads(pairs))
    if question.summary == summary and not question.shows:
        return ledger_pb2.SyncBlocksResponse(in_sync=True)
    short = heads.shortened(SymbolCode(question.key, ID_BYTES))
    if question.shows:
        return ledger_pb2.SyncBlocksResponse(heads=encode_heads(short[id_] for id_ in question.ids if id_ in short))
    symbols = answer(SymbolCode(question.key, ID_BYTES), short, question.first, question.count)
    return ledger_pb2.SyncBlocksResponse(symbols=symbols, items=len(short), summary=summary)


def question_of(request: ledger_pb2.SyncBlocksRequest) -> Question:
    """Raises PeerFault (reason BadQuestion, BadHeads) for what no honest side asks."""
    shows = request.all_heads or bool(request.heads or request.ids)
    wrong = ""
    if len(request.summary) != SUMMARY_BYTES:
        wrong = f"a summary of {len(request.summary)} bytes; {SUMMARY_BYTES} are allowed"
    elif len(request.key) != KEY_BYTES and not request.all_heads:
        wrong = f"a key of {len(request.key)} bytes; {KEY_BYTES} are allowed"
    elif request.count > WINDOW_SYMBOLS_MAX or request.first > SYMBOLS_MAX:
        wrong = f"{request.count} symbols from {request.first} on; {WINDOW_SYMBOLS_MAX} to {SYMBOLS_MAX} are allowed"
    elif len(request.ids) % ID_BYTES or len(request.ids) > ID_BYTES * HEADS_MAX:
        wrong = f"{len(request.ids)} bytes of ids; {HEADS_MAX} of {ID_BYTES} bytes are allowed"
    if wrong:
        raise PeerFault(f"sync: {wrong}", reason="BadQuestion")
    ids = (request.ids[at : at + ID_BYTES] for at in range(0, len(request.ids), ID_BYTES))
    return Question(
        request.summary,
        request.key,
        request.first,
        0 if shows else request.count or FIRST_SYMBOLS,
        decode_heads(request.heads),
        tuple(int.from_bytes(id_, "big") for id_ in ids),
        request.all_heads,
    )
