"""What is true of sessions that come from another node.

none ── BeginImport ──▶ half ── AddBlock … ──▶ half ── EndImport, once all is here ──▶ ended
                         └── BeginPurge ──▶ purged
"""

from __future__ import annotations

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import FailedPrecondition

_WRITER_BYTES = 8


def is_importing(session: state_pb2.Session) -> bool:
    """Not all of it is here."""
    return session.HasField("origin") and not session.origin.imported_us


def last_of(session: state_pb2.Session) -> int:
    """The number of the last event that it is to have."""
    return session.origin.first - 1 + session.origin.events


def importing(session: state_pb2.Session) -> FailedPrecondition:
    here = session.recorded - session.origin.first + 1
    text = (
        f"of the session {session.session_id} ({session.name!r}) {here} of {session.origin.events} events have been "
        "imported: import the file again to go on, or purge it"
    )
    return FailedPrecondition(text, reason="SessionImporting", metadata={"session_id": session.session_id})


def writer_of(session: state_pb2.Session) -> bytes:
    """Whoever brings it in is its only writer, so that a block that comes twice is taken once. Raises
    FailedPrecondition where nobody imports it."""
    if not session.HasField("origin"):
        text = f"the session {session.session_id} ({session.name!r}) is none that is imported"
        raise FailedPrecondition(text, reason="SessionNotImported", metadata={"session_id": session.session_id})
    return session.origin.digest[:_WRITER_BYTES]


def check_next(session: state_pb2.Session, sent: int, count: int) -> None:
    """`count` events behind `sent`. Raises FailedPrecondition for events behind a gap, or more than there are to be."""
    if sent > session.recorded:
        following = session.recorded + 1
        text = f"event {following} of the session {session.session_id} comes next, and not event {sent + 1}"
        raise FailedPrecondition(text, reason="ImportGap", metadata={"next": str(following)})
    if sent + count > last_of(session):
        text = f"the session {session.session_id} is to have {session.origin.events} events, and these go beyond"
        raise FailedPrecondition(text, reason="ImportTooLong", metadata={"session_id": session.session_id})
