"""A session folded anew from its first event, by reducers of this machine and without any snapshot; and its events held
against their kinds' schemas. Of a session that a node has, or of an export, for which no node is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from offgrid.client.errors import OffgridError
from offgrid.exports.document import Head
from offgrid.exports.folding import Fold
from offgrid.exports.reading import Export
from offgrid.installed_reducers import load_reducers
from offgrid.kinds import Kinds, RejectedEvent
from offgrid.reducers import Recorded, Reducer, ReducerFailed, StateTooLarge
from offgrid.v1 import state_pb2

if TYPE_CHECKING:
    from offgrid.client.sessions import Sessions

OnEvent = Callable[[Recorded], None]
SESSION = "session"  # the reducer that is meant when none is named


@dataclass(frozen=True, slots=True)
class Replayed:
    """`number`: of the newest event that is in it, 0: none; `state` is JSON, `digest` hex. `kept`: the digest that the
    node, or the export, has for the same; "" where it has none to compare with, and `why` then says so."""

    reducer: str
    version: int
    number: int
    state: bytes
    digest: str
    kept: str
    why: str = ""

    @property
    def equal(self) -> bool | None:
        return self.digest == self.kept if self.kept else None


class Rejected(NamedTuple):
    """An event that its kind does not let through: where in it (a JSON Pointer), and by which rule."""

    number: int
    kind: str
    path: str
    rule: str

    @property
    def said(self) -> str:
        return f"{self.number}: {RejectedEvent(self.kind, self.path, self.rule)}"


def replay_session(
    sessions: Sessions, session: str, reducer: str, number: int, at_us: int, on_event: OnEvent
) -> Replayed:
    """All its events, those up to a number, or those that the node had at a time; held against what the node shows.
    Raises OffgridError."""
    folds = installed_reducer(reducer or SESSION)
    session_id = sessions.get(session).session_id
    kept = sessions.show(session_id, reducer=folds.name, number=number, at_us=at_us)
    events = takewhile(lambda event: event.number <= kept.number, recorded(sessions, session_id))
    folded = _folded(_fold(folds), events if kept.number else (), on_event)
    why = ""
    if folded.first > 1:
        why = f"events before {folded.first} are gone, and the node shows what they come to as well"
    elif kept.version != folds.version:
        why = f"the node folds by version {kept.version} of {folds.name}, and here is version {folds.version}"
    return folded.replayed(folds, "" if why else kept.digest.hex(), why)


def replay_export(file: BinaryIO, reducer: str, number: int, until_us: int, on_event: OnEvent) -> Replayed:
    """All events of an export, those up to a number, or those before the first that happened later than a time; held
    against what the export says that they come to. Raises BadExport, at the end of it at the latest, NoPyarrow,
    OffgridError."""
    folds, export = installed_reducer(reducer or SESSION), Export(file)
    wanted = _until(export.events(), number, until_us)
    fold = _fold(folds, export.head)
    folded = _folded(fold, wanted, on_event)
    assert export.tail is not None, "it was read to its end"
    if folded.last < fold.number:
        text = f"what came to be up to event {folded.last} is not in the export, but from event {fold.number} on"
        raise OffgridError("FAILED_PRECONDITION", "EventsGone", text)
    said, kept, why = export.tail.state, "", ""
    if folded.events != export.head.events:
        why = "the export says what all its events come to, and these are some of them"
    elif (said.reducer, said.version) != (folds.name, folds.version):
        why = f"the export says what its events come to by {said.reducer}, version {said.version}"
    else:
        kept = said.digest
    return folded.replayed(folds, kept, why)


def rejected(events: Iterable[Recorded], kinds: Kinds) -> Iterator[Rejected]:
    """Those of them that do not keep to their kinds: content may be as it was said, or hashed."""
    for event in events:
        try:
            kinds.check_recorded(event.kind, event.data)
        except RejectedEvent as error:
            yield Rejected(event.number, event.kind, error.path, error.rule)


def add_schemas(kinds: Kinds, folder: Path) -> list[str]:
    """Kinds as the files KIND.json in a folder have them, in the place of those of the same names; which they are.
    Raises ValueError, naming the file, and OSError."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            kinds.register(file.stem, json.loads(file.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        found.append(file.stem)
    return found


def installed_reducer(name: str) -> Reducer:
    """Raises OffgridError."""
    found, problems = load_reducers()
    if name not in found:
        known = "; ".join([f"there are {', '.join(found)}", *problems])
        raise OffgridError(
            "INVALID_ARGUMENT", "UnknownReducer", f"the reducer {name!r} is not on this machine: {known}"
        )
    return found[name]


def recorded(sessions: Sessions, session: str) -> Iterator[Recorded]:
    """A session's events, the oldest first."""
    return (recorded_of(record) for record in sessions.records(session))


def recorded_of(record: state_pb2.Record) -> Recorded:
    return Recorded(
        record.number,
        record.timestamp_us,
        record.kind,
        record.frame_id if record.HasField("frame_id") else None,
        record.energy_delta if record.HasField("energy_delta") else None,
        msgspec.json.decode(record.data),
    )


def _fold(reducer: Reducer, head: Head | None = None) -> Fold:
    """Raises OffgridError."""
    try:
        return Fold(reducer, head)
    except ReducerFailed as error:
        raise OffgridError("FAILED_PRECONDITION", "ReducerFailed", str(error)) from error


def _until(events: Iterable[Recorded], number: int, until_us: int) -> Iterator[Recorded]:
    """Reads on to the end all the same: only then is it known that they are as they were written."""
    over = False
    for event in events:
        over = over or bool(number and event.number > number) or bool(until_us and event.timestamp_us > until_us)
        if not over:
            yield event


class _Folded(NamedTuple):
    """How many events, and the numbers of the first and the last of them."""

    events: int
    first: int
    last: int
    state: bytes
    digest: str

    def replayed(self, reducer: Reducer, kept: str, why: str) -> Replayed:
        return Replayed(reducer.name, reducer.version, self.last, self.state, self.digest, kept, why)


def _folded(fold: Fold, events: Iterable[Recorded], on_event: OnEvent) -> _Folded:
    """Raises OffgridError."""
    first = last = count = 0
    try:
        for event in events:
            first, last, count = first or event.number, event.number, count + 1
            fold.add(event)
            on_event(event)
        state, digest = fold.shown()
    except (ReducerFailed, StateTooLarge) as error:
        raise OffgridError("FAILED_PRECONDITION", type(error).__name__, str(error)) from error
    return _Folded(count, first, last, state, digest)
