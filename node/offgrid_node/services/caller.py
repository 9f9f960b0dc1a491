"""Who is calling: settled by the carrier before any handler runs."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """The least a carrier can say of a caller."""

    ANONYMOUS = "anonymous"  # whoever reaches the door
    MEMBER = "member"  # proved a member's key
    ADMIN = "admin"  # sits on this machine, behind a socket of mode 0600


class Caller(msgspec.Struct, frozen=True):
    """`node_id` is set for members only; `roles` are those in force for that member (values of offgrid.v1.Role)."""

    kind: Kind
    node_id: str = ""
    roles: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return self.node_id or str(self.kind)


ADMIN = Caller(Kind.ADMIN)
ANONYMOUS = Caller(Kind.ANONYMOUS)
