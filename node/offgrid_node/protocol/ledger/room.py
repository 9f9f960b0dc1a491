"""How much this witness may have confirmed that is not final: no more than a cut has room for (cuts.py).

A witness votes for no cut but one that says how each slot ends in which it has confirmed; so these must fit, those of
all witnesses together. Whoever has its share gives no further confirm until one of its slots is final: the slots wait
here, with their votes, in the order in which they came. Where nothing becomes final because all have their share, and
not the same, the epoch is to end (turning.py): the cut holds all that was confirmed, and the next epoch begins clean.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.cuts import share_of
from offgrid_node.protocol.ledger.slots import Slot, Slots


class Room:
    """In memory; after a start what rows say of open slots is read once, when it is asked first."""

    def __init__(self, slots: Slots, ballots: Ballots) -> None:
        self._slots, self._ballots = slots, ballots
        self._share = 0
        self._read = False
        self._taken: set[tuple[bytes, int]] = set()  # slots that this witness has confirmed in
        self._waiting: dict[bytes, None] = {}  # accounts whose next slot waits for room
        self._since_ms: int | None = None

    def open(self, committee: Committee) -> None:
        """At the start, and when an epoch is entered."""
        self._share, self._read, self._since_ms = share_of(committee), False, None
        self._taken.clear()
        self._waiting.clear()

    # ---- questions

    @property
    def since_ms(self) -> int | None:
        """Since when something waits here and no slot became final."""
        return self._since_ms if self._waiting else None

    def admits(self, slot: Slot, now: Now) -> bool:
        """Whether this witness may confirm there; if not, the slot waits."""
        if self._has_room() or (slot.account, slot.seq) in self._taken:
            return True
        if self.since_ms is None:
            self._since_ms = now.mono_ms
        self._waiting[slot.account] = None
        return False

    def next_waiting(self) -> bytes | None:
        """The account that has waited longest, once there is room; it waits no more."""
        if not self._waiting or not self._has_room():
            return None
        account = next(iter(self._waiting))
        del self._waiting[account]
        return account

    # ---- changes

    def take(self, account: bytes, seq: int) -> None:
        """This witness has confirmed there."""
        self._taken.add((account, seq))

    def leave(self, account: bytes, seq: int, now: Now) -> None:
        """The slot is final."""
        self._taken.discard((account, seq))
        self._waiting.pop(account, None)
        self._since_ms = now.mono_ms

    # ---- inside

    def _has_room(self) -> bool:
        if not self._read:
            self._read = True
            self._taken.update(
                (slot.account, slot.seq) for slot in self._slots.open_ones() if self._ballots.confirmed(slot)
            )
        return len(self._taken) < self._share
