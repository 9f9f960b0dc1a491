"""What the handlers hand to the sessions machine: events checked, and sealed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from offgrid.v1 import state_pb2


class StartSession(msgspec.Struct, frozen=True):
    """`session_id` is for a new one; `has_key`: its key is kept under it already. `keyless`: one of that name that is
    open, but whose key is lost: it ends, and a new one begins."""

    session_id: str
    name: str
    has_key: bool
    keyless: str = ""


class EndSession(msgspec.Struct, frozen=True):
    session_id: str


class RegisterKind(msgspec.Struct, frozen=True):
    """Its schema is sound."""

    kind: str
    schema: bytes


class BeginPurge(msgspec.Struct, frozen=True):
    """From here on there is no way back: whoever starts anew ends it."""

    session_ids: tuple[str, ...]


class EndPurge(msgspec.Struct, frozen=True):
    """Their keys are gone; their rows go now, some at a time."""

    session_ids: tuple[str, ...]


class KeepSnapshot(msgspec.Struct, frozen=True):
    """What the events up to `number` come to, sealed."""

    session_id: str
    reducer: str
    version: int
    number: int
    sealed: bytes


class ThinSnapshots(msgspec.Struct, frozen=True):
    """So many bytes of snapshots are to go that are not the newest, from that key on."""

    start: bytes
    bytes: int


class AddBlock(msgspec.Struct, frozen=True):
    """Events of one writer, sealed together. `sent`: how many it had sent before these; `imported`: of a session that
    another node exported, which takes no others."""

    session_id: str
    writer: bytes
    sent: int
    count: int
    first_us: int
    last_us: int
    sealed: bytes
    kinds: Mapping[str, int]
    dropped: Mapping[str, int]
    imported: bool = False


class BeginImport(msgspec.Struct, frozen=True):
    """`session` is the new one, as it was where it was exported, with its origin; `has_key` and `keyless` as in
    StartSession, of the session that has the same digest. `bases`: what the events come to that are not in the export,
    and some that are."""

    session: state_pb2.Session
    has_key: bool
    keyless: str = ""
    bases: tuple[KeepSnapshot, ...] = ()


class EndImport(msgspec.Struct, frozen=True):
    """All of its events are here."""

    session_id: str


class TellOf(msgspec.Struct, frozen=True):
    """The journal is to say that somebody took so many events out of a session."""

    session_id: str
    name: str
    outcome: str
    events: int


class PinSession(msgspec.Struct, frozen=True):
    session_id: str
    pinned: bool


class DropOldest(msgspec.Struct, frozen=True):
    """So many bytes are to go, and all that is older than `before_us`; no event behind `upto`. Of the sessions in
    `spare` nothing goes now."""

    upto: int
    bytes: int
    before_us: int = 0
    spare: frozenset[str] = frozenset()


class ForgetSessions(msgspec.Struct, frozen=True):
    """Of sessions that were shredded nothing is left but that they were: they go for good."""

    session_ids: tuple[str, ...]
