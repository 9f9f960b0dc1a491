"""A session's state is the fold of its events by a reducer: `apply` over them all, in their order, from `initial`.

A node folds by every reducer that it knows: `session`, below, and what packages on its machine register under the entry
point group "offgrid.reducers" (an object or a class with a reducer's four names). State is made of what MessagePack has
words for: None, bool, int, float, str, bytes, list, and dict with str keys. A reducer must be pure (same events, same
state); who changes what one comes to raises its `version`, and snapshots of other versions count no more.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, Protocol, Self

import msgspec

DIGEST_BYTES = 32
STATE_BYTES_MAX = 1024 * 1024

_pack = msgspec.msgpack.Encoder(order="sorted").encode
_unpack = msgspec.msgpack.decode
_to_json = msgspec.json.Encoder(order="sorted").encode


class ReducerFailed(ValueError):
    """It raised, or came to something that cannot be kept. `where`: without the words of its error, which may be what
    a session says."""

    where = ""

    @classmethod
    def at(cls, reducer: Reducer, number: int, error: Exception) -> Self:
        where = f"the reducer {reducer.name} (version {reducer.version}) fails at event {number}: "
        failed = cls(f"{where}{error!r}")
        failed.where = where + type(error).__name__
        return failed


class StateTooLarge(ValueError):
    """What it came to has more than STATE_BYTES_MAX."""


class Recorded(NamedTuple):
    """One event, as `record` was given it; `number` is its place in the session, from 1 on."""

    number: int
    timestamp_us: int
    kind: str
    frame_id: int | None
    energy_delta: float | None
    data: dict[str, Any]


class Reducer(Protocol):
    """`apply` may change the state that it is given and return it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def initial(self) -> Any: ...

    def apply(self, state: Any, event: Recorded) -> Any: ...


class SessionReducer:
    """What any session comes to: how many events of which kind, the energy in all, and the newest frame.

    `energy_accumulator`: the sum of `energy_delta`; `frame_state`: of the newest event with a frame its number and
    time, and what the newest energy.update said of fps and of the frame's budget.
    """

    name, version = "session", 1

    def initial(self) -> dict[str, Any]:
        return {"events": 0, "kinds": {}, "energy_accumulator": 0.0, "frame_state": {}, "newest_us": 0}

    def apply(self, state: dict[str, Any], event: Recorded) -> dict[str, Any]:
        state["events"] += 1
        kinds = state["kinds"]
        kinds[event.kind] = kinds.get(event.kind, 0) + 1
        if event.energy_delta is not None:
            state["energy_accumulator"] += event.energy_delta
        if event.timestamp_us > state["newest_us"]:
            state["newest_us"] = event.timestamp_us
        frame = state["frame_state"]
        if event.frame_id is not None:
            frame["frame_id"], frame["timestamp_us"] = event.frame_id, event.timestamp_us
        if event.kind == "energy.update":
            for name in ("fps", "frame_budget_used"):
                if name in event.data:
                    frame[name] = event.data[name]
        return state


def initial_state(reducer: Reducer) -> Any:
    """Raises ReducerFailed."""
    try:
        return reducer.initial()
    except Exception as error:
        text = f"the reducer {reducer.name} (version {reducer.version}) has no beginning: {error!r}"
        raise ReducerFailed(text) from error


def pack_state(reducer: Reducer, state: object) -> bytes:
    """As MessagePack, dicts in the order of their keys. Raises ReducerFailed for what would come back as something
    else, StateTooLarge."""
    try:
        packed = _pack(state)
        if _unpack(packed) != state:
            raise TypeError("it would come back as something else; None, bool, int, float, str, bytes, list, dict stay")
        _to_json(state)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ReducerFailed(f"what the reducer {reducer.name} comes to cannot be kept: {error}") from error
    if len(packed) > STATE_BYTES_MAX:
        text = f"what the reducer {reducer.name} comes to has {len(packed)} bytes; {STATE_BYTES_MAX} at most are kept"
        raise StateTooLarge(text)
    return packed


def show_state(reducer: Reducer, state: object) -> tuple[bytes, bytes]:
    """As JSON, and its digest: equal for equal states, on every machine. Raises as `pack_state`."""
    packed = pack_state(reducer, state)
    return _to_json(state), hashlib.blake2b(packed, digest_size=DIGEST_BYTES, person=b"og.state.v1").digest()
