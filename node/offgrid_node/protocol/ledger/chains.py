"""The blocks that this node holds: each author's chain, all in the order in which they came in, and who forked.

An author's blocks are a chain. Two blocks at one height are proof of a liar: the author is frozen. From that height on
nothing more of it is taken in but blocks that somebody's block names, as a parent or by a `Seen`; and everybody who
freezes an author says by a `Seen` how far it had come. What named a block beside the chain may itself never be taken
in, for its other parents may be withheld: whoever has taken in such a block, and nothing that leans on it, says a
`Seen` of it as well. So what one honest node has counted, all others come to hold, and a liar can cause no endless bush
of branches. Below the fork the chain is plain: whoever joins later, and has been shown the fork first, is served it
like any other, and says anew by a `Seen` how far it has come. The fork is the lowest of which anything here tells, not
the one that was seen first: that is the same for all who hold the same blocks, so their heads are (heads.py).

Blocks are handed on in the order in which this node took them in, so whoever takes them in turn finds everything that
they lean on there already.

Behind a checkpoint the blocks themselves go (pruning.py). What stays of an author is its base, the newest block of its
that went: it counts as held, the next one follows it, and what lies below is of no use any more.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.checkpoints import Base
from offgrid_node.protocol.ledger.heads import Heads, Span
from offgrid_node.protocol.ledger.items import SignedHeader
from offgrid_node.protocol.ledger.records import HEADER_KIND, PARENTS_MAX, Header
from offgrid_node.protocol.ledger.tables import AUTHORS, CHAINS, LOG, PLACES, UNTOLD, chain_key, number_key, number_of
from offgrid_node.protocol.signing import digest_of

HELD_MAX = 65_536  # digests in memory; all are in their rows
_AUTHOR = struct.Struct(">Q32sQQB")
NOTHING = bytes(32)
TELL_SEEN, TELL_FORK = 1, 2


class Author(msgspec.Struct):
    """The newest block of its chain, as this node has it. `place` is the highest position of any block of this author.
    `forked_at` is the lowest height at which it is known to have forked, 0 of an honest author. `tell`: this node has
    to tell the others of it (TELL_SEEN how far it has come, TELL_FORK the evidence as well)."""

    height: int = 0
    digest: bytes = NOTHING
    place: int = 0
    forked_at: int = 0
    tell: int = 0

    @property
    def frozen(self) -> bool:
        return self.forked_at > 0

    def plain(self, height: int) -> bool:
        """Whether its next block may come in at that height though nobody names it."""
        return not self.frozen or height < self.forked_at


class Chains:
    """Blocks by digest, by author and height, and by position."""

    def __init__(self, draft: Draft, salt: bytes) -> None:
        self._draft, self._salt = draft, salt
        self._authors: dict[bytes, Author] = {}
        self._places: dict[bytes, int] = {}
        self._unnamed: dict[bytes, bytes] = {}  # author → its newest block that no block of ours has named yet
        self._untold: dict[bytes, bytes] = {}  # block beside its chain that nothing held leans on → its author
        self._bases: dict[bytes, int] = {}  # author → the height up to which its blocks have gone
        self._based: dict[bytes, tuple[bytes, int]] = {}  # the digest there → author and height
        self._cut: dict[bytes, tuple[int, bytes]] = {}  # author → height and digest, of the last checkpoint
        self._cut_digests: set[bytes] = set()  # and the genesis
        self._cut_forked: set[bytes] = set()  # who forked, as it says
        self._rooted: dict[bytes, int] = {}  # what was found to lead back to the checkpoint → its epoch
        self._epoch = 0
        self._end = 0
        self._genesis_digest = b""
        self.heads = Heads()

    def load(self, genesis_digest: bytes) -> None:
        self._genesis_digest = genesis_digest
        for author, row in self._draft.committed(AUTHORS, b""):
            self._authors[author] = decode_author(row)
            self._show(author, self._authors[author])
        self._end = max((author.place for author in self._authors.values()), default=0)
        self._untold.update(self._draft.committed(UNTOLD, b""))

    # ---- questions

    def base(self, author: bytes) -> int:
        """The height up to which the author's blocks have gone."""
        return self._bases.get(author, 0)

    def cut_height(self, author: bytes) -> int:
        """The height of its head in the last checkpoint."""
        return self._cut.get(author, (0, b""))[0]

    def has_cut(self) -> bool:
        """Whether all chains have come to their heads in the last checkpoint, but those that fork below them here."""
        for name, (height, _) in self._cut.items():
            author = self.author(name)
            if author.height < height and author.plain(height):
                return False
        return True

    @property
    def authors(self) -> Mapping[bytes, Author]:
        return self._authors

    @property
    def end(self) -> int:
        """The position of the block that came in last."""
        return self._end

    def author(self, author: bytes) -> Author:
        return self._authors.get(author) or Author(digest=self._genesis_digest)

    def holds(self, digest: bytes) -> bool:
        known = digest == self._genesis_digest or digest in self._based
        return known or self.place(digest) is not None or digest in self._cut_digests

    def place(self, digest: bytes) -> int | None:
        place = self._places.get(digest)
        if place is None and (row := self._draft.get(PLACES, digest)) is not None:
            place = self._places[digest] = number_of(row)
        return place

    def extends(self, header: Header) -> bool:
        """Whether it is the next block of its author's chain as it is held here."""
        author = self.author(header.author)
        return header.prev == author.digest and header.height == author.height + 1

    def follows(self, header: Header) -> bool:
        """Whether its `prev`, which is held here, may stand before it at all: same author, the height below."""
        if header.prev == self._genesis_digest:
            return header.height == 1
        if header.prev in self._based:
            return self._based[header.prev] == (header.author, header.height - 1)
        if header.prev in self._cut_digests:
            return self._cut.get(header.author) == (header.height - 1, header.prev)
        before = self.header_of(header.prev)
        return before is not None and (before.header.author, before.header.height + 1) == (header.author, header.height)

    def is_rooted(self, digest: bytes) -> bool:
        """Whether a block that is held is its author's head in the last checkpoint, or leads back to it: of who forked
        before it, by blocks of this epoch alone, for what is older beside a chain goes, sooner here and later there.
        All who know the checkpoint can take in what leads back to it, and nobody need hold anything else."""
        walked = dict[bytes, int]()
        while self._epoch and digest not in self._rooted and digest not in self._cut_digests:
            held = self.header_of(digest)
            if held is None or held.header.height <= self.cut_height(held.header.author):
                return False
            if held.header.epoch < self._epoch and held.header.author in self._cut_forked:
                return False
            walked[digest] = held.header.epoch
            digest = held.header.prev
        self._rooted |= walked
        return True

    def is_in_order(self, header: Header, named: Sequence[bytes]) -> bool:
        """Whether all who know the last checkpoint can take in a block whose `prev` and what else it names are held. Of
        this epoch it must lead back to the checkpoint, and all that it names be of this epoch and do so too: that is
        here whole, whenever a node prunes. What is older, and says nothing that counts, may be the next of its chain as
        well."""
        if header.epoch < self._epoch and self.extends(header):
            return True
        above = header.height > self.cut_height(header.author)
        return above and self.is_rooted(header.prev) and all(self._is_of_now(digest) for digest in named)

    def header_of(self, digest: bytes) -> SignedHeader | None:
        place = self.place(digest)
        return self._header_at(place) if place is not None else None

    def header_at(self, author: bytes, height: int) -> SignedHeader | None:
        """The block of the author's chain at that height."""
        row = self._draft.get(CHAINS, chain_key(author, height))
        return self._header_at(number_of(row)) if row is not None else None

    def raw(self, place: int) -> bytes | None:
        """A whole block as it is passed on."""
        return self._draft.get(LOG, number_key(place))

    def base_of(self, name: bytes) -> Base:
        """Its newest block in its chain below every fork that is known, but none before its head in the last
        checkpoint; the fork of which it tells is right behind that, wherever the author forked."""
        author = self.author(name)
        height, digest = author.height, author.digest
        if not author.plain(height):
            below = self.header_at(name, author.forked_at - 1)
            height, digest = (author.forked_at - 1, below.digest) if below is not None else (0, NOTHING)
            height, digest = max((height, digest), self._cut.get(name, (0, NOTHING)))
        return Base(name, height, digest if height else NOTHING, height + 1 if author.frozen else 0)

    def has_base(self, base: Base) -> bool:
        """Whether the block is held in its author's chain, gone or not, and if it tells of a fork, one is known."""
        if base.forked_at and not self.author(base.author).frozen:
            return False
        if not base.height:
            return base.digest == NOTHING and base.forked_at > 0
        if self._cut.get(base.author) == (base.height, base.digest):
            return True
        place, row = self.place(base.digest), self._draft.get(CHAINS, chain_key(base.author, base.height))
        return place is not None and row == number_key(place)

    # ---- what others lack

    def in_order(self, spans: Iterable[Span]) -> Iterator[tuple[int, bytes, int]]:
        """Position, author and height of the blocks in these spans, as far as they are held, in the order in which they
        came in. It reads a row for each author and one for each block, however long the chains are."""
        lines: list[tuple[int, bytes, int, int]] = []  # the next block of each author: position, author, height, last
        for span in spans:
            self._line_up(lines, span.author, span.first, span.last)
        while lines:
            place, name, height, last = heapq.heappop(lines)
            yield place, name, height
            self._line_up(lines, name, height + 1, last)

    def with_ancestors(self, digest: bytes, most: int) -> list[int]:
        """A block's position behind those of up to `most` - 1 blocks before it in its author's chain."""
        places: list[int] = []
        while len(places) < most and (place := self.place(digest)) is not None:
            places.append(place)
            header = self._header_at(place)
            if header is None:
                break
            digest = header.header.prev
        return places[::-1]

    # ---- changes

    def append(self, block: CheckedBlock) -> None:
        """Takes a block in for good; its parents are held. What is no plain next block stands beside the chain."""
        header, name = block.header, block.header.author
        author = self._authors.get(name)
        if author is None:
            author = self._authors[name] = Author(digest=self._genesis_digest)
        chained = self.extends(header) and author.plain(header.height)
        self._end += 1
        author.place = self._places[block.digest] = self._end
        self._draft.put_bytes(LOG, number_key(self._end), block.raw)
        self._draft.put_bytes(PLACES, block.digest, number_key(self._end))
        if chained:
            author.height, author.digest = header.height, block.digest
            if author.frozen:
                author.tell = author.tell or TELL_SEEN
            self._draft.put_bytes(CHAINS, chain_key(name, header.height), number_key(self._end))
        else:
            self._untold[block.digest] = name
            self._draft.put_bytes(UNTOLD, block.digest, name)
            author.forked_at = min(author.forked_at, header.height)
        now_on = header.epoch >= self._epoch
        for digest in block.leans_on if now_on else (header.prev,):  # whoever takes this block in has to hold them
            self._tell(digest)
        self._unnamed.pop(name, None)
        if now_on and header.height > self.cut_height(name) and self.is_rooted(header.prev):
            if self._epoch:
                self._rooted[block.digest] = header.epoch
            self._unnamed[name] = block.digest
        self._keep(name, author)

    def freeze(self, name: bytes, height: int) -> None:
        """The author forked there, as evidence shows; that, and its newest block as it stands, is to be told."""
        author = self._authors.setdefault(name, Author(digest=self._genesis_digest))
        author.forked_at, author.tell = min(author.forked_at or height, height), TELL_FORK
        self._keep(name, author)

    def forked_before(self, name: bytes, height: int) -> None:
        """A frozen author forked there too. It is nothing to tell: what shows it stands in a block, or is one."""
        author = self._authors[name]
        if height < author.forked_at:
            author.forked_at = height
            self._keep(name, author)

    def begin_epoch(self, number: int, bases: Iterable[ledger_pb2.BaseRow]) -> None:
        """An epoch begins behind the checkpoint of these heads."""
        self._epoch = number
        self._rooted.clear()
        listed = [*bases]
        self._cut = {base.author: (base.height, base.digest) for base in listed if base.height}
        self._cut_digests = {self._genesis_digest, *(digest for _, digest in self._cut.values())}
        self._cut_forked = {base.author for base in listed if base.forked_at}
        for base in listed:  # who forked by its word, or is another branch here, comes by name from there on
            row = self._draft.get(CHAINS, chain_key(base.author, base.height))
            other = row is not None and number_of(row) != self.place(base.digest)
            if forked_at := base.forked_at or other * base.height:
                author = self._authors.setdefault(base.author, Author(digest=self._genesis_digest))
                author.forked_at = min(author.forked_at or forked_at, forked_at)
                self._keep(base.author, author)
        for name, author in self._authors.items():
            if author.frozen:
                self._show(name, author)

    def begin_at(self, bases: Iterable[ledger_pb2.BaseRow]) -> None:
        """Each author stands where a checkpoint says, unless its chain goes on from there here."""
        for base in bases:
            author = self._authors.setdefault(base.author, Author(digest=self._genesis_digest))
            row = self._draft.get(CHAINS, chain_key(base.author, base.height))
            gone = self._based.get(base.digest) == (base.author, base.height)  # pruned here, so it was held
            if not gone and (row is None or number_of(row) != self.place(base.digest)):
                for height in range(base.height + 1, author.height + 1):
                    self._draft.delete(CHAINS, chain_key(base.author, height))
                author.height, author.digest = base.height, base.digest if base.height else self._genesis_digest
            author.forked_at = min((at for at in (author.forked_at, base.forked_at) if at), default=0)
            self._keep(base.author, author)

    def raise_floor(self, bases: Iterable[ledger_pb2.BaseRow]) -> None:
        """Blocks up to these go from now on, by and by."""
        above = [base for base in bases if base.height]
        self._bases = {base.author: base.height for base in above}
        self._based = {base.digest: (base.author, base.height) for base in above}

    def prune(self, place: int, raw: bytes, epoch: int) -> None:
        """Forgets the block at that position if it lies behind the bases; or beside the chain of one who forked as the
        checkpoint says, so that nobody leans on it any more, and is of that epoch or one before it."""
        signed = self._decode(raw)
        name, height = signed.header.author, signed.header.height
        chained = self._draft.get(CHAINS, chain_key(name, height)) == number_key(place)
        if not (height <= self.base(name) if chained else name in self._cut_forked and signed.header.epoch <= epoch):
            return
        self._draft.delete(LOG, number_key(place))
        self._draft.delete(PLACES, signed.digest)
        self._places.pop(signed.digest, None)
        if chained:
            self._draft.delete(CHAINS, chain_key(name, height))
        self._tell(signed.digest)

    def told(self, name: bytes) -> None:
        """The others know by the block that this very batch makes durable."""
        author = self._authors[name]
        author.tell = 0
        self._keep(name, author)

    def take_untold(self) -> list[tuple[bytes, bytes]]:
        """(author, digest) of the blocks beside their chains that the others must be told of, once."""
        untold = [(name, digest) for digest, name in self._untold.items()]
        for _, digest in untold:
            self._tell(digest)
        return untold

    def enter(self) -> None:
        """An epoch has begun: whoever begins with it need not find what is older, so our blocks do not name it."""
        self._unnamed.clear()

    def take_parents(self, own: bytes) -> tuple[bytes, ...]:
        """For this node's next block: the newest blocks of others that none of ours has named yet."""
        self._unnamed.pop(own, None)
        return tuple(self._unnamed.pop(name) for name in [*self._unnamed][-PARENTS_MAX:])

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        if len(self._places) > HELD_MAX:
            self._places.clear()
        if len(self._rooted) > HELD_MAX:  # the newer half stays, so what comes next is not walked back all the way
            for digest in [*self._rooted][: -HELD_MAX // 2]:
                del self._rooted[digest]

    def _is_of_now(self, digest: bytes) -> bool:
        return not self._epoch or (self.is_rooted(digest) and self._rooted.get(digest) == self._epoch)

    def _tell(self, digest: bytes) -> None:
        """What is durable with this batch tells of that block."""
        if self._untold.pop(digest, None) is not None:
            self._draft.delete(UNTOLD, digest)

    def _line_up(self, lines: list[tuple[int, bytes, int, int]], name: bytes, height: int, last: int) -> None:
        if height <= last and (row := self._draft.get(CHAINS, chain_key(name, height))) is not None:
            heapq.heappush(lines, (number_of(row), name, height, last))

    def _show(self, name: bytes, author: Author) -> None:
        """Its element among the heads: see heads.py."""
        if author.plain(author.height):
            self.heads.move(name, author.height, author.digest)
        else:
            below = self.header_at(name, author.forked_at - 1)
            height, digest = self._cut.get(name, (0, NOTHING))  # the same for all in this epoch, whatever has gone
            if below is not None and below.header.height > height:
                height, digest = below.header.height, below.digest
            self.heads.move(name, height, digest)

    def _keep(self, name: bytes, author: Author) -> None:
        self._show(name, author)
        row = _AUTHOR.pack(author.height, author.digest, author.place, author.forked_at, author.tell)
        self._draft.put_bytes(AUTHORS, name, row)

    def _header_at(self, place: int) -> SignedHeader | None:
        raw = self.raw(place)
        return self._decode(raw) if raw is not None else None

    def _decode(self, raw: bytes) -> SignedHeader:
        signed = ledger_pb2.Block.FromString(raw).header
        digest = digest_of(HEADER_KIND, self._salt, signed.body)
        return SignedHeader(Header.decode(signed.body), signed.body, signed.signature, digest)


def decode_author(row: bytes) -> Author:
    return Author(*_AUTHOR.unpack(row))
