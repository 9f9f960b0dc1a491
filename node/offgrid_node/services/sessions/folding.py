"""What a session's events come to, by each reducer that this node knows: worked out from the newest snapshot that is
sound and the events behind it, and kept up as events come in.

A snapshot that is damaged, or of another version of its reducer, is passed over for the one before it. At which event a
reducer failed is remembered as long as the process lives, and nothing is folded up to there once more. What takes long
is folded in portions, of whoever asks in turn, and others have the node in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from offgrid.reducers import (
    Recorded,
    Reducer,
    ReducerFailed,
    StateTooLarge,
    initial_state,
    pack_state,
    show_state,
)
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.protocol.state.sessions.blocks import Entry
from offgrid_node.protocol.state.sessions.tables import SNAPSHOTS, snapshots_of
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_of
from offgrid_node.services.flow import Flow, Later
from offgrid_node.services.sessions.reading import Numbered, Reading
from offgrid_node.services.sessions.vault import Vault
from offgrid_node.storage.store import Store

FAILED_MAX = 4_096  # sessions and reducers that failed, of which it is remembered where
LIVE_MAX = 64  # sessions and reducers whose state is kept up
FOLDS_MAX = 64  # that wait for their next portion; each holds a state
PORTION_EVENTS, PORTION_BYTES = 4_000, 512 * 1024  # folded, or opened, before others have their turn; a block at least
PAUSE_MS, RETRY_MS = 1, 1_000
WHERE = "where"  # of a fault's metadata

T = TypeVar("T")

_unpack = msgspec.msgpack.decode
_read_json = msgspec.json.Decoder().decode
_recorded: Callable[[type[Recorded], tuple[Any, ...]], Recorded] = tuple.__new__  # two thirds of what Recorded(…) takes


class Folded(msgspec.Struct):
    """What the events up to `number` come to; `snapshot`: the one from which that was worked out, 0: none."""

    number: int
    state: Any
    snapshot: int = 0


def snapshot_word(reducer: str, version: int, number: int) -> str:
    """What a snapshot is bound to be, beside its session."""
    return f"snapshot {reducer} {version} {number}"


def _said(reducer: Reducer, number: int) -> str:
    return snapshot_word(reducer.name, reducer.version, number)


class _Failure(msgspec.Struct, frozen=True):
    """Of a reducer's version, at that event; `text` says so, and `where` as well (`loggable`)."""

    version: int
    number: int
    text: str
    where: str

    @property
    def fault(self) -> FailedPrecondition:
        return FailedPrecondition(self.text, reason="ReducerFailed", metadata={WHERE: self.where})


def loggable(fault: Fault) -> str:
    """Its message, without the words of a reducer's error: they may be what a session says, and no purge finds them in
    logs."""
    return fault.metadata.get(WHERE, fault.message)


class Folding:
    """By reducer's name. Raises Corrupt where events cannot be read, FailedPrecondition (SessionShredded)."""

    def __init__(
        self, store: Store, vault: Vault, reading: Reading, reducers: Mapping[str, Reducer], later: Later
    ) -> None:
        self._store, self._vault, self._reading, self.reducers = store, vault, reading, reducers
        self._later = later
        self._live: OrderedDict[tuple[str, str], Folded] = OrderedDict()
        self._failed: OrderedDict[tuple[str, str], _Failure] = OrderedDict()
        self._waiting: deque[Callable[[Fault | None], None]] = deque()

    def reducer(self, name: str) -> Reducer:
        found = self.reducers.get(name)
        if found is None:
            known = ", ".join(self.reducers)
            raise InvalidRequest.field("reducer", f"{name!r} is not known to this node; there are: {known}")
        return found

    def state(self, session_id: str, reducer: Reducer, upto: int | None = None) -> Flow[Folded]:
        """Of all events, or of those up to a number. It is led on with the next ones: use it at once. Raises Exhausted
        (FoldsBusy) as well."""
        self._check_can(session_id, reducer, upto)
        # unless all goes well it is half of something
        live = self._live.pop((session_id, reducer.name), None) if upto is None else None
        folded = live or self._newest_snapshot(session_id, reducer, upto)
        while self._read_on(session_id, reducer, folded, upto):
            yield self._turn
            if folded.number < self._reading.gone(session_id):  # retention has overtaken it, but never the snapshots
                folded = self._newest_snapshot(session_id, reducer, upto)
        if upto is None:
            self._keep_live(session_id, reducer, folded)
        return folded

    def on_events(self, session_id: str, first: int, entries: Sequence[Entry]) -> None:
        """These have just become durable: what is kept up is led on, if they come next."""
        for name, reducer in self.reducers.items():
            live = self._live.get((session_id, name))
            if live is None or live.number + 1 != first:
                continue
            try:
                live.state = self._fold(session_id, reducer, live.state, enumerate(entries, first))
                live.number += len(entries)
            except Fault:  # whoever asks for the state is told
                del self._live[session_id, name]

    def sealed(self, session_id: str, reducer: Reducer, folded: Folded) -> bytes:
        """As a snapshot. Raises FailedPrecondition (ReducerFailed) for what cannot be kept, Exhausted for too much."""
        packed = _sound(lambda: pack_state(reducer, folded.state))
        return self._vault.seal(session_id, _said(reducer, folded.number), packed)

    def shown(self, reducer: Reducer, folded: Folded) -> tuple[bytes, bytes]:
        """As JSON, and its digest: equal for equal states. Raises as `sealed`."""
        return _sound(lambda: show_state(reducer, folded.state))

    def bases(self, session_id: str, gone: int, reducers: Iterable[str]) -> Iterator[state_pb2.Base]:
        """By each of these reducers the oldest snapshot that is sound, and behind which all events are kept."""
        for reducer in map(self.reducer, reducers):
            snapshots = self._snapshots(session_id, reducer, newest_first=False)
            folded = next((each for each in snapshots if each.number >= gone), None)
            if folded is not None:
                state = pack_state(reducer, folded.state)
                yield state_pb2.Base(reducer=reducer.name, version=reducer.version, number=folded.number, state=state)

    def forget(self, session_id: str) -> None:
        for kept in (self._live, self._failed):
            for key in [key for key in kept if key[0] == session_id]:
                del kept[key]

    # ---- inside

    def _keep_live(self, session_id: str, reducer: Reducer, folded: Folded) -> None:
        self._live[session_id, reducer.name] = folded
        while len(self._live) > LIVE_MAX:
            self._live.popitem(last=False)

    def _read_on(self, session_id: str, reducer: Reducer, folded: Folded, upto: int | None) -> bool:
        """One portion; whether there may be more."""
        if upto is not None and folded.number >= upto:
            return False
        if folded.number < (gone := self._reading.gone(session_id)):
            raise _gone(session_id, gone)
        events, opened_bytes = 0, 0
        for part in self._reading.after(session_id, folded.number):
            wanted = part.events if upto is None else [each for each in part.events if each[0] <= upto]
            folded.state = self._fold(session_id, reducer, folded.state, wanted)
            folded.number = wanted[-1][0] if wanted else folded.number
            if upto is not None and folded.number >= upto:
                return False
            events, opened_bytes = events + len(wanted), opened_bytes + part.bytes
            if events >= PORTION_EVENTS or opened_bytes >= PORTION_BYTES:
                return True
        return False

    def _fold(self, session_id: str, reducer: Reducer, state: Any, events: Iterable[Numbered]) -> Any:
        apply = reducer.apply
        try:
            for number, (timestamp_us, kind, frame_id, energy_delta, data) in events:
                said = (number, timestamp_us, kind, frame_id, energy_delta, _read_json(data))
                state = apply(state, _recorded(Recorded, said))
        except Exception as error:
            failed = ReducerFailed.at(reducer, number, error)
            failure = _Failure(reducer.version, number, str(failed), failed.where)
            self._failed[session_id, reducer.name] = failure
            while len(self._failed) > FAILED_MAX:
                self._failed.popitem(last=False)
            raise failure.fault from error
        return state

    def _check_can(self, session_id: str, reducer: Reducer, upto: int | None) -> None:
        """Events never change, and a reducer is pure: where it has failed it would fail again. Raises as it did."""
        failed = self._failed.get((session_id, reducer.name))
        if failed is None or failed.version != reducer.version or failed.number <= self._reading.gone(session_id):
            return
        if upto is None or failed.number <= upto:
            raise failed.fault

    def _turn(self, done: Callable[[Fault | None], None]) -> None:
        """A step: whoever folds waits for its next portion, and all of them together run one at a time."""
        if len(self._waiting) >= FOLDS_MAX:
            text = f"{FOLDS_MAX} states of long sessions are being worked out already"
            done(Exhausted(text, reason="FoldsBusy", retry_ms=RETRY_MS))
            return
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._later(PAUSE_MS, self._next)

    def _next(self) -> None:
        done = self._waiting.popleft()
        if self._waiting:
            self._later(PAUSE_MS, self._next)
        done(None)

    def _newest_snapshot(self, session_id: str, reducer: Reducer, upto: int | None) -> Folded:
        for folded in self._snapshots(session_id, reducer, newest_first=True, upto=upto):
            return folded
        return Folded(0, _sound(lambda: initial_state(reducer)))

    def _snapshots(
        self, session_id: str, reducer: Reducer, *, newest_first: bool, upto: int | None = None
    ) -> Iterator[Folded]:
        """Those of this version of the reducer that open; others are passed over, for the next comes to the same."""
        prefix = snapshots_of(session_id, reducer.name)
        for key, value in self._store.scan(SNAPSHOTS, prefix=prefix, reverse=newest_first):
            number, row = number_of(key[-NUMBER_BYTES:]), state_pb2.SnapshotRow.FromString(value)
            if row.version != reducer.version or (upto is not None and number > upto):
                continue
            try:
                state = _unpack(self._vault.open(session_id, _said(reducer, number), row.sealed))
            except (Corrupt, msgspec.DecodeError):
                continue
            yield Folded(number, state, number)


def _sound(work: Callable[[], T]) -> T:
    """A reducer's failure as whoever asked is told."""
    try:
        return work()
    except ReducerFailed as error:
        raise FailedPrecondition(str(error), reason="ReducerFailed") from error
    except StateTooLarge as error:
        raise Exhausted(str(error), reason="StateTooLarge") from error


def _gone(session_id: str, number: int) -> FailedPrecondition:
    text = (
        f"session {session_id}: events up to {number} are kept no more, and no snapshot tells what came to be till then"
    )
    metadata = {"session_id": session_id, "number": str(number)}
    return FailedPrecondition(text, reason="EventsGone", metadata=metadata)
