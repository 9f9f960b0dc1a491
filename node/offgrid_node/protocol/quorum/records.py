"""The signed bodies of a quorum: the epoch, by which its owner names members, weights and what is to be acked, and the
ack, by which a member vouches that it holds that thing, durably.

Bodies are the fixed big-endian form of protocol/signing.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from struct import Struct

import msgspec

from offgrid.v1 import common_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes, node_id_from
from offgrid_node.protocol.signing import BodyReader, check_version, decode_body, digest_of, signed_by

EPOCH_KIND, ACK_KIND = b"og.epoch.v1", b"og.ack.v1"
VERSION = 1
DIGEST_BYTES = 32
MEMBERS_MAX = 64
NOBODY = 255  # in a layout: a shard that no member holds
EPOCHS_REMEMBERED, ACKS_REMEMBERED = 256, 1_024
QUORUM_ID_BYTES_MAX = 128
QUORUM_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{QUORUM_ID_BYTES_MAX - 1}}}\Z")
QUORUM_ID_RULE = f"1 to {QUORUM_ID_BYTES_MAX} characters of A-Z a-z 0-9 . _ : -, the first a letter or digit"
_EPOCH_HEAD = Struct(f">B{NODE_ID_BYTES}sH")  # version, owner, how long the id is
_TERMS = Struct(f">I{DIGEST_BYTES}sQIB")  # number, subject, size, required weight, how many members
_MEMBER = Struct(f">{NODE_ID_BYTES}sII")
_SHARD = Struct(">BI")
_ACK_HEAD = Struct(f">B{NODE_ID_BYTES}s{NODE_ID_BYTES}sH")
_ACK_TAIL = Struct(f">I{DIGEST_BYTES}sQ{DIGEST_BYTES}s")
OBJECT_PREFIX = "object:"  # before an object's id: quorums that objects open for themselves
NOTHING = bytes(
    DIGEST_BYTES
)  # the subject of a quorum whose id says it all, and the possession of one who holds nothing


class Member(msgspec.Struct, frozen=True):
    """Who counts in an epoch, and for how much. `since` is the first epoch that asked the member for all of it: acks of
    that one and of all later ones count. 0: this very epoch's alone, and wherever an epoch has a layout."""

    node_id: str
    weight_milli: int
    since: int = 0


class Epoch(msgspec.Struct, frozen=True, dict=True):
    """What the owner signs. `subject` is what is acked: an object's root, or 32 zeros where the id says it all.

    Of a coded object, `needed` shards give it back, and `layout` says for each shard which of the members, by index,
    is to hold it (NOBODY: none), `sinces` from which epoch on (0: this one). Of all else every member holds all of it:
    one is needed, and both are empty.
    """

    owner: str
    quorum_id: str
    epoch: int
    subject: bytes
    size_bytes: int
    required_milli: int
    members: tuple[Member, ...]
    needed: int = 1
    layout: tuple[int, ...] = ()
    sinces: tuple[int, ...] = ()

    @cached_property
    def weights(self) -> Mapping[str, int]:
        return {member.node_id: member.weight_milli for member in self.members}

    @cached_property
    def shards(self) -> Mapping[str, tuple[int, ...]]:
        """What each member is to hold, in ascending order; (0,) where it is all of it."""
        if not self.layout:
            return {member.node_id: (0,) for member in self.members}
        held: dict[str, list[int]] = {member.node_id: [] for member in self.members}
        for shard, index in enumerate(self.layout):
            if index != NOBODY:
                held[self.members[index].node_id].append(shard)
        return {node_id: tuple(shards) for node_id, shards in held.items()}

    def encode(self) -> bytes:
        quorum_id, members = self.quorum_id.encode(), self.members
        parts = [
            _EPOCH_HEAD.pack(VERSION, node_id_bytes(self.owner), len(quorum_id)),
            quorum_id,
            _TERMS.pack(self.epoch, self.subject, self.size_bytes, self.required_milli, len(members)),
            *(_MEMBER.pack(node_id_bytes(member.node_id), member.weight_milli, member.since) for member in members),
            bytes((self.needed, len(self.layout))),
            *(_SHARD.pack(index, since) for index, since in zip(self.layout, self.sinces, strict=True)),
        ]
        return b"".join(parts)

    @classmethod
    def decode(cls, body: bytes) -> Epoch:
        """Raises PeerFault for anything that `encode` would not have written, that names a member twice, or whose
        layout cannot be."""
        return _epoch_of(body)

    @classmethod
    def _read(cls, reader: BodyReader) -> Epoch:
        version, owner, length = reader.unpack(_EPOCH_HEAD)
        check_version(version, VERSION)
        quorum_id = _quorum_id(reader.fixed(length))
        number, subject, size, required, count = reader.unpack(_TERMS)
        if count > MEMBERS_MAX:
            raise ValueError(f"{count} members, at most {MEMBERS_MAX} allowed")
        told = [reader.unpack(_MEMBER) for _ in range(count)]
        members = tuple([Member(node_id_from(node), weight, since) for node, weight, since in told])
        if len({member.node_id for member in members}) < count:
            raise ValueError("a member is named twice")
        needed, laid = reader.uint(1), [reader.unpack(_SHARD) for _ in range(reader.uint(1))]
        layout, sinces = tuple(index for index, _ in laid), tuple(since for _, since in laid)
        if any(since > number for since in (*sinces, *(member.since for member in members))):
            raise ValueError(f"a member or a shard since an epoch after {number}")
        if layout and any(member.since for member in members):
            raise ValueError("a member's own since beside those of the shards")
        if not (needed == 1 and not layout) and not 0 < needed <= len(layout):
            raise ValueError(f"{needed} of {len(layout)} shards are needed")
        if any(index != NOBODY and index >= count for index in layout):
            raise ValueError("a shard is laid at a member that is not named")
        return cls(node_id_from(owner), quorum_id, number, subject, size, required, members, needed, layout, sinces)


class Ack(msgspec.Struct, frozen=True):
    """What a member signs once the thing is durable with it. `possession` is a digest that only its bytes give."""

    node: str
    owner: str
    quorum_id: str
    epoch: int
    subject: bytes
    size_bytes: int
    possession: bytes

    def encode(self) -> bytes:
        quorum_id = self.quorum_id.encode()
        head = _ACK_HEAD.pack(VERSION, node_id_bytes(self.node), node_id_bytes(self.owner), len(quorum_id))
        return head + quorum_id + _ACK_TAIL.pack(self.epoch, self.subject, self.size_bytes, self.possession)

    @classmethod
    def decode(cls, body: bytes) -> Ack:
        """Raises PeerFault for anything that `encode` would not have written."""
        return _ack_of(body)

    @classmethod
    def _read(cls, reader: BodyReader) -> Ack:
        version, node, owner, length = reader.unpack(_ACK_HEAD)
        check_version(version, VERSION)
        quorum_id = _quorum_id(reader.fixed(length))
        return cls(node_id_from(node), node_id_from(owner), quorum_id, *reader.unpack(_ACK_TAIL))

    def is_for(self, epoch: Epoch) -> bool:
        """Whether it vouches for just what this very epoch asks."""
        return self.epoch == epoch.epoch and self._is_of(epoch)

    def shards_in(self, epoch: Epoch) -> tuple[int, ...]:
        """Which of its node's shards in `epoch` it vouches for: those that the node was to hold when it signed, and is
        since then; (0,) where it is all of it."""
        if not self._is_of(epoch) or self.epoch > epoch.epoch:
            return ()
        if not epoch.layout:
            since = next((member.since or epoch.epoch for member in epoch.members if member.node_id == self.node), None)
            return (0,) if since is not None and since <= self.epoch else ()
        mine = epoch.shards.get(self.node, ())
        return tuple(shard for shard in mine if (epoch.sinces[shard] or epoch.epoch) <= self.epoch)

    def _is_of(self, epoch: Epoch) -> bool:
        mine = self.owner, self.quorum_id, self.subject, self.size_bytes
        return mine == (epoch.owner, epoch.quorum_id, epoch.subject, epoch.size_bytes)


@lru_cache(EPOCHS_REMEMBERED)
def _epoch_of(body: bytes) -> Epoch:
    """An epoch is read again with every ack of it."""
    return decode_body("quorum epoch", body, Epoch._read)


@lru_cache(ACKS_REMEMBERED)
def _ack_of(body: bytes) -> Ack:
    """An ack is read when it comes, and again with each that comes after it."""
    return decode_body("quorum ack", body, Ack._read)


def _quorum_id(text: bytes) -> str:
    quorum_id = text.decode()
    if not QUORUM_ID.match(quorum_id):
        raise ValueError(f"quorum id {quorum_id[:QUORUM_ID_BYTES_MAX]!r}: {QUORUM_ID_RULE} are allowed")
    return quorum_id


# ---- signed


def sign_epoch(epoch: Epoch, signer: Signer, salt: bytes) -> common_pb2.Signed:
    return _signed(EPOCH_KIND, epoch.encode(), signer, salt)


def sign_ack(ack: Ack, signer: Signer, salt: bytes) -> common_pb2.Signed:
    return _signed(ACK_KIND, ack.encode(), signer, salt)


def verify_epoch(signed: common_pb2.Signed, keys: Sequence[bytes], verify: Verifier, salt: bytes) -> Epoch:
    """The epoch, if one of the keys signed it in this mesh; whether they are its owner's, the caller knows. Raises
    PeerFault."""
    epoch = Epoch.decode(signed.body)
    if not signed_by(keys, digest_of(EPOCH_KIND, salt, signed.body), signed.signature, verify):
        what = f"epoch {epoch.epoch} of {epoch.quorum_id}"
        raise PeerFault(f"{what}: the signature is not {epoch.owner}'s", reason="BadSignature")
    return epoch


def verify_ack(signed: common_pb2.Signed, keys: Sequence[bytes], verify: Verifier, salt: bytes) -> Ack:
    """As `verify_epoch`, of a member's ack."""
    ack = Ack.decode(signed.body)
    if not signed_by(keys, digest_of(ACK_KIND, salt, signed.body), signed.signature, verify):
        raise PeerFault(f"ack of {ack.quorum_id}: the signature is not {ack.node}'s", reason="BadSignature")
    return ack


def _signed(kind: bytes, body: bytes, signer: Signer, salt: bytes) -> common_pb2.Signed:
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(kind, salt, body)))
