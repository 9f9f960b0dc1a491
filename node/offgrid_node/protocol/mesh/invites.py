"""Invites: issued by an admin, used once, and by the same key again when it did not see the answer.

An invite's row is a fixed body like those of records.py, though nobody signs it: it never leaves the node.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.effects import Delete, Effect, Put, Rows
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound, PermissionDenied
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.mesh.directory import PREFIX_CHARS_MIN
from offgrid_node.protocol.mesh.records import roles_mask, roles_of
from offgrid_node.protocol.mesh.token import INVITE_ID_BYTES, MESH_TAG_BYTES, SECRET_BYTES, InviteToken
from offgrid_node.protocol.signing import BodyReader, BodyWriter

OPEN_MAX = 256  # none expires by itself: the clocks of machines off the grid lie
USED_MAX = 1_024  # used ones are kept for repeated joins; the one used first is forgotten first
_NOBODY = bytes(NODE_ID_BYTES)


class Invite(msgspec.Struct, frozen=True):
    """One invite. `used_by` is the node that it admitted, "" while it is open."""

    secret: bytes
    roles: frozenset[int]
    weight_milli: int
    failure_domain: str
    created_us: int
    used_by: str = ""
    used_us: int = 0

    @property
    def invite_id(self) -> bytes:
        return InviteToken(bytes(MESH_TAG_BYTES), self.secret).invite_id  # the tag has no part in it

    def row(self) -> bytes:
        """The stored form."""
        writer = BodyWriter().fixed(self.secret, SECRET_BYTES).uint(roles_mask(self.roles), 1)
        writer.uint(self.weight_milli, 4).text(self.failure_domain).uint(self.created_us, 8)
        return writer.fixed(node_id_bytes(self.used_by) if self.used_by else _NOBODY, 20).uint(self.used_us, 8).done()

    @classmethod
    def from_row(cls, row: bytes) -> Invite:
        reader = BodyReader(row)
        secret, roles, weight_milli = reader.fixed(SECRET_BYTES), roles_of(reader.uint(1)), reader.uint(4)
        domain, created_us, used_by = reader.text(), reader.uint(8), reader.fixed(NODE_ID_BYTES)
        used_us = reader.uint(8)
        reader.end()
        return cls(
            secret, roles, weight_milli, domain, created_us, "" if used_by == _NOBODY else base32(used_by), used_us
        )


def find_invite(rows: Rows, invite_id: bytes) -> Invite | None:
    """A committed invite, for the door, which must know the secret before it can read the question."""
    if len(invite_id) != INVITE_ID_BYTES:
        return None
    row = rows.get("invites", invite_id)
    return Invite.from_row(row) if row is not None else None


def list_invites(rows: Rows, start: bytes = b"") -> Iterator[Invite]:
    """Committed ones, in the order of their ids."""
    return (Invite.from_row(row) for _, row in rows.scan("invites", start))


def refused() -> PermissionDenied:
    """The one answer for everyone who does not hold a known invite's secret."""
    return PermissionDenied("this invite does not open this door", reason="InviteRefused")


class InviteBook:
    """The invites of one admin node."""

    def __init__(self, rows: Rows) -> None:
        self._invites = {invite.invite_id: invite for invite in list_invites(rows)}

    def issue(self, invite: Invite) -> tuple[list[Effect], Invite | None]:
        """Beyond OPEN_MAX open ones the oldest no longer opens the door; it is returned beside the effects.

        A clock that was set back does not make a new invite the oldest.
        """
        newest_us = max((known.created_us for known in self._invites.values()), default=-1)
        invite = replace(invite, created_us=max(invite.created_us, newest_us + 1))
        still_open = [known for known in self._invites.values() if not known.used_by]
        effects: list[Effect] = [Put("invites", invite.invite_id, invite.row())]
        dropped = None
        if len(still_open) >= OPEN_MAX:
            dropped = min(still_open, key=lambda known: known.created_us)
            del self._invites[dropped.invite_id]
            effects.append(Delete("invites", dropped.invite_id))
        self._invites[invite.invite_id] = invite
        return effects, dropped

    def revoke(self, text: str) -> tuple[list[Effect], Invite]:
        """Of the one that a person means, which opens no door any more. Raises NotFound (reason InviteNotFound),
        InvalidRequest where several fit, FailedPrecondition (reason InviteUsed) for one that admitted somebody."""
        named = {base32(invite_id): invite for invite_id, invite in self._invites.items()}
        found = [name for name in named if name == text] or [
            name for name in named if len(text) >= PREFIX_CHARS_MIN and name.startswith(text)
        ]
        if len(found) > 1:
            raise InvalidRequest.field("invite", f"{text!r} fits {len(found)} invites: {', '.join(sorted(found)[:4])}")
        if not found:
            text = f"this node knows no invite {text[:64]!r}: its id, or at least {PREFIX_CHARS_MIN} characters of that"
            raise NotFound(text, reason="InviteNotFound")
        invite = named[found[0]]
        if invite.used_by:
            text = f"{found[0]} was used: it admitted {invite.used_by}, whom only a removal puts out"
            raise FailedPrecondition(text, reason="InviteUsed", metadata={"node": invite.used_by})
        del self._invites[invite.invite_id]
        return [Delete("invites", invite.invite_id)], invite

    def check(self, invite_id: bytes, node_id: str) -> Invite:
        """The invite, when `node_id` may use it (again). Raises PermissionDenied for an unknown one and
        FailedPrecondition (reason InviteUsed) for one that admitted somebody else."""
        invite = self._invites.get(invite_id)
        if invite is None:
            raise refused()
        if invite.used_by not in ("", node_id):
            raise FailedPrecondition("this invite was used already", reason="InviteUsed")
        return invite

    def use(self, invite: Invite, node_id: str, now_us: int) -> list[Effect]:
        """Marks it used; the caller has checked."""
        spent = replace(invite, used_by=node_id, used_us=now_us)
        self._invites[spent.invite_id] = spent
        used = [known for known in self._invites.values() if known.used_by and known is not spent]
        effects: list[Effect] = [Put("invites", spent.invite_id, spent.row())]
        if len(used) >= USED_MAX:
            oldest = min(used, key=lambda known: (known.used_us, known.invite_id))
            del self._invites[oldest.invite_id]
            effects.append(Delete("invites", oldest.invite_id))
        return effects
