"""From what a caller says to a session, and whether it can be read."""

from __future__ import annotations

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.state.sessions.imports import importing, is_importing
from offgrid_node.protocol.state.sessions.machine import shredded, unknown_session
from offgrid_node.protocol.state.sessions.tables import NAMES, SESSION_ID, SESSIONS
from offgrid_node.services.sessions.vault import Vault, keyless
from offgrid_node.storage.store import Store

NAME_BYTES_MAX = 256


class Lookup:
    """Over committed rows."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store, self._vault = store, vault

    def session(self, text: str) -> state_pb2.Session:
        """By its id, or the newest of that name. Raises NotFound."""
        key = text.encode(errors="replace")
        if not SESSION_ID.match(text):
            name_of(text, "session", ids=True)
            key = self._store.get(NAMES, key) or b""
        row = self._store.get(SESSIONS, key) if key else None
        if row is None:
            raise unknown_session(text)
        return state_pb2.SessionRow.FromString(row).session

    def check_key(self, session: state_pb2.Session) -> None:
        """Raises FailedPrecondition where it was shredded, or its key is not here."""
        if session.purged_us:
            raise shredded(session.session_id)
        if not self._vault.has(session.session_id):
            raise keyless(session.session_id)

    def readable(self, text: str) -> state_pb2.Session:
        """As `session`; raises as `check_key`, and where only part of it has been imported."""
        session = self.session(text)
        self.check_key(session)
        if is_importing(session):
            raise importing(session)
        return session


def name_of(text: str, field: str = "name", *, ids: bool = False) -> str:
    """Raises InvalidRequest for what cannot be a session's name; `ids`: an id is fine as well."""
    if not 0 < len(text.encode(errors="replace")) <= NAME_BYTES_MAX or not text.isprintable():
        shown = text[:NAME_BYTES_MAX]
        raise InvalidRequest.field(field, f"{shown!r}: 1 to {NAME_BYTES_MAX} bytes of printable text are allowed")
    if not ids and SESSION_ID.match(text):
        raise InvalidRequest.field(field, f"{text!r} is the form of an id, and no name")
    return text
