"""Planted bugs of what slots' rows do not tell, of marks, and of the room in a cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from offgrid_node.protocol.ledger import ahead, marking
from offgrid_node.protocol.ledger.ahead import Ahead
from offgrid_node.protocol.ledger.marking import Marking
from offgrid_node.protocol.ledger.room import Room
from offgrid_node.protocol.ledger.tables import AHEAD_KEY, META, number_key
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.sim.mutants.patches import Patch, Sound, never


def _none(sound: Any) -> Any:
    return 0


ALL_WAIT = Patch(ahead, "AT_ONCE_MAX", _none)  # few slots change in a step here: else all would be written in it


def _written_too_soon(sound: Sound) -> Sound:
    def flush(self: Any, now: Any) -> None:
        sound(self, now)
        self._draft.put_bytes(META, AHEAD_KEY, number_key(self._chains.end))

    return flush


def _next_place(sound: Sound) -> Sound:
    def marks(block: bytes, confirms: bool, places: Iterable[int]) -> Any:
        return sound(block, confirms, [place + 1 for place in places])

    return marks


def _confirms_as_votes(sound: Sound) -> Sound:
    def place(self: Any, item: Any) -> Any:
        where = sound(self, item)
        return where and (*where[:2], False)

    return place


MUTANTS: dict[str, Planted] = {
    "log-not-counted-again": Planted(
        "a restarted witness forgets what stands in its log and in no slot's row",
        (ALL_WAIT, Patch(Ahead, "load", never(None))),
        level="whole",
    ),
    "log-behind-rows": Planted(
        "that all of the log is in rows is written while slots still wait",
        (ALL_WAIT, Patch(Ahead, "flush", _written_too_soon)),
        level="whole",
    ),
    "marks-misplaced": Planted(
        "a witness marks the transaction after the one that it means",
        (Patch(marking, "_marks", _next_place),),
        level="whole",
    ),
    "marks-vote": Planted(
        "a witness that confirms several transactions of a block says that it votes for them",
        (Patch(Marking, "_place", _confirms_as_votes),),
        level="whole",
    ),
    "confirms-without-room": Planted(
        "a witness confirms more than a cut has room for",
        (Patch(Room, "admits", never(True)),),
        level="whole",
        unseen="never are so many slots open here at once, some 3,000: test_room.py holds it",
    ),
}
