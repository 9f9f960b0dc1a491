"""Who belongs to the mesh: the signed records that this node holds, merged so that all nodes come to the same view.

The merge is a function of the set of records seen, in whatever order and however often (a state-based CRDT, Shapiro et
al. 2011). For one node, from strongest to weakest: a tombstone; a record signed by the root; the higher epoch; the
smaller hash. A live record stands while its issuer is the root or an admin in force, and an admin is in force by a
root-signed record only, so that chains are two links long. A tombstone stands for ever, even when the admin that
issued it is removed later: when in doubt, out. What the root signed by a key of before counts while the root stands by
it (`root.py`).

What cannot be decided yet, or lost to an issuer that may lapse, waits on a bounded shelf; anti-entropy brings again
whatever falls off it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Exhausted, Fault, PeerFault
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.held import (
    Change,
    CheckCertificate,
    Held,
    HeldMember,
    HeldPeer,
    RowKey,
    check_form,
    rank,
)
from offgrid_node.protocol.mesh.keychange import (
    Chain,
    are_rivals,
    check_chain,
    forks,
    outranks,
)
from offgrid_node.protocol.mesh.records import (
    MEMBER_KIND,
    PEER_KIND,
    Genesis,
    MemberRecord,
    decode_genesis,
    decode_member,
    decode_peer,
)
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.signing import digest_of

MEMBERS_MAX = 4_096  # tombstones included: they are kept for ever, so they count
SHELF_MAX = 1_024
DEPARTED_MAX = 64  # removed members whose last address is remembered, to tell them
HINTS_MAX = 4  # unproved addresses per member
NOTICES_MAX = 32


def forked(node_id: str) -> str:
    return f"the key of {node_id} was replaced twice: an old key of it is in wrong hands, or a backup's"


class Roll:
    """The records of one mesh, merged. `RootedRoll` adds what follows from another root key, `Directory` the questions
    that others ask."""

    def __init__(self, genesis: common_pb2.Signed, verify: Verifier, check_certificate: CheckCertificate) -> None:
        """`genesis` has been checked (`records.open_genesis`). `check_certificate` returns an identity certificate's
        public key and raises InvalidRequest for anything but the canonical form."""
        self.genesis: Genesis = decode_genesis(genesis.body)
        self.signed_genesis = genesis
        self.revision = 0  # grows with every change, for whoever caches an answer
        self.notices: deque[str] = deque(maxlen=NOTICES_MAX)  # what an operator should know
        self._verify = verify
        self._check_certificate = check_certificate
        self._members: dict[str, HeldMember] = {}
        self._admins: dict[str, HeldMember] = {}  # the best root-signed admin record ever seen, demoted ones too
        self._peers: dict[str, HeldPeer] = {}
        self._shelf: dict[bytes, mesh_pb2.MemberProof] = {}
        self._chains: dict[str, Chain] = {}  # of those whose key was ever replaced, removed ones too
        self._rivals: dict[str, Chain] = {}  # another one than that, by a key of before that is in wrong hands
        self.root = Root(self.genesis)
        self._fingerprints: dict[str, str] = {}
        self._departed: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self._hints: dict[str, tuple[str, ...]] = {}
        self._before: dict[str, Held] = {}
        self._digest: tuple[int, bytes] = (-1, b"")

    @property
    def salt(self) -> bytes:
        """What every signature of this mesh is salted with."""
        return self.genesis.salt

    def is_member(self, node_id: str) -> bool:
        """Whether it belongs to the mesh now."""
        held = self._members.get(node_id)
        return held is not None and not held.record.removed

    def is_admin(self, node_id: str) -> bool:
        """Whether it may admit and remove: named by the root, and not removed."""
        held = self._members.get(node_id)
        return held is not None and held.record.admin and not held.record.removed

    def live(self) -> list[str]:
        """Node ids of the members that are not removed, sorted."""
        return sorted(node_id for node_id, held in self._members.items() if not held.record.removed)

    def all_ids(self) -> list[str]:
        """Node ids of all that a record is held of, tombstones too, sorted."""
        return sorted(self._members)

    # ---- inputs

    def add_hint(self, node_id: str, address: str) -> None:
        """An address that nobody signed, kept as the last resort for a live member; the newest few stay."""
        if self.is_member(node_id):
            kept = [a for a in self._hints.get(node_id, ()) if a != address]
            self._hints[node_id] = (address, *kept[: HINTS_MAX - 1])

    def accept_member(self, proof: mesh_pb2.MemberProof) -> bool:
        """Merges a membership record; True when what stands has changed.

        Raises PeerFault for a malformed, forged or presumptuous record, Exhausted (reason MeshFull) at MEMBERS_MAX.
        A record whose issuer is not known yet is kept aside and decided when it is.
        """
        record = decode_member(proof.record.body)
        changed = self._accept_record(record, proof)
        return self._accept_chain(record.node_id, proof.key_changes) or changed

    def current_key(self, node_id: str) -> bytes | None:
        """The key by which a member, or one that was removed, signs what is new; None for a stranger."""
        held = self._members.get(node_id) or self._admins.get(node_id)
        if held is None:
            return None
        chain = self._chains.get(node_id)
        return chain[-1].change.public_key if chain else held.record.public_key

    def _accept_record(self, record: MemberRecord, proof: mesh_pb2.MemberProof) -> bool:
        known = self._members.get(record.node_id)
        if known is not None and known.record.body == record.body:
            return False
        check_form(record, proof.certificate, self._check_certificate)
        kept = mesh_pb2.MemberProof(record=proof.record, certificate=b"" if record.removed else proof.certificate)
        held = HeldMember(record, kept)
        outranked = known is not None and rank(record) < rank(known.record)
        if outranked and self.current_key(record.issuer) is not None and not self._signed_by_issuer(held):
            return False  # from somebody who has not heard that its issuer said it anew, by another key
        if not self._check_issuer(held):
            return False
        if record.admin:
            self._learn_admin(held)
            known = self._members.get(record.node_id)  # what waited for this admin may have ended it
        if known is not None and rank(record) < rank(known.record):
            self._set_aside(held, known)
            return False
        if known is None and len(self._members) >= MEMBERS_MAX:
            raise Exhausted(f"the mesh has {MEMBERS_MAX} members, removed ones included", reason="MeshFull")
        self._replace(record.node_id, held)
        if known is not None:
            self._set_aside(known, held)
        return True

    def accept_peer(self, message: common_pb2.Signed) -> bool:
        """Merges a peer record; True when it is news. Raises PeerFault when it is malformed, forged or a stranger's."""
        record = decode_peer(message.body)
        known = self._peers.get(record.node_id)
        if known is not None and known.record.body == record.body:
            return False
        if not self.is_member(record.node_id):
            raise PeerFault(f"peer record: {record.node_id} is no member", reason="NotAMember")
        key = self.current_key(record.node_id) or b""
        if not self._verify(key, digest_of(PEER_KIND, self.salt, message.body), message.signature):
            raise PeerFault(f"peer record of {record.node_id}: bad signature", reason="BadSignature")
        if known is not None:
            if record.version == known.record.version:
                self.notice(f"{record.node_id} signed two peer records of version {record.version}")
            if (record.version, known.record.body_hash) < (known.record.version, record.body_hash):
                return False
        self._touch(record.node_id)
        self._peers[record.node_id] = HeldPeer(record, message)
        return True

    # ---- outputs

    def take_changes(self) -> list[Change]:
        """What has changed since the last call, one entry per node, sorted; what was undone meanwhile is left out."""
        changes = []
        for node_id, was in sorted(self._before.items()):
            held = self._held(node_id)
            moved = held.member is not was.member or held.chain is not was.chain
            peer_moved = held.peer is not was.peer
            if moved or peer_moved or held.admin is not was.admin or held.rival is not was.rival:
                before, after = (each.member.record if each.member else None for each in (was, held))
                changes.append(Change(node_id, before, after, moved, peer_moved))
        self._before = {}
        return changes

    def rows(self, node_id: str) -> dict[RowKey, bytes | None]:
        """The rows of one node as they should be; None deletes."""
        key = node_id.encode("ascii")
        member, admin, peer = self._members.get(node_id), self._admins.get(node_id), self._peers.get(node_id)
        return {
            ("members", key): member.proof.SerializeToString() if member else None,
            ("admins", key): admin.proof.SerializeToString() if admin else None,
            ("peers", key): peer.message.SerializeToString() if peer else None,
            ("key_changes", key): self._chain_row(node_id),
        }

    # ---- the merge

    def _check_issuer(self, held: HeldMember) -> bool:
        """Whether the issuer may say this now; False when that is open. Raises PeerFault when it surely may not."""
        record = held.record
        admin, issuer = self._admins.get(record.issuer), self._members.get(record.issuer)
        if record.issuer and admin is None and issuer is None:
            self._shelve(held)
            return False
        if not self._signed_by_issuer(held):
            raise PeerFault(f"member {record.node_id}: bad signature", reason="BadSignature")
        if record.issuer and record.admin:
            raise PeerFault(f"member {record.node_id}: only the root names admins", reason="NotRootSigned")
        if record.issuer and admin is None:
            self._shelve(held)  # the root may have named it admin since, and the record may be on its way
            raise PeerFault(f"member {record.node_id}: issuer {record.issuer} is no admin", reason="NotAnAdmin")
        if record.issuer and not record.removed and not self.is_admin(record.issuer):
            self._shelve(held)
            return False
        return True

    def _signed_by_issuer(self, held: HeldMember) -> bool:
        record, signature = held.record, held.proof.record.signature
        if not record.issuer:
            return self.root.said(MEMBER_KIND, record.body, signature, self._verify)
        key = self.current_key(record.issuer) or b""
        return self._verify(key, digest_of(MEMBER_KIND, self.salt, record.body), signature)

    def _accept_chain(self, node_id: str, messages: Sequence[mesh_pb2.KeyChange]) -> bool:
        held, known = self._members.get(node_id) or self._admins.get(node_id), self._chains.get(node_id, ())
        if held is None or not messages:
            return False
        bodies, rival = [message.change.body for message in messages], self._rivals.get(node_id, ())
        if any(bodies == [each.change.body for each in chain[: len(bodies)]] for chain in (known, rival)):
            return False
        chain = check_chain(self.root, node_id, held.record.public_key, messages, self._verify, self._check_certificate)
        if forks(chain, known):
            self.notice(forked(node_id))
        if outranks(chain, known):
            self._put_chain(node_id, chain)
            return True
        if are_rivals(chain, known) and not rival:
            self._touch(node_id)
            self._rivals[node_id] = chain
        return False

    def _put_chain(self, node_id: str, chain: Chain) -> None:
        self._touch(node_id)
        self._fingerprints.pop(node_id_of(self.current_key(node_id) or b""), None)
        self._chains[node_id] = chain
        if not chain:
            del self._chains[node_id]
        if not are_rivals(self._rivals.get(node_id, ()), chain):
            self._rivals.pop(node_id, None)
        self._peers.pop(node_id, None)  # signed with a key that is no longer the node's
        if self.is_member(node_id):
            self._fingerprints[node_id_of(self.current_key(node_id) or b"")] = node_id

    def _chain_row(self, node_id: str) -> bytes | None:
        chain, rival = self._chains.get(node_id), self._rivals.get(node_id, ())
        if not chain:
            return None
        changes, others = ([held.message for held in each] for each in (chain, rival))
        return mesh_pb2.KeyChangesRow(changes=changes, rival=others).SerializeToString()

    def _learn_admin(self, held: HeldMember) -> None:
        known = self._admins.get(held.record.node_id)
        if known is None or rank(held.record) > rank(known.record):
            self._touch(held.record.node_id)
            self._admins[held.record.node_id] = held
            if known is None:
                self._revisit(lambda record: record.issuer == held.record.node_id)

    def _replace(self, node_id: str, held: HeldMember | None) -> None:
        """Puts another record of a node in force, with all that follows from it."""
        before, was_admin = self._members.get(node_id), self.is_admin(node_id)
        self._touch(node_id)
        if before is not None:
            self._fingerprints.pop(node_id_of(self.current_key(node_id) or b""), None)
            if held is not None and before.record.public_key != held.record.public_key:
                self._chains.pop(node_id, None)  # the root has begun anew
                self._rivals.pop(node_id, None)
        if held is None:
            del self._members[node_id]
        else:
            self._members[node_id] = held
        if held is None or held.record.removed:
            self._depart(node_id, before)
        else:
            self._departed.pop(node_id, None)
            self._fingerprints[node_id_of(self.current_key(node_id) or b"")] = node_id
            if before is not None and before.record.public_key != held.record.public_key:
                self._peers.pop(node_id, None)  # signed with a key that is no longer the node's
        if was_admin and not self.is_admin(node_id):
            self._lapse(node_id)
        elif not was_admin and self.is_admin(node_id):
            self._revisit(lambda record: record.issuer == node_id)

    def _depart(self, node_id: str, before: HeldMember | None) -> None:
        if before is not None and not before.record.removed:
            peer = self._peers.get(node_id)
            addresses = peer.record.addresses if peer else self._hints.get(node_id, ())
            chain = self._chains.get(node_id)
            certificate = chain[-1].message.certificate if chain else before.proof.certificate
            self._departed[node_id] = (certificate, addresses)
            if len(self._departed) > DEPARTED_MAX:
                del self._departed[next(iter(self._departed))]
        self._peers.pop(node_id, None)
        self._hints.pop(node_id, None)

    def _lapse(self, issuer: str) -> None:
        """An admin is in force no longer: whom it alone admitted is out, until an admin in force says otherwise."""
        dropped = [n for n, held in self._members.items() if held.record.issuer == issuer and not held.record.removed]
        for node_id in dropped:
            self._shelve(self._members[node_id])
            self._replace(node_id, None)
        self._revisit(lambda record: record.node_id in dropped)

    def _set_aside(self, loser: HeldMember, winner: HeldMember) -> None:
        """Keeps a live record that lost to one whose issuer may lapse."""
        if loser.record.epoch == winner.record.epoch and loser.record.removed == winner.record.removed:
            self.notice(f"two records of member {loser.record.node_id} have epoch {loser.record.epoch}")
        if winner.record.issuer not in ("", loser.record.issuer) and not winner.record.removed:
            self._shelve(loser)

    def _shelve(self, held: HeldMember) -> None:
        self._shelf[held.record.body_hash + held.proof.record.signature] = held.proof
        if len(self._shelf) > SHELF_MAX:
            del self._shelf[next(iter(self._shelf))]

    def _revisit(self, matches: Callable[[MemberRecord], bool]) -> None:
        for key, proof in list(self._shelf.items()):
            if key in self._shelf and matches(decode_member(proof.record.body)):
                del self._shelf[key]
                try:
                    self.accept_member(proof)
                except Fault as fault:  # it was nobody's request, so there is nobody to refuse
                    self.notice(f"a record that waited was refused: {fault.message}")

    def _touch(self, node_id: str) -> None:
        self.revision += 1
        self._before.setdefault(node_id, self._held(node_id))

    def _held(self, node_id: str) -> Held:
        return Held(
            self._members.get(node_id),
            self._peers.get(node_id),
            self._admins.get(node_id),
            self._chains.get(node_id, ()),
            self._rivals.get(node_id, ()),
        )

    def notice(self, sentence: str) -> None:
        if sentence not in self.notices:
            self.notices.append(sentence)
