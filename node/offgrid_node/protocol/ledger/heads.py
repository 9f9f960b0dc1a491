"""What this node holds, as a set with one element for each author: how far its chain has come.

Chains have no gaps, so who knows both sides' heads knows every block that one of them lacks. Of an author who forked,
the element is the newest block below the lowest fork, which is the same for all; what lies beyond is asked for by name.

`summary` tells "the same" in 16 bytes. It is kept as heads move: the digest of a sum of hashes (AdHash: Bellare and
Micciancio 1997), 2,048 bits wide, so that Wagner's generalised birthday (2002) finds no other heads with that sum, even
for somebody who signs for all 4,096 authors. Where sets differ, heads become 8-byte ids under the key of one session
(reconcile/symbols.py), and travel as author and height.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.ledger.records import SEQ_MAX
from offgrid_node.protocol.reconcile.symbols import SymbolCode
from offgrid_node.protocol.reconcile.varints import read_varint, varint

HEADS_MAX = 4_096  # in one message: one for each author, and authors are members
SUMMARY_BYTES = 16
ID_BYTES = 8  # of a head, shortened
SUMMARY_KIND = b"og.heads.v1"
_SUM_BYTES = 256


class Span(msgspec.Struct, frozen=True):
    """Blocks of one author's chain, both ends included."""

    author: bytes
    first: int
    last: int


class Heads:
    """By author: the height, and the digest there."""

    def __init__(self) -> None:
        self._heads: dict[bytes, tuple[int, bytes]] = {}
        self._sum = 0
        self._summary = b""

    def __len__(self) -> int:
        return len(self._heads)

    def move(self, author: bytes, height: int, digest: bytes) -> None:
        """Its element is that one from now on; height 0: it has none."""
        known = self._heads.pop(author, None)
        if known is not None:
            self._sum -= _hash(author, *known)
        if height:
            self._heads[author] = height, digest
            self._sum += _hash(author, height, digest)
        self._summary = b""

    def height(self, author: bytes) -> int:
        return self._heads.get(author, (0, b""))[0]

    def pairs(self) -> Iterator[tuple[bytes, int]]:
        return ((author, height) for author, (height, _) in self._heads.items())

    def summary(self, genesis_digest: bytes) -> bytes:
        """The same only for who has the same heads, of the same ledger."""
        if not self._summary:
            raw = (self._sum % (1 << 8 * _SUM_BYTES)).to_bytes(_SUM_BYTES, "big")
            key = genesis_digest
            self._summary = hashlib.blake2b(raw, digest_size=SUMMARY_BYTES, key=key, person=SUMMARY_KIND).digest()
        return self._summary

    def shortened(self, code: SymbolCode) -> dict[int, tuple[bytes, int]]:
        """Author and height by id, some 2 µs each."""
        return {
            code.shorten(_element(author, height, digest)): (author, height)
            for author, (height, digest) in self._heads.items()
        }


def _element(author: bytes, height: int, digest: bytes) -> bytes:
    return author + height.to_bytes(8, "big") + digest


def _hash(author: bytes, height: int, digest: bytes) -> int:
    return int.from_bytes(hashlib.shake_256(_element(author, height, digest)).digest(_SUM_BYTES), "big")


# ---- as they travel


def encode_heads(heads: Iterable[tuple[bytes, int]]) -> bytes:
    return b"".join(author + varint(height) for author, height in heads)


def decode_heads(raw: bytes) -> dict[bytes, int]:
    """Raises PeerFault (reason BadHeads)."""
    heads = dict[bytes, int]()
    for author, numbers in _read(raw, 1):
        if author in heads:
            raise PeerFault("heads: an author is named twice", reason="BadHeads")
        heads[author] = numbers[0]
    return heads


def encode_spans(spans: Iterable[Span]) -> bytes:
    return b"".join(span.author + varint(span.first) + varint(span.last - span.first) for span in spans)


def decode_spans(raw: bytes) -> tuple[Span, ...]:
    """Raises PeerFault (reason BadHeads)."""
    spans = tuple(Span(author, first, first + more) for author, (first, more) in _read(raw, 2))
    if any(span.last > SEQ_MAX for span in spans):
        raise PeerFault(f"heads: a span ends above {SEQ_MAX}", reason="BadHeads")
    return spans


def encode_authors(authors: Iterable[bytes]) -> bytes:
    return b"".join(authors)


def decode_authors(raw: bytes) -> tuple[bytes, ...]:
    """Raises PeerFault (reason BadHeads)."""
    return tuple(author for author, _ in _read(raw, 0))


def _read(raw: bytes, numbers: int) -> Iterator[tuple[bytes, list[int]]]:
    """Authors, each with so many numbers, the first of them above 0."""
    at, count = 0, 0
    while at < len(raw):
        author, at, read = raw[at : at + NODE_ID_BYTES], at + NODE_ID_BYTES, list[int]()
        for _ in range(numbers):
            try:
                number, at = read_varint(raw, at)
            except ValueError as error:
                raise PeerFault(f"heads: {error}", reason="BadHeads") from error
            read.append(number)
        if at > len(raw) or (read and not 0 < read[0] <= SEQ_MAX):
            raise PeerFault(f"heads: no author with its heights before byte {at} of {len(raw)}", reason="BadHeads")
        count += 1
        if count > HEADS_MAX:
            raise PeerFault(f"heads: more than {HEADS_MAX} authors in one message", reason="BadHeads")
        yield author, read
