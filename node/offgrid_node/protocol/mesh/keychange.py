"""How a node comes to another identity key and stays who it is: a chain of signed changes, from its first key on.

Each change names the key of before and the next one, and is signed by the key of before, or by the mesh's root where
that key is lost or in wrong hands; and by the next key, so that nobody takes another's for his own. What was signed
before stays good under the key of then; a change says from which block and which transaction of the ledger on the next
key signs.

Whoever holds an old key could sign a second change in its place. The one that a node has heard of first stays, and
the root's last word stands above all that it does not follow: an old key takes nothing back, and the root settles what
two parts of a mesh see differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.mesh.records import KEY_BYTES, Genesis, signed
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.signing import BodyReader, BodyWriter, decode_body, digest_of

KEY_CHANGE_KIND = b"og.keychange.v1"
CHANGES_MAX = 64  # of one node; each is some 700 bytes that travel with its record
RIVALLED = 255  # more than any chain is long


class KeyChange(msgspec.Struct, frozen=True, dict=True):
    """`number` counts from 1. `height` and `seq`: of the node's first block and first transaction by the next key."""

    node_id: str
    number: int
    before: bytes
    public_key: bytes
    height: int
    seq: int
    changed_us: int
    by_root: bool = False

    @cached_property
    def body(self) -> bytes:
        writer = BodyWriter().fixed(node_id_bytes(self.node_id), NODE_ID_BYTES).uint(self.number, 2)
        writer.fixed(self.before, KEY_BYTES).fixed(self.public_key, KEY_BYTES).uint(self.height, 8).uint(self.seq, 8)
        return writer.uint(self.changed_us, 8).uint(int(self.by_root), 1).done()

    @cached_property
    def body_hash(self) -> bytes:
        return hashlib.blake2b(self.body, digest_size=32, person=KEY_CHANGE_KIND).digest()


def _read(reader: BodyReader) -> KeyChange:
    node_id, number = base32(reader.fixed(NODE_ID_BYTES)), reader.uint(2)
    before, key, height, seq = reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES), reader.uint(8), reader.uint(8)
    changed_us, by_root = reader.uint(8), reader.uint(1)
    if not 1 <= number <= CHANGES_MAX or by_root > 1 or before == key:
        raise ValueError(f"change {number}: out of range, or to the same key")
    return KeyChange(node_id, number, before, key, height, seq, changed_us, bool(by_root))


def decode_key_change(body: bytes) -> KeyChange:
    """Raises PeerFault on a malformed body."""
    return decode_body("key change", body, _read, lambda change: change.body)


class HeldChange(msgspec.Struct, frozen=True):
    """A decoded change and the message that it came in."""

    change: KeyChange
    message: mesh_pb2.KeyChange


Chain = tuple[HeldChange, ...]


def sign_change(
    genesis: Genesis, change: KeyChange, signer: Signer, following: Signer, certificate: bytes
) -> mesh_pb2.KeyChange:
    """`signer` has the key of before, or the root's; `following` the next one, whose `certificate` it is."""
    message = signed(KEY_CHANGE_KIND, genesis.salt, change.body, signer)
    next_signature = following.sign(digest_of(KEY_CHANGE_KIND, genesis.salt, change.body))
    return mesh_pb2.KeyChange(change=message, certificate=certificate, next_signature=next_signature)


def check_chain(
    root: Root,
    node_id: str,
    first_key: bytes,
    messages: Sequence[mesh_pb2.KeyChange],
    verify: Verifier,
    check_certificate: Callable[[bytes], bytes] | None,
) -> Chain:
    """The changes, each signed as it should be and by a key that was in force. Raises PeerFault.

    Without `check_certificate` the certificates, with which nodes meet, are not looked at.
    """
    if len(messages) > CHANGES_MAX:
        raise PeerFault(f"{node_id}: {len(messages)} key changes, at most {CHANGES_MAX}", reason="BadKeyChange")
    key, chain = first_key, list[HeldChange]()
    for number, message in enumerate(messages, start=1):
        change = decode_key_change(message.change.body)
        if (change.node_id, change.number, change.before) != (node_id, number, key):
            raise PeerFault(f"{node_id}: key change {number} does not follow the one before", reason="BadKeyChange")
        last = chain[-1].change if chain else change
        if change.height < last.height or change.seq < last.seq:
            raise PeerFault(f"{node_id}: key change {number} begins before the last one", reason="BadKeyChange")
        said = last_by_root(tuple(chain)) if change.by_root else None
        if said is not None and change.changed_us <= said.changed_us:
            raise PeerFault(f"{node_id}: key change {number} is older than the root's last", reason="BadKeyChange")
        _check_signed(root, change, message, key, verify)
        if check_certificate is not None:
            _check_certificate(change, message.certificate, check_certificate)
        chain.append(HeldChange(change, message))
        key = change.public_key
    return tuple(chain)


def _check_signed(root: Root, change: KeyChange, message: mesh_pb2.KeyChange, key: bytes, verify: Verifier) -> None:
    what, said = f"{change.node_id}: key change {change.number}", message.change
    digest = digest_of(KEY_CHANGE_KIND, root.genesis.salt, said.body)
    if change.by_root:
        signed_so = root.said(KEY_CHANGE_KIND, said.body, said.signature, verify)
    else:
        signed_so = verify(key, digest, said.signature)
    if not signed_so:
        raise PeerFault(f"{what} has a bad signature", reason="BadSignature")
    if not verify(change.public_key, digest, message.next_signature):
        raise PeerFault(f"{what} is not signed by the next key", reason="BadSignature")


def _check_certificate(change: KeyChange, certificate: bytes, check: Callable[[bytes], bytes]) -> None:
    try:
        if check(certificate) != change.public_key:
            raise PeerFault(
                f"{change.node_id}: key change {change.number} has another key's certificate", reason="BadKeyChange"
            )
    except InvalidRequest as error:
        raise PeerFault(f"{change.node_id}: {error.message}", reason="BadCertificate") from error


def outranks(other: Chain, known: Chain) -> bool:
    """Whether `other` takes the place of `known`: the root said something later there, or it goes on where that ends.

    Two chains that have the root's last word in common are the same up to that: it names the key of before, which
    nobody else could have signed for.
    """
    theirs, ours = last_by_root(other), last_by_root(known)
    if theirs != ours:
        return _time_of(theirs) > _time_of(ours)
    return len(other) > len(known) and not forks(other, known)


def last_by_root(chain: Chain) -> KeyChange | None:
    """What the root said last of this node's key."""
    return next((held.change for held in reversed(chain) if held.change.by_root), None)


def _time_of(change: KeyChange | None) -> tuple[int, bytes]:
    return (change.changed_us, change.body_hash) if change is not None else (-1, b"")


def forks(other: Chain, known: Chain) -> bool:
    """Whether the same key was replaced by two different ones."""
    return any(a.change.body != b.change.body for a, b in zip(other, known, strict=False))


def are_rivals(one: Chain, other: Chain) -> bool:
    """Whether only the root's next word can tell which of the two stands."""
    return forks(one, other) and last_by_root(one) == last_by_root(other)


def mark(chain: Chain, *, rivalled: bool = False) -> bytes:
    """What two nodes that hold a chain must agree on: which of two changes by an old key they heard of first, they need
    not, nor how that one goes on, once they know that there is another (`rivalled`)."""
    by_root = last_by_root(chain)
    length = RIVALLED if rivalled else len(chain)
    return bytes((length,)) + (by_root.body_hash if by_root is not None else b"")


def key_at(
    first_key: bytes,
    chain: Chain,
    *,
    height: int | None = None,
    seq: int | None = None,
    number: int | None = None,
) -> bytes:
    """The key that signs the node's block of that height, or its transaction of that number; or the one that came after
    `number` others."""
    if number is not None:
        return chain[number - 1].change.public_key if number else first_key
    key = first_key
    for held in chain:
        begun = held.change.height <= height if height is not None else held.change.seq <= (seq or 0)
        if not begun:
            break
        key = held.change.public_key
    return key
