"""What becomes of a mesh's records where another root key follows (`root.py`): what the new one does not stand by is
void, wherever it was believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import takewhile

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mesh.held import ROOT_CHANGES_KEY, CheckCertificate, RowKey
from offgrid_node.protocol.mesh.keychange import KEY_CHANGE_KIND, HeldChange
from offgrid_node.protocol.mesh.roll import Roll
from offgrid_node.protocol.mesh.root import Root, open_root

ROOT_FORKED = (
    "the mesh's root key was replaced twice, so it is in wrong hands; what this node heard of first stays. Where that "
    "is the wrong one: stop the node, and there: offgrid-node rotate take FILE --instead"
)


class RootedRoll(Roll):
    """The records of one mesh, and whose word is its root's."""

    def __init__(self, genesis: common_pb2.Signed, verify: Verifier, check_certificate: CheckCertificate) -> None:
        super().__init__(genesis, verify, check_certificate)
        self._rival_root: Root | None = None
        self._root_moved = False

    # ---- inputs

    def accept_root(self, told: mesh_pb2.RootChanges) -> None:
        """Merges what another node knows of the root's keys; of two that follow one key the first stays.

        Raises PeerFault for what no root has signed.
        """
        known = self.root
        for changes in (told.changes, told.rival):
            bodies = [message.change.body for message in changes]
            if self.root.forks(bodies):
                self._note_rival(changes)
            elif len(bodies) > self.root.number:
                self._put_root(open_root(self.genesis, changes, self._verify))
        if self.root is not known:
            self._accept_rooted(told)

    def settle_root(self, told: mesh_pb2.RootChanges) -> None:
        """By this node's owner, who knows which of two changes by one root key is the true one. Raises PeerFault."""
        bodies = tuple(message.change.body for message in told.changes)
        if bodies != self.root.bodies[: len(bodies)]:
            self._put_root(open_root(self.genesis, told.changes, self._verify))
            self._accept_rooted(told)

    @property
    def rival_root(self) -> Root | None:
        """What somebody else made of a root key that is in two hands."""
        return self._rival_root

    # ---- outputs

    def take_root_row(self) -> dict[RowKey, bytes | None]:
        """The row of the root's changes, where they have changed since the last call."""
        moved, self._root_moved = self._root_moved, False
        return {("mesh", ROOT_CHANGES_KEY): self._root_row().SerializeToString()} if moved else {}

    def root_digest(self) -> bytes:
        """16 bytes over what is known of the root's keys; empty where none was replaced."""
        if not self._root_bodies():
            return b""
        state = hashlib.blake2b(digest_size=16, person=b"og.rootknown.v1", salt=self.salt)
        for body in self._root_bodies():
            state.update(body)
        return state.digest()

    def _root_bodies(self) -> list[bytes]:
        """The newest change, and that of another root's that follows one key as well."""
        return sorted(each.bodies[-1] for each in (self.root, self._rival_root) if each and each.bodies)

    def _root_row(self) -> mesh_pb2.RootChanges:
        rival = self._rival_root.changes if self._rival_root else ()
        return mesh_pb2.RootChanges(changes=self.root.changes, rival=rival)

    # ---- the merge

    def _accept_rooted(self, told: mesh_pb2.RootChanges) -> None:
        """One that is refused keeps no other out: without them this node may be left without any member."""
        refusal: Fault | None = None
        for proof in told.members:
            try:
                self.accept_member(proof)
            except Fault as fault:
                refusal = refusal or fault
        if refusal is not None:
            raise refusal

    def _note_rival(self, changes: Sequence[mesh_pb2.RootChange]) -> None:
        """The first one, and how that goes on: two nodes that know of both hold the same then."""
        known, bodies = self._rival_root, [message.change.body for message in changes]
        if known is None or (len(bodies) > known.number and not known.forks(bodies)):
            self._rival_root = open_root(self.genesis, changes, self._verify)
            self._root_moved, self.revision = True, self.revision + 1
            self.notice(ROOT_FORKED)

    def _put_root(self, root: Root) -> None:
        self.root, self._root_moved, self.revision = root, True, self.revision + 1
        if self._rival_root is not None and not root.forks(self._rival_root.bodies):
            self._rival_root = None
        self.notice(f"the mesh's root key was replaced; the one in force is number {root.number}")
        self._void()

    def _void(self) -> None:
        """What the root said by a key of before, and does not stand by, is so no more."""
        admins = [node_id for node_id, admin in self._admins.items() if not self._signed_by_issuer(admin)]
        for node_id in admins:
            self._touch(node_id)
            del self._admins[node_id]
        rooted = [(node_id, held) for node_id, held in self._members.items() if not held.record.issuer]
        void = [node_id for node_id, held in rooted if not self._signed_by_issuer(held)]
        for node_id in void:
            self.notice(f"{node_id} was a member by the word of a root key of before, which the next one does not keep")
            self._replace(node_id, None)
        for node_id, chain in list(self._chains.items()):
            if len(kept := tuple(takewhile(self._stands, chain))) < len(chain):
                self._put_chain(node_id, kept)
        unsaid = [
            node_id for node_id, held in self._members.items() if held.record.removed and held.record.issuer in admins
        ]
        for node_id in unsaid:  # whom they removed; where the root stands by another record of that admin, they stay so
            self._shelve(self._members[node_id])
            self._replace(node_id, None)
        self._revisit(lambda record: record.node_id in (*void, *unsaid))

    def _stands(self, held: HeldChange) -> bool:
        said = held.message.change
        return not held.change.by_root or self.root.said(KEY_CHANGE_KIND, said.body, said.signature, self._verify)
