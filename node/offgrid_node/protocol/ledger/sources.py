"""Where a transaction takes its money from, and who signs for that: a node's account, a lane of its owner's, or a hold.

A transaction's body carries its source whole, so whoever has the body and the keys of members needs nothing else to
check it. The account of a lane or a hold is 20 bytes of a digest over what it is, without salt, as node ids are.

    node      0 | node20
    lane      1 | owner20 | lane2 | key2
    hold      2 | terms | key2 | act
    terms     ver1 | payer20 | payee20 | number8 | funds8 | fee8 | expires8 | key2
    act       1 | amount8 | count4 | root32 | sig64     the payee posts the payer's voucher
              2                                          the payee gives all back
              3 | amount8                                the payer closes it after its time
    voucher   ver1 | hold20 | amount8 | count4 | root32

`key` is the number of the signer's key: how often that was replaced before (mesh/keychange.py). A node's account needs
none, for a key change says from which of its transactions on the next key signs; lanes and holds have numbers of their
own. Whoever has an old key could name an old number: so no witness votes for a key that it knows to be replaced
(witness.py), and what was final before stays good. Vouchers are signed by the key that the terms name: with an old one
nothing can be promised but out of holds that were funded in its time.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from offgrid_node.protocol.ids import NODE_ID_BYTES, base32
from offgrid_node.protocol.signing import SIGNATURE_BYTES, BodyReader, BodyWriter, check_version, decode_body, digest_of

LANE_KIND, HOLD_KIND, VOUCHER_KIND = b"og.lane.v1", b"og.hold.v1", b"og.voucher.v1"
VERSION = 1
NODE, LANE, HOLD = 0, 1, 2
POST, GIVE_BACK, CLOSE = 1, 2, 3
LANE_BYTES, LANE_MAX = 2, 2**16 - 1
KEY_NUMBER_BYTES = 2
TIME_MAX = 2**63 - 1
CLOCK_MARGIN_US = 600_000_000  # between the end of a hold's time and the payer's close: clocks off the grid differ
ROOT_BYTES = 32
NO_ROOT = bytes(ROOT_BYTES)


class NodeSource(msgspec.Struct, frozen=True):
    """The account of this node, which signs for it."""

    node: bytes

    @property
    def account(self) -> bytes:
        return self.node

    @property
    def signer(self) -> bytes:
        return self.node

    @property
    def key(self) -> int | None:
        """None: the transaction's number tells."""
        return None

    def encode(self) -> bytes:
        return bytes((NODE,)) + self.node


class LaneSource(msgspec.Struct, frozen=True, dict=True):
    """One of the further accounts of a node, from 1 on; it signs for all of them."""

    owner: bytes
    lane: int
    key: int = 0

    @cached_property
    def account(self) -> bytes:
        return lane_account(self.owner, self.lane)

    @property
    def signer(self) -> bytes:
        return self.owner

    def encode(self) -> bytes:
        return bytes((LANE,)) + self.owner + self.lane.to_bytes(2, "big") + self.key.to_bytes(KEY_NUMBER_BYTES, "big")


class HoldTerms(msgspec.Struct, frozen=True, dict=True):
    """What was agreed: out of `funds_micro`, which a transaction of the payer's brings, the payee gets what the payer
    promises by vouchers, the payer the rest, and `fee_micro` is the fee for that. `number` is the payer's; from
    `expires_us` on, and the margin for clocks, the payer may close it. `key` is the number of the payer's key of
    vouchers."""

    payer: bytes
    payee: bytes
    number: int
    funds_micro: int
    fee_micro: int
    expires_us: int
    key: int = 0

    @cached_property
    def account(self) -> bytes:
        return digest_of(HOLD_KIND, b"", self.encode())[:NODE_ID_BYTES]

    @property
    def room_micro(self) -> int:
        """The most that the payee can get."""
        return self.funds_micro - self.fee_micro

    def outputs(self, amount_micro: int) -> tuple[tuple[bytes, int], ...]:
        """How the hold ends when this much is the payee's."""
        shares = (self.payee, amount_micro), (self.payer, self.room_micro - amount_micro)
        return tuple((account, share) for account, share in shares if share)

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(self.payer, NODE_ID_BYTES).fixed(self.payee, NODE_ID_BYTES)
        writer.uint(self.number, 8).uint(self.funds_micro, 8).uint(self.fee_micro, 8).uint(self.expires_us, 8)
        return writer.uint(self.key, KEY_NUMBER_BYTES).done()

    @classmethod
    def decode(cls, body: bytes) -> HoldTerms:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("hold", body, cls.read, cls.encode)

    @classmethod
    def read(cls, reader: BodyReader) -> HoldTerms:
        """Raises ValueError for what no hold may be."""
        check_version(reader.uint(1), VERSION)
        payer, payee = reader.fixed(NODE_ID_BYTES), reader.fixed(NODE_ID_BYTES)
        numbers = (reader.uint(8), reader.uint(8), reader.uint(8), reader.uint(8), reader.uint(KEY_NUMBER_BYTES))
        terms = cls(payer, payee, *numbers)
        if payer == payee:
            raise ValueError("a hold of a node for itself")
        if terms.room_micro <= 0:
            raise ValueError(f"a hold of {terms.funds_micro} with a fee of {terms.fee_micro}: nothing is left to pay")
        if terms.expires_us > TIME_MAX:
            raise ValueError(f"a hold until {terms.expires_us}: at most {TIME_MAX} is allowed")
        return terms


class Voucher(msgspec.Struct, frozen=True):
    """The payer of a hold owes its payee so much in all, for `count` bookings under one Merkle root (records.py). A
    later one takes the place of an earlier one."""

    hold: bytes
    amount_micro: int
    count: int
    root: bytes

    def digest(self, salt: bytes) -> bytes:
        """What the payer signs."""
        writer = BodyWriter().uint(VERSION, 1).fixed(self.hold, NODE_ID_BYTES).uint(self.amount_micro, 8)
        return digest_of(VOUCHER_KIND, salt, writer.uint(self.count, 4).fixed(self.root, ROOT_BYTES).done())


class Post(msgspec.Struct, frozen=True):
    """The payee has what the voucher promises."""

    amount_micro: int
    count: int
    root: bytes
    signature: bytes

    def voucher(self, hold: bytes) -> Voucher:
        return Voucher(hold, self.amount_micro, self.count, self.root)

    def encode(self) -> bytes:
        writer = BodyWriter().uint(POST, 1).uint(self.amount_micro, 8).uint(self.count, 4)
        return writer.fixed(self.root, ROOT_BYTES).fixed(self.signature, SIGNATURE_BYTES).done()


class GiveBack(msgspec.Struct, frozen=True):
    """The payee wants nothing of it."""

    @property
    def amount_micro(self) -> int:
        return 0

    def encode(self) -> bytes:
        return bytes((GIVE_BACK,))


class Close(msgspec.Struct, frozen=True):
    """The payer, after its time: an honest one leaves the payee what its last voucher promises."""

    amount_micro: int

    def encode(self) -> bytes:
        return bytes((CLOSE,)) + self.amount_micro.to_bytes(8, "big")


Act = Post | GiveBack | Close


class HoldSource(msgspec.Struct, frozen=True):
    """A hold, and how it ends; the payee signs, or the payer where it closes it."""

    terms: HoldTerms
    act: Act
    key: int = 0

    @property
    def account(self) -> bytes:
        return self.terms.account

    @property
    def signer(self) -> bytes:
        return self.terms.payer if isinstance(self.act, Close) else self.terms.payee

    @property
    def due_us(self) -> int:
        """When witnesses vote for this end, by their own clocks; 0: at any time."""
        return self.terms.expires_us + CLOCK_MARGIN_US if isinstance(self.act, Close) else 0

    @property
    def outputs(self) -> tuple[tuple[bytes, int], ...]:
        """The only ones that its transaction may have."""
        return self.terms.outputs(self.act.amount_micro)

    def encode(self) -> bytes:
        key = self.key.to_bytes(KEY_NUMBER_BYTES, "big")
        return bytes((HOLD,)) + self.terms.encode() + key + self.act.encode()


Source = NodeSource | LaneSource | HoldSource


def lane_account(owner: bytes, lane: int) -> bytes:
    """The account of this owner's lane; its lane 0 is the account of the node itself."""
    if lane == 0:
        return owner
    return digest_of(LANE_KIND, b"", owner + lane.to_bytes(2, "big"))[:NODE_ID_BYTES]


def lane_source(owner: bytes, lane: int, key: int) -> NodeSource | LaneSource:
    """Of this owner's lane, 0 being the account of the node itself, signed by its key of this number."""
    return LaneSource(owner, lane, key) if lane else NodeSource(owner)


def read_source(reader: BodyReader) -> Source:
    """Raises ValueError for what no source encodes to."""
    kind = reader.uint(1)
    if kind == NODE:
        return NodeSource(reader.fixed(NODE_ID_BYTES))
    if kind == LANE:
        source = LaneSource(reader.fixed(NODE_ID_BYTES), reader.uint(2), reader.uint(KEY_NUMBER_BYTES))
        if source.lane == 0:
            raise ValueError(f"lane 0 of {base32(source.owner)} is the node's own account; 1 to {LANE_MAX} are allowed")
        return source
    if kind == HOLD:
        terms, key = HoldTerms.read(reader), reader.uint(KEY_NUMBER_BYTES)
        act = _read_act(reader)
        if act.amount_micro > terms.room_micro:
            raise ValueError(f"{act.amount_micro} out of a hold; at most {terms.room_micro} are allowed")
        return HoldSource(terms, act, key)
    raise ValueError(f"source {kind}; {NODE} (node), {LANE} (lane) and {HOLD} (hold) are known")


def _read_act(reader: BodyReader) -> Act:
    kind = reader.uint(1)
    if kind == POST:
        return Post(reader.uint(8), reader.uint(4), reader.fixed(ROOT_BYTES), reader.fixed(SIGNATURE_BYTES))
    if kind == GIVE_BACK:
        return GiveBack()
    if kind == CLOSE:
        return Close(reader.uint(8))
    raise ValueError(f"a hold's end {kind}; {POST} (post), {GIVE_BACK} (give back) and {CLOSE} (close) are known")
