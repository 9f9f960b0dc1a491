"""How much a payer sets aside for those whom it owes.

Each hold costs a transaction before and one after, so it should last until its payee posts it; what it does not need by
then comes back. So it has room for more than is owed now, as far as half of what else is free allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from offgrid_node.protocol.ledger.records import OUTPUTS_MAX

HEADROOM = 8  # times what is owed now is set aside, for what comes next,
GROWTH = 2  # or so many times what the hold before had,
FEES_LEAST = 100  # or so many fees,
SHARES = 1_024  # or such a share of all that is free or in holds


class Need(NamedTuple):
    """What one payee is owed, the least of its bookings, and the room of the largest hold that it has."""

    total_micro: int
    least_micro: int
    before_micro: int


def set_aside(owed: Mapping[bytes, Need], free_micro: int, held_micro: int, fee_micro: int) -> dict[bytes, int]:
    """For whom a hold is funded now, within `free_micro`, and with how much; `fee_micro` of that is for its end."""
    rooms: dict[bytes, int] = {}
    left = free_micro
    for payee, need in owed.items():
        if len(rooms) == OUTPUTS_MAX:
            break
        room = min(need.total_micro, left - fee_micro)
        if room >= need.least_micro:
            rooms[payee], left = room, left - room - fee_micro
    spare, share = left // 2 // max(1, len(rooms)), (free_micro + held_micro) // SHARES
    return {
        payee: room + fee_micro + min(spare, _wished(owed[payee], share, fee_micro) - room)
        for payee, room in rooms.items()
    }


def _wished(need: Need, share_micro: int, fee_micro: int) -> int:
    return max(HEADROOM * need.total_micro, GROWTH * need.before_micro, FEES_LEAST * fee_micro, share_micro)
