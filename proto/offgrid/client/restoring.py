"""Sessions of a backup that a running node does not have, brought into it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from offgrid.backup import BackupDamaged
from offgrid.backup.container import BackupReader
from offgrid.backup.sessions import bases, exports, kept_in, write_export
from offgrid.exports.document import BadExport
from offgrid.v1 import state_pb2

if TYPE_CHECKING:
    from offgrid.client.porting import OnEvents
    from offgrid.client.sessions import Sessions

RESTORED, HERE, PURGED, KEYLESS, EMPTY, REFUSED = "restored", "here", "purged", "keyless", "empty", "refused"


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a session of the backup: RESTORED, as `made`; HERE, it was there already; PURGED, there or here;
    KEYLESS, nobody can read it; EMPTY, nothing of it is kept; or REFUSED, and `why`."""

    session: state_pb2.Session
    outcome: str
    made: str = ""
    why: str = ""


def restore_sessions(
    sessions: Sessions,
    reader: BackupReader,
    keys: Mapping[str, bytes],
    *,
    only: Collection[str] = (),
    dry_run: bool = False,
    on_events: OnEvents = lambda doing, done, total: None,
) -> Iterator[Told]:
    """Of a backup that was checked; `only`: those ids or names. Each session comes whole or not at all; what was broken
    off is ended by the next call. Raises BackupDamaged, OffgridError."""
    kept, known = kept_in(reader), _known(sessions)
    wanted = list[str]()
    for session in kept.sessions.values():
        outcome = _outcome(session, keys, known)
        if only and session.session_id not in only and session.name not in only:
            continue
        if outcome != RESTORED or dry_run:
            yield Told(session, outcome)
        else:
            wanted.append(session.session_id)
    begun = bases(reader, kept, keys, tuple(wanted))
    for session_id, events in exports(reader, kept, keys, tuple(wanted)):
        session = kept.sessions[session_id]
        wanted.remove(session_id)
        try:
            with tempfile.TemporaryFile() as passing:  # what is said in it nobody else can open, and it goes with us
                file = cast("BinaryIO", passing)  # on Windows it is one by another name
                write_export(file, kept, session_id, events, begun.get(session_id, ()))
                file.seek(0)
                imported = sessions.import_export(file, on_events=on_events)
        except (BackupDamaged, BadExport) as error:
            yield Told(session, REFUSED, why=str(error))
        else:
            yield Told(session, RESTORED, made=imported.session.session_id)
    for session_id in wanted:
        yield Told(kept.sessions[session_id], REFUSED, why="its events were damaged when the backup was made")


def _known(sessions: Sessions) -> dict[str, bool]:
    """By id, there or where they come from; whether they are purged."""
    known = dict[str, bool]()
    for session in sessions.list():
        known[session.session_id] = bool(session.purged_us)
        if session.origin.imported_us:
            known.setdefault(session.origin.session_id, bool(session.purged_us))
    return known


def _outcome(session: state_pb2.Session, keys: Mapping[str, bytes], known: Mapping[str, bool]) -> str:
    here = known.get(session.session_id)
    if session.purged_us or here:
        return PURGED
    if here is not None:
        return HERE
    if not session.kept:
        return EMPTY
    return RESTORED if session.session_id in keys else KEYLESS
