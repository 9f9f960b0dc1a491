"""Whether events are what they are said to be, before they are sealed."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from offgrid.kinds import Kinds, RejectedEvent
from offgrid_node.protocol.errors import Corrupt, InvalidRequest
from offgrid_node.protocol.state.sessions.blocks import BLOCK_BYTES_MAX, EVENTS_MAX, Entry, decode
from offgrid_node.protocol.state.sessions.writers import COUNT_MAX

_read = msgspec.json.Decoder().decode
_PLACE = re.compile(r"(?P<rule>Expected .*) - at `\$\[(?P<event>\d+)\](?:\[(?P<field>[0-4])\])?`$")


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
            raise _unreadable(fault) from fault
        if not 0 < len(entries) <= EVENTS_MAX:
            raise InvalidRequest.field("events", f"{len(entries)} events; 1 to {EVENTS_MAX} are allowed")
        either = imported and self._raw_content
        check, read, hashed = self._kinds.check, _read, not self._raw_content
        for place, entry in enumerate(entries):
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
        for kind, count in said.items():
            if kind not in self._kinds:
                raise InvalidRequest.field(f"dropped[{kind}]", f"not known here: {', '.join(self._kinds)} are")
            if count > COUNT_MAX:
                raise InvalidRequest.field(f"dropped[{kind}]", f"{count}; at most {COUNT_MAX} is allowed")
        return dict(said)


def _unreadable(fault: Corrupt) -> InvalidRequest:
    """Where in the events it is, and what is allowed there, as far as its words tell."""
    if (found := _PLACE.search(fault.message)) is None:
        return InvalidRequest.field("events", fault.message)
    field = f".{Entry._fields[int(at)]}" if (at := found["field"]) else ""
    return InvalidRequest.field(f"events[{found['event']}]{field}", found["rule"])
