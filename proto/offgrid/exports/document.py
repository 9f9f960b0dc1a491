"""What an export has in it, and the digest over it, whatever its form (see the package)."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from offgrid.kinds import DATA_BYTES_MAX, ENERGY_MAX, FRAME_MAX, KIND, KIND_CHARS_MAX, TIME_MAX_US
from offgrid.reducers import Recorded

FORMAT = 1
DIGEST_BYTES = 32
COUNT_MAX = 1 << 53
ITEM_BYTES_MAX = 32 * 1024 * 1024  # of a head, an event or a tail, as text: 256 schemas of 64 KiB fit
_DIGEST_PREFIX = "blake2b-256:"

T = TypeVar("T")

_canonical = msgspec.json.Encoder(order="sorted").encode


class BadExport(ValueError):
    """A file that is no export, or was cut or changed; it says where."""


class Said(NamedTuple):
    """What stands in a file at one place, and which: "line 17"."""

    place: str
    item: Any


class SessionPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The session as its node had it; times are microseconds since 1970, UTC. `ended_us` is 0 of one that was open."""

    session_id: str
    name: str
    started_us: int
    ended_us: int
    dropped: dict[str, int]
    lost: int


class BasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the session's events up to `number` come to by a reducer, as JSON has words for it."""

    reducer: str
    version: int
    number: int
    state: Any


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`first`: the number of the first event; `events`: how many there are; `bases`: by some reducers, where events
    before the first are kept no more."""

    offgrid_export: int
    node_id: str
    session: SessionPart
    content: Literal["recorded", "hashed"]
    first: int
    events: int
    kinds: dict[str, Any]
    bases: list[BasePart] = []

    @property
    def last(self) -> int:
        return self.first - 1 + self.events


class StatePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the events come to by a reducer: the digest of that, in hex (offgrid.reducers.show_state)."""

    reducer: str
    version: int
    digest: str


class Tail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    events: int
    state: StatePart
    digest: str


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    timestamp_us: int
    kind: str
    frame_id: int | None
    energy_delta: float | None
    data: dict[str, Any]


class Digest:
    """Over a head, its events and what they come to, in that order."""

    def __init__(self, head: Head) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"og.export.v1")
        self._add(head)

    def add(self, event: Recorded) -> None:
        self._add(event)

    def end(self, state: StatePart) -> str:
        self._add(state)
        return _DIGEST_PREFIX + self._hash.hexdigest()

    def _add(self, part: object) -> None:
        self._hash.update(_canonical(part) + b"\n")


def digest_bytes(digest: str) -> bytes:
    """Raises BadExport."""
    try:
        found = bytes.fromhex(digest.removeprefix(_DIGEST_PREFIX))
    except ValueError:
        found = b""
    if not digest.startswith(_DIGEST_PREFIX) or len(found) != DIGEST_BYTES:
        raise BadExport(
            f"the digest is {digest[:100]!r}; {_DIGEST_PREFIX} and {2 * DIGEST_BYTES} hex digits are needed"
        )
    return found


def head_of(said: Said) -> Head:
    """Raises BadExport."""
    if not isinstance(said.item, dict) or "offgrid_export" not in said.item:
        raise BadExport(f'{said.place}: this is no export of a session: it does not begin with "offgrid_export"')
    if said.item["offgrid_export"] != FORMAT:
        text = f"an export of the form {said.item['offgrid_export']!r}; {FORMAT} is known here"
        raise BadExport(f"{said.place}: {text}")
    head = _converted(said, Head)
    session = head.session
    counts = {f"session.dropped.{kind}": count for kind, count in session.dropped.items()}
    times = {"session.started_us": session.started_us, "session.ended_us": session.ended_us}
    for name, number in (counts | times | {"session.lost": session.lost, "events": head.events}).items():
        _check(said.place, name, number, 0, COUNT_MAX)
    _check(said.place, "first", head.first, 1, COUNT_MAX)
    for base in head.bases:
        _check(said.place, "bases.version", base.version, 1, (1 << 32) - 1)
        _check(said.place, "bases.number", base.number, max(1, head.first - 1), head.last)
    return head


def event_of(said: Said) -> Recorded:
    """Raises BadExport for what no event may have; its kind's schema is not looked at."""
    event = _converted(said, _Event)
    _check(said.place, "timestamp_us", event.timestamp_us, 0, TIME_MAX_US - 1)
    if event.frame_id is not None:
        _check(said.place, "frame_id", event.frame_id, 0, FRAME_MAX - 1)
    if event.energy_delta is not None:
        _check(said.place, "energy_delta", event.energy_delta, -ENERGY_MAX, ENERGY_MAX)
    if len(event.kind) > KIND_CHARS_MAX or not KIND.match(event.kind):
        raise BadExport(f"{said.place}: kind: {event.kind[:KIND_CHARS_MAX]!r} is no name of a kind")
    size = len(data_text(event.data))
    if size > DATA_BYTES_MAX:
        raise BadExport(f"{said.place}: data: {size} bytes of JSON; {DATA_BYTES_MAX} at most are allowed")
    return Recorded(event.number, event.timestamp_us, event.kind, event.frame_id, event.energy_delta, event.data)


def tail_of(said: Said) -> Tail:
    """Raises BadExport."""
    return _converted(said, Tail)


def data_text(data: dict[str, Any]) -> bytes:
    """As it is recorded."""
    return msgspec.json.encode(data)


def plain(part: Head | Tail) -> dict[str, Any]:
    """As JSON and YAML have it."""
    found: dict[str, Any] = msgspec.to_builtins(part)
    return found


def _converted(said: Said, kind: type[T]) -> T:
    try:
        return msgspec.convert(said.item, kind)
    except msgspec.ValidationError as error:
        raise BadExport(f"{said.place}: {error}") from error


def _check(place: str, name: str, number: float, least: float, most: float) -> None:
    if not least <= number <= most:
        raise BadExport(f"{place}: {name}: {number}; {least:.16g} to {most:.16g} is allowed")
