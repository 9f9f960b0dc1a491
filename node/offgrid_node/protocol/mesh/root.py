"""How a mesh comes to another root key and stays the mesh that it is: a chain of signed changes, from the key that the
genesis names.

Each change is signed by the key of before and by the next one. The signature of a key of before proves nothing any
more, since whoever has that key may make one today: so the newest change names the digests of all that the root had
said until then and stands by. What it does not name is void, whenever it was said.

Whoever holds an old key could sign a second change in its place. The one that a node has heard of first stays. Nothing
stands above the root, so where members heard different ones their owners settle it by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.mesh.records import KEY_BYTES, Genesis, signed
from offgrid_node.protocol.signing import BodyReader, BodyWriter, decode_body, digest_of, signed_by

ROOT_CHANGE_KIND = b"og.rootchange.v1"
ROOT_CHANGES_MAX = 64  # of one mesh; each is some 250 bytes that travel with records
KEPT_MAX = 1_024  # records and key changes by the root's own word: 32 kB beside the newest change
DIGEST_BYTES = 32


class RootChange(msgspec.Struct, frozen=True, dict=True):
    """`number` counts from 1. `kept_hash` is that of the digests that the root stands by (`hash_of`)."""

    number: int
    before: bytes
    public_key: bytes
    changed_us: int
    kept_hash: bytes

    @cached_property
    def body(self) -> bytes:
        writer = BodyWriter().uint(self.number, 2).fixed(self.before, KEY_BYTES).fixed(self.public_key, KEY_BYTES)
        return writer.uint(self.changed_us, 8).fixed(self.kept_hash, DIGEST_BYTES).done()


def _read(reader: BodyReader) -> RootChange:
    number, before, key = reader.uint(2), reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES)
    changed_us, kept_hash = reader.uint(8), reader.fixed(DIGEST_BYTES)
    if not 1 <= number <= ROOT_CHANGES_MAX or before == key:
        raise ValueError(f"change {number}: out of range, or to the same key")
    return RootChange(number, before, key, changed_us, kept_hash)


def decode_root_change(body: bytes) -> RootChange:
    """Raises PeerFault on a malformed body."""
    return decode_body("root change", body, _read, lambda change: change.body)


def hash_of(kept: Iterable[bytes]) -> bytes:
    """Over digests of one length, in their order."""
    return hashlib.blake2b(b"".join(kept), digest_size=DIGEST_BYTES, person=b"og.rootkept.v1").digest()


class Root:
    """Whose word is the root's, as one node knows it: its keys so far, and what it stands by. It never changes."""

    def __init__(self, genesis: Genesis, changes: Sequence[mesh_pb2.RootChange] = ()) -> None:
        """`changes` have been checked (`open_root`)."""
        self.genesis, self.changes = genesis, tuple(changes)
        self.bodies = tuple(message.change.body for message in changes)
        self.keys = (*(decode_root_change(body).public_key for body in reversed(self.bodies)), genesis.root_key)
        self._kept = frozenset(changes[-1].kept) if changes else frozenset[bytes]()

    @property
    def key(self) -> bytes:
        """The one in force."""
        return self.keys[0]

    @property
    def number(self) -> int:
        """How often it was replaced."""
        return len(self.changes)

    def said(self, kind: bytes, body: bytes, signature: bytes, verify: Verifier) -> bool:
        """Whether the root says so, by the key in force or by one of before that it stands by."""
        digest = digest_of(kind, self.genesis.salt, body)
        return signed_by(self.keys if digest in self._kept else self.keys[:1], digest, signature, verify)

    def forks(self, bodies: Sequence[bytes]) -> bool:
        """Whether one key was replaced by two different ones."""
        return any(ours != theirs for ours, theirs in zip(self.bodies, bodies, strict=False))


def sign_root_change(
    root: Root, signer: Signer, following: Signer, kept: Iterable[bytes], now_us: int
) -> list[mesh_pb2.RootChange]:
    """All changes with the next one, which `signer`, who has the key in force, and `following` sign."""
    digests = sorted(set(kept))
    change = RootChange(root.number + 1, root.key, following.public_key, now_us, hash_of(digests))
    made = mesh_pb2.RootChange(
        change=signed(ROOT_CHANGE_KIND, root.genesis.salt, change.body, signer),
        next_signature=following.sign(digest_of(ROOT_CHANGE_KIND, root.genesis.salt, change.body)),
        kept=digests,
    )
    before = (mesh_pb2.RootChange(change=old.change, next_signature=old.next_signature) for old in root.changes)
    return [*before, made]


def open_root(genesis: Genesis, messages: Sequence[mesh_pb2.RootChange], verify: Verifier) -> Root:
    """The root after these changes. Raises PeerFault for any that does not follow or is not signed by both keys."""
    if len(messages) > ROOT_CHANGES_MAX:
        raise PeerFault(f"{len(messages)} root changes, at most {ROOT_CHANGES_MAX}", reason="BadRootChange")
    key = genesis.root_key
    for number, message in enumerate(messages, start=1):
        change = decode_root_change(message.change.body)
        if (change.number, change.before) != (number, key):
            raise PeerFault(f"root change {number} does not follow the one before", reason="BadRootChange")
        digest = digest_of(ROOT_CHANGE_KIND, genesis.salt, message.change.body)
        if not verify(key, digest, message.change.signature):
            raise PeerFault(f"root change {number} is not signed by the root key of before", reason="BadSignature")
        if not verify(change.public_key, digest, message.next_signature):
            raise PeerFault(f"root change {number} is not signed by the next key", reason="BadSignature")
        _check_kept(change, message.kept, newest=number == len(messages))
        key = change.public_key
    return Root(genesis, messages)


def _check_kept(change: RootChange, kept: Sequence[bytes], *, newest: bool) -> None:
    if not newest:
        if kept:
            raise PeerFault(f"root change {change.number}: only the newest has what is kept", reason="BadRootChange")
        return
    if len(kept) > KEPT_MAX or any(len(digest) != DIGEST_BYTES for digest in kept) or hash_of(kept) != change.kept_hash:
        raise PeerFault(f"root change {change.number}: what is kept is not what was signed", reason="BadRootChange")
