"""Shreds what sessions say: noted, then their keys go, then their rows.

What was sealed may lie in old pages of the store, in backups and at hosts for long: without the key nobody reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.sound import keys, sound
from offgrid_node.protocol.state.sessions.commands import BeginPurge, EndPurge
from offgrid_node.protocol.state.sessions.tables import KEY_GONE, PURGING, SESSIONS, time_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.sessions.vault import Vault

CALLER = "shredding"
ORPHAN_MS = 86_400_000

_log = logging.getLogger("offgrid.sessions")


class Shredding:
    """`forget` drops what of a session is held in clear."""

    def __init__(self, runtime: Runtime, vault: Vault, forget: Callable[[str], None]) -> None:
        self._runtime, self._vault, self._forget = runtime, vault, forget

    def start(self) -> None:
        """Before anybody asks for anything: ends what a process before this one began, and drops keys that were made
        for sessions which never were. What cannot be done now is told in the log, and done at another start.

        A key whose session the store does not know is dropped only where the store knows a younger session by far: else
        the store may be an old one, which is put right yet."""
        store = self._runtime.store
        try:
            self._end([key.decode() for key, row in sound(store.scan, PURGING) if row != KEY_GONE])
            known = {key.decode() for key in keys(store.scan, SESSIONS)}
            newest = max(map(time_of, known), default=0)
            unknown = (each for each in self._vault.all() if each not in known)
            self._vault.drop([each for each in unknown if time_of(each) + ORPHAN_MS < newest])
        except Fault as fault:
            _log.warning("sessions are not tidied up: %s", fault.message)

    def drop_unused(self, session_id: str) -> None:
        """A key that no session came to have."""
        try:
            self._vault.drop([session_id])
        except Fault as fault:
            _log.warning("the key of %s, which nobody needs, stays: %s", session_id, fault.message)

    @property
    def unreadable(self) -> int:
        """Sessions that nobody has shredded and whose keys are not here."""
        rows = (state_pb2.SessionRow.FromString(row).session for _, row in sound(self._runtime.store.scan, SESSIONS))
        return sum(not each.purged_us and not self._vault.has(each.session_id) for each in rows)

    def purge(self, session_ids: Sequence[str], caller: str) -> Ticket:
        """Answers once nobody can read it any more."""
        shredded = Ticket()

        def noted(outcome: Message | Fault) -> None:
            if isinstance(outcome, state_pb2.PurgeSessionsResponse):
                try:
                    self._end(session_ids)
                except Fault as fault:  # it goes on at the next start, or when it is asked for again
                    outcome = fault
            shredded.resolve(outcome)

        self._runtime.ask("sessions", caller, BeginPurge(tuple(session_ids))).when_done(noted)
        return shredded

    def _end(self, session_ids: Sequence[str]) -> None:
        if not session_ids:
            return
        self._vault.drop(session_ids)
        for session_id in session_ids:
            self._forget(session_id)
        self._runtime.ask("sessions", CALLER, EndPurge(tuple(session_ids)))
