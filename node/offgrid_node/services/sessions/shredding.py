"""Shreds what sessions say: noted, then their keys go, then their rows.

What was sealed may lie in old pages of the store, in backups and at hosts for long: without the key nobody reads it.

Keys go out of files, one of which may lie in a slow folder (storage/wrapped_keys.py): so that is done in a thread, and
whoever asked is answered behind it. What is noted is refused from then on, so nobody misses a key that is going. Who is
killed before it is gone finds what is noted at the next start, and drops it then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.sound import keys, sound
from offgrid_node.protocol.state.sessions.commands import BeginPurge, EndPurge, ForgetSessions
from offgrid_node.protocol.state.sessions.tables import KEY_GONE, PURGING, SESSIONS, time_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, asked, run, ticket_of
from offgrid_node.services.sessions.vault import Vault

CALLER = "shredding"
LANE = "session keys"  # one at a time
ORPHAN_MS = 86_400_000
AGAIN_MS = 60_000
STEPS_MAX = 16  # that are waited for until nothing is left of what was purged

_log = logging.getLogger("offgrid.sessions")


class Shredding:
    """`forget` drops what of a session is held in clear."""

    def __init__(self, runtime: Runtime, vault: Vault, forget: Callable[[str], None], bulk: Bulk, later: Later) -> None:
        self._runtime, self._vault, self._forget, self._bulk, self._later = runtime, vault, forget, bulk, later
        self._is_due = False  # another try

    def start(self) -> None:
        """Ends what a former life had begun, and drops the keys of sessions that never came to be.

        A key whose session the store does not know is dropped only where the store knows a session that is younger by
        far, and whose key came later: else the store may be an old one, which is put right yet. By times alone it could
        be one that had a session of a clock that was ahead."""
        run(self._tidy_up(), self._on_tidied)

    def drop_unused(self, session_id: str) -> None:
        """A key that no session came to have."""

        def ended(outcome: Fault | None) -> None:
            if isinstance(outcome, Fault):
                said = fields("session_key_stays", session=session_id, why=outcome.message)
                _log.warning("a key that no session needs stays", extra=said)

        run(self._drop([session_id]), ended)

    @property
    def unreadable(self) -> int:
        """Sessions that nobody has shredded and whose keys are not here."""
        rows = (state_pb2.SessionRow.FromString(row).session for _, row in sound(self._runtime.store.scan, SESSIONS))
        return sum(not each.purged_us and not self._vault.has(each.session_id) for each in rows)

    def purge(self, session_ids: Sequence[str], caller: str, *, forget: bool = False) -> Ticket:
        """Answers once nobody can read it any more. What cannot be ended now is tried again later, whoever asks.
        `forget`: nor does anything say that they were, once their rows are gone."""
        return ticket_of(self._purge(session_ids, caller, forget=forget))

    # ---- inside

    def _purge(self, session_ids: Sequence[str], caller: str, *, forget: bool) -> Flow[Message]:
        try:
            noted: Message = yield asked(self._runtime.ask("sessions", caller, BeginPurge(tuple(session_ids))))
            yield from self._end(session_ids)
        except Fault:  # it may be noted all the same
            self._try_later()
            raise
        if forget:
            yield from self._leave_nothing(session_ids)
        return noted

    def _leave_nothing(self, session_ids: Sequence[str]) -> Flow[None]:
        """With each step some of their rows go. What takes longer is forgotten as old ones are (retention.py)."""
        for _ in range(STEPS_MAX):
            yield asked(self._runtime.ask("sessions", CALLER, ForgetSessions(tuple(session_ids))))
            if not any(self._runtime.store.get(SESSIONS, each.encode()) for each in session_ids):
                return

    def _tidy_up(self) -> Flow[None]:
        yield from self._end_begun()
        known = {key.decode() for key in keys(self._runtime.store.scan, SESSIONS)}
        newest, orphans = 0, list[str]()
        for each in reversed([*self._vault.all()]):
            if each in known:
                newest = max(newest, time_of(each))
            elif time_of(each) + ORPHAN_MS < newest:
                orphans.append(each)
        yield from self._drop(orphans)

    def _end_begun(self) -> Flow[None]:
        begun = [key.decode() for key, row in sound(self._runtime.store.scan, PURGING) if row != KEY_GONE]
        yield from self._end(begun)

    def _end(self, session_ids: Sequence[str]) -> Flow[None]:
        if session_ids:
            yield from self._drop(session_ids)
            for session_id in session_ids:
                self._forget(session_id)
            self._runtime.ask("sessions", CALLER, EndPurge(tuple(session_ids))).when_done(self._on_ended)

    def _on_ended(self, outcome: Message | Fault) -> None:
        if isinstance(outcome, Fault):
            self._try_later()

    def _try_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._later(AGAIN_MS, self._try_again)

    def _try_again(self) -> None:
        self._is_due = False
        run(self._end_begun(), self._on_tidied)

    def _on_tidied(self, outcome: Fault | None) -> None:
        if isinstance(outcome, Fault):
            _log.warning("sessions are not tidied up", extra=fields("sessions_untidy", why=outcome.message))
            self._try_later()

    def _drop(self, session_ids: Sequence[str]) -> Flow[None]:
        if session_ids:
            yield self._bulk.run(lambda: self._vault.drop(session_ids), key=LANE)
