"""Who gets in and who is put out: what an admin node does when it is asked to invite, admit or remove."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Effect, Record, Rows, Signer
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32, node_id_of
from offgrid_node.protocol.mesh.commands import AdmitMember, CreateInvite, RemoveMember, RevokeInvite
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import Parcel
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.invites import OPEN_MAX, Invite, InviteBook
from offgrid_node.protocol.mesh.records import EPOCH_MAX, MemberRecord
from offgrid_node.protocol.mesh.token import SECRET_BYTES, InviteToken
from offgrid_node.protocol.mesh.views import invite_message, member_message
from offgrid_node.protocol.rng import Rng

GRANT_BYTES_MAX = 2 * 1024 * 1024  # of records in a grant; gossip brings the rest
NAME_CHARS_MAX = 63


class Admission:
    """Issues, uses and revokes in this node's name. Each method returns (answer, effects) and raises a Fault before
    it has changed anything; what becomes of the directory is for the caller to take from there."""

    def __init__(self, directory: Directory, signer: Signer, rows: Rows) -> None:
        self._directory = directory
        self._signer = signer
        self._invites = InviteBook(rows)

    def create_invite(
        self, command: CreateInvite, doors: Sequence[str], now: Now, rng: Rng
    ) -> tuple[mesh_pb2.CreateInviteResponse, list[Effect]]:
        """A token with a fresh secret."""
        self._check_admin("invite")
        secret = rng.randbytes(SECRET_BYTES)
        token = InviteToken(self._directory.genesis.mesh_tag, secret, tuple(doors))
        invite = Invite(secret, command.roles, command.weight_milli, command.failure_domain, now.utc_us)
        effects, dropped = self._invites.issue(invite)
        if dropped is not None:
            oldest = base32(dropped.invite_id)
            self._directory.notice(f"{OPEN_MAX} invites were open; the oldest, {oldest}, opens the door no more")
        invite_id = base32(invite.invite_id)
        effects.append(_invite_event(EventType.INVITE_ISSUED, invite_id))
        return mesh_pb2.CreateInviteResponse(token=str(token), invite_id=invite_id), effects

    def revoke_invite(self, command: RevokeInvite) -> tuple[mesh_pb2.RevokeInviteResponse, list[Effect]]:
        """One that this node has made, whether it still is an admin or not."""
        effects, invite = self._invites.revoke(command.invite)
        effects.append(_invite_event(EventType.INVITE_REVOKED, base32(invite.invite_id)))
        return mesh_pb2.RevokeInviteResponse(invite=invite_message(invite)), effects

    def admit(self, command: AdmitMember, now: Now) -> tuple[mesh_pb2.JoinGrant, list[Effect]]:
        """Makes the joiner a member; one that was admitted already gets its grant again."""
        self._check_admin("admit")
        node_id = node_id_of(command.public_key)
        invite = self._invites.check(command.invite_id, node_id)
        known = self._directory.member(node_id)
        if known is not None and known.removed:
            raise FailedPrecondition(
                f"{node_id} was removed from this mesh for ever. To come back as a new node, ask for a new invite and "
                "type: offgrid-node join TOKEN --dir ANOTHER-FOLDER",
                reason="MemberRemoved",
            )
        if invite.used_by and known is not None:
            return self._grant(node_id), []
        if known is None or known.issuer:  # what the root itself signed is not ours to change
            self._check_name(command.name, node_id)
            record = MemberRecord(
                node_id=node_id,
                name=command.name,
                public_key=command.public_key,
                roles=invite.roles,
                weight_milli=invite.weight_milli,
                failure_domain=invite.failure_domain,
                epoch=min(known.epoch + 1, EPOCH_MAX) if known else 1,
                issuer=self._signer.node_id,
            )
            self._issue(record, command.certificate)
        effects = self._invites.use(invite, node_id, now.utc_us)
        effects.append(_invite_event(EventType.INVITE_USED, base32(invite.invite_id), node_id))
        return self._grant(node_id), effects

    def remove(self, command: RemoveMember) -> tuple[mesh_pb2.RemoveMemberResponse, list[Effect]]:
        """Writes the tombstone. Whom a removed admin had admitted stays, under our name from now on."""
        self._check_admin("remove")
        directory, self_id = self._directory, self._signer.node_id
        node_id = directory.resolve(command.node, removed=True)
        record = directory.member(node_id)
        assert record is not None
        if node_id == self_id:
            raise FailedPrecondition(
                "a node cannot remove itself, so that a mesh never loses its last admin; ask another admin",
                reason="CannotRemoveSelf",
            )
        if not record.removed:
            for other_id in directory.live() if record.admin else ():
                other = directory.member(other_id)
                if other is not None and other.issuer == node_id:
                    self._issue(other.reissued(self_id), directory.first_certificate(other_id))
            self._issue(record.tombstone(self_id), b"")
        stands = directory.member(node_id)
        assert stands is not None
        return mesh_pb2.RemoveMemberResponse(member=member_message(stands)), []

    def _issue(self, record: MemberRecord, certificate: bytes) -> None:
        self._directory.accept_member(issue_member(self._directory.genesis, record, certificate, self._signer))

    def _check_admin(self, verb: str) -> None:
        directory = self._directory
        if directory.is_admin(self._signer.node_id):
            return
        admins = [record.name for node_id in directory.live() if (record := directory.member(node_id)) and record.admin]
        raise FailedPrecondition(
            f"this node may not {verb} members; ask one of: {', '.join(admins[:5]) or 'no admin is left'}",
            reason="NotAdmin",
        )

    def _check_name(self, name: str, node_id: str) -> None:
        taken = {
            record.name
            for other in self._directory.live()
            if other != node_id and (record := self._directory.member(other))
        }
        if name not in taken:
            return
        tries = (f"{name[: NAME_CHARS_MAX - 1 - len(str(n))]}-{n}" for n in range(2, len(taken) + 3))
        free = next(candidate for candidate in tries if candidate not in taken)
        raise AlreadyExists(
            f"a member is called {name!r} already; {free!r} is free", reason="NameTaken", metadata={"suggestion": free}
        )

    def _grant(self, node_id: str) -> mesh_pb2.JoinGrant:
        """The joiner's and our own records first, then as many others as fit."""
        parcel = Parcel(self._directory, GRANT_BYTES_MAX)
        first = [self._signer.node_id, node_id]
        for other in [*first, *(n for n in self._directory.all_ids() if n not in first)]:
            if not parcel.add(other):
                break
        return mesh_pb2.JoinGrant(
            genesis=self._directory.signed_genesis,
            members=parcel.members,
            peers=parcel.peers,
            root=self._directory.root_changes(),
        )


def _invite_event(etype: EventType, invite_id: str, used_by: str = "") -> Record:
    event = state_pb2.Event(etype=etype, subject=invite_id)
    event.invite.invite_id, event.invite.used_by = invite_id, used_by
    return Record(event)
