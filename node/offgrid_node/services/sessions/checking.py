"""Whether events are what they are said to be, before they are sealed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from offgrid.kinds import DATA_BYTES_MAX, ENERGY_MAX, FRAME_MAX, TIME_MAX_US, Kinds, RejectedEvent
from offgrid_node.protocol.errors import Corrupt, InvalidRequest
from offgrid_node.protocol.state.sessions.blocks import BLOCK_BYTES_MAX, EVENTS_MAX, Entry, decode
from offgrid_node.protocol.state.sessions.writers import COUNT_MAX


class Checking:
    """`raw_content`: what is content may be recorded as it is."""

    def __init__(self, kinds: Kinds, *, raw_content: bool) -> None:
        self._kinds, self._raw_content = kinds, raw_content

    def entries(self, events: bytes, *, imported: bool = False) -> list[Entry]:
        """`imported`: another node has recorded them, and may have hashed what is content where this one would not.
        Raises InvalidRequest, naming the event that is wrong by its place."""
        if not 0 < len(events) <= BLOCK_BYTES_MAX:
            raise InvalidRequest.field("events", f"{len(events)} bytes; 1 to {BLOCK_BYTES_MAX} are allowed")
        try:
            entries = decode(events)
        except Corrupt as fault:
            raise InvalidRequest.field("events", fault.message) from fault
        if not 0 < len(entries) <= EVENTS_MAX:
            raise InvalidRequest.field("events", f"{len(entries)} events; 1 to {EVENTS_MAX} are allowed")
        either = imported and self._raw_content
        check, read, hashed = self._kinds.check, msgspec.json.decode, not self._raw_content
        for place, entry in enumerate(entries):
            if (wrong := _wrong(entry)) is not None:
                raise InvalidRequest.field(f"events[{place}].{wrong[0]}", wrong[1])
            try:
                if either:
                    self._kinds.check_recorded(entry.kind, read(entry.data))
                else:
                    check(entry.kind, read(entry.data), hashed=hashed)
            except RejectedEvent as error:
                raise InvalidRequest.field(f"events[{place}]{error.path}", f"{entry.kind}: {error.rule}") from error
            except (msgspec.DecodeError, RecursionError) as error:
                raise InvalidRequest.field(f"events[{place}].data", f"no JSON: {error}") from error
        return entries

    def dropped(self, said: Mapping[str, int]) -> dict[str, int]:
        """Raises InvalidRequest."""
        known = {*self._kinds}
        for kind, count in said.items():
            if kind not in known:
                raise InvalidRequest.field(f"dropped[{kind}]", f"not known here: {', '.join(known)} are")
            if count > COUNT_MAX:
                raise InvalidRequest.field(f"dropped[{kind}]", f"{count}; at most {COUNT_MAX} is allowed")
        return dict(said)


def _wrong(entry: Entry) -> tuple[str, str] | None:
    """What is no data: the field, and what is allowed."""
    at_us, _, frame_id, energy_delta, data = entry
    if not 0 <= at_us < TIME_MAX_US:
        return "timestamp_us", f"{at_us}; 0 to {TIME_MAX_US - 1} is allowed"
    if frame_id is not None and not 0 <= frame_id < FRAME_MAX:
        return "frame_id", f"{frame_id}; 0 to {FRAME_MAX - 1} is allowed"
    if energy_delta is not None and not -ENERGY_MAX <= energy_delta <= ENERGY_MAX:
        return "energy_delta", f"{energy_delta}; {-ENERGY_MAX:g} to {ENERGY_MAX:g} is allowed"
    if len(data) > DATA_BYTES_MAX:
        return "data", f"{len(data)} bytes; {DATA_BYTES_MAX} at most are allowed"
    return None
