"""The bodies with which an epoch ends and the next begins: the checkpoint, what an admin orders of the committee, and
what a cut says beside the checkpoint.

    order       ver1 | ledger32 | issuer20 | key2 | epoch4 | n2 x (witness20 weight4) | created8
    checkpoint  ver1 | ledger32 | epoch4 | previous32 | accounts32 | count4 | supply8 | fees8 | heads32 | targets32 |
                order32 | n2 x (witness20 weight4) | created8
    target      account20 | seq8 | n1 x digest32
    head        author20 | height8 | digest32 | forked8

`ledger` is the genesis' digest. An order names the epoch that it opens, a checkpoint the one that it ends. `accounts`
is the root over all accounts, in their order, ACCOUNTS_PER_LEAF in a leaf: account20 | balance8 | next8 | head32.
`fees` are those of which the epoch's witnesses are paid (rewards.py), as these accounts have it already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.ledger.records import AMOUNT_MAX, DIGEST_BYTES, SEQ_MAX, SUPPLY_MAX, WITNESSES_MAX
from offgrid_node.protocol.merkle import root_of
from offgrid_node.protocol.signing import BodyReader, BodyWriter, check_version, decode_body, digest_of

ORDER_KIND, CHECKPOINT_KIND = b"og.committee.v1", b"og.checkpoint.v1"
CUT_KIND, HEADS_KIND, TARGETS_KIND, ACCOUNTS_KIND = b"og.cut.v1", b"og.heads.v1", b"og.targets.v1", b"og.accounts.v1"
VERSION = 1
NO_ORDER = bytes(DIGEST_BYTES)
EPOCH_MAX = 2**32 - 1
ACCOUNTS_PER_LEAF = 256
TARGET_SLOTS_MAX = 255

Witnesses = tuple[tuple[str, int], ...]  # node id, weight in thousandths


class Order(msgspec.Struct, frozen=True):
    """An admin wants the epoch to begin with these witnesses. `key` is the number of the admin's key that signs it."""

    ledger: bytes
    issuer: bytes
    key: int
    epoch: int
    witnesses: Witnesses
    created_us: int

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(self.ledger, DIGEST_BYTES).fixed(self.issuer, NODE_ID_BYTES)
        writer.uint(self.key, 2).uint(self.epoch, 4)
        return _write_witnesses(writer, self.witnesses).uint(self.created_us, 8).done()

    @classmethod
    def decode(cls, body: bytes) -> Order:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("committee order", body, cls._read)

    @classmethod
    def _read(cls, reader: BodyReader) -> Order:
        check_version(reader.uint(1), VERSION)
        ledger, issuer = reader.fixed(DIGEST_BYTES), reader.fixed(NODE_ID_BYTES)
        order = cls(ledger, issuer, reader.uint(2), reader.uint(4), _read_witnesses(reader), reader.uint(8))
        if order.epoch == 0 or order.created_us > AMOUNT_MAX:
            raise ValueError(f"epoch {order.epoch}: the genesis names the witnesses of epoch 0")
        return order

    def digest(self, salt: bytes) -> bytes:
        return digest_of(ORDER_KIND, salt, self.encode())


class Checkpoint(msgspec.Struct, frozen=True):
    """What an epoch ends with. `count` is how many accounts there are, `order` the digest of the order that names the
    witnesses of the next epoch."""

    ledger: bytes
    epoch: int
    previous: bytes
    accounts: bytes
    count: int
    supply_micro: int
    fees_micro: int
    heads: bytes
    targets: bytes
    order: bytes
    witnesses: Witnesses
    created_us: int

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(self.ledger, DIGEST_BYTES).uint(self.epoch, 4)
        writer.fixed(self.previous, DIGEST_BYTES).fixed(self.accounts, DIGEST_BYTES).uint(self.count, 4)
        writer.uint(self.supply_micro, 8).uint(self.fees_micro, 8)
        for digest in (self.heads, self.targets, self.order):
            writer.fixed(digest, DIGEST_BYTES)
        return _write_witnesses(writer, self.witnesses).uint(self.created_us, 8).done()

    @classmethod
    def decode(cls, body: bytes) -> Checkpoint:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("checkpoint", body, cls._read)

    @classmethod
    def _read(cls, reader: BodyReader) -> Checkpoint:
        check_version(reader.uint(1), VERSION)
        ledger, epoch = reader.fixed(DIGEST_BYTES), reader.uint(4)
        previous, accounts, count = reader.fixed(DIGEST_BYTES), reader.fixed(DIGEST_BYTES), reader.uint(4)
        supply, fees = reader.uint(8), reader.uint(8)
        heads, targets, order = (reader.fixed(DIGEST_BYTES) for _ in range(3))
        witnesses, created = _read_witnesses(reader), reader.uint(8)
        if epoch == EPOCH_MAX:
            raise ValueError(f"epoch {epoch} is the last that a number can name")
        if supply > SUPPLY_MAX or fees > supply or created > AMOUNT_MAX:
            raise ValueError(f"fees of {fees} and a supply of {supply}; at most {SUPPLY_MAX} is allowed")
        return cls(ledger, epoch, previous, accounts, count, supply, fees, heads, targets, order, witnesses, created)

    def digest(self, salt: bytes) -> bytes:
        """What is voted on."""
        return digest_of(CHECKPOINT_KIND, salt, self.encode())


class Target(msgspec.Struct, frozen=True):
    """What an account's slots end with, from `seq` on, each by its transaction's digest or the no-op's."""

    account: bytes
    seq: int
    digests: tuple[bytes, ...]

    def encode(self) -> bytes:
        head = self.account + self.seq.to_bytes(8, "big") + bytes((len(self.digests),))
        return head + b"".join(self.digests)

    @classmethod
    def read(cls, reader: BodyReader) -> Target:
        """Raises ValueError."""
        account, seq, count = reader.fixed(NODE_ID_BYTES), reader.uint(8), reader.uint(1)
        if not count or seq + count > SEQ_MAX:
            raise ValueError(f"{count} slots of {base32(account)} from {seq} on; 1 to {TARGET_SLOTS_MAX} are allowed")
        return cls(account, seq, tuple(reader.fixed(DIGEST_BYTES) for _ in range(count)))


class Base(msgspec.Struct, frozen=True):
    """The newest block of an author's chain that lies behind the checkpoint. `forked_at` is 0, or of who forked the
    height behind this one: from there on blocks come by name alone, as in chains.Author."""

    author: bytes
    height: int
    digest: bytes
    forked_at: int = 0

    def encode(self) -> bytes:
        return self.author + self.height.to_bytes(8, "big") + self.digest + self.forked_at.to_bytes(8, "big")

    @classmethod
    def read(cls, reader: BodyReader) -> Base:
        """Raises ValueError."""
        author, height = reader.fixed(NODE_ID_BYTES), reader.uint(8)
        base = cls(author, height, reader.fixed(DIGEST_BYTES), reader.uint(8))
        if height > SEQ_MAX:
            raise ValueError(f"height {height} of {base32(author)}; at most {SEQ_MAX} is allowed")
        if base.forked_at not in (0, height + 1):
            raise ValueError(f"{base32(author)} forked at {base.forked_at}; 0 and {height + 1} are allowed")
        return base


def targets_digest(targets: Iterable[Target], salt: bytes) -> bytes:
    return digest_of(TARGETS_KIND, salt, b"".join(target.encode() for target in targets))


def heads_digest(heads: Iterable[Base], salt: bytes) -> bytes:
    """Of all authors, in their order."""
    return digest_of(HEADS_KIND, salt, b"".join(head.encode() for head in heads))


def account_leaves(accounts: Sequence[bytes], salt: bytes) -> Iterator[bytes]:
    """Of what accounts have, each 20 bytes and accounts.Account's row, in their order. There is one leaf at least."""
    for first in range(0, max(1, len(accounts)), ACCOUNTS_PER_LEAF):
        yield digest_of(ACCOUNTS_KIND, salt, b"".join(accounts[first : first + ACCOUNTS_PER_LEAF]))


def accounts_root(accounts: Sequence[bytes], salt: bytes) -> bytes:
    return root_of([*account_leaves(accounts, salt)])


def cut_account(ledger: bytes, epoch: int, salt: bytes) -> bytes:
    """The account in whose slot 0 it is agreed on what the epoch ends with. Nobody has money there."""
    body = BodyWriter().uint(VERSION, 1).fixed(ledger, DIGEST_BYTES).uint(epoch, 4).done()
    return digest_of(CUT_KIND, salt, body)[:NODE_ID_BYTES]


def check_witnesses(witnesses: Witnesses) -> None:
    """Raises ValueError unless they may be a committee."""
    if not 1 <= len(witnesses) <= WITNESSES_MAX:
        raise ValueError(f"{len(witnesses)} witnesses, 1 to {WITNESSES_MAX} are allowed")
    if len({node for node, _ in witnesses}) < len(witnesses):
        raise ValueError("a witness is named twice")
    if any(weight == 0 for _, weight in witnesses):
        raise ValueError("a witness weighs nothing")


def _write_witnesses(writer: BodyWriter, witnesses: Witnesses) -> BodyWriter:
    writer.uint(len(witnesses), 2)
    for node, weight in witnesses:
        writer.fixed(node_id_bytes(node), NODE_ID_BYTES).uint(weight, 4)
    return writer


def _read_witnesses(reader: BodyReader) -> Witnesses:
    count = reader.uint(2)
    if count > WITNESSES_MAX:
        raise ValueError(f"{count} witnesses, 1 to {WITNESSES_MAX} are allowed")
    witnesses = tuple((base32(reader.fixed(NODE_ID_BYTES)), reader.uint(4)) for _ in range(count))
    check_witnesses(witnesses)
    return witnesses
