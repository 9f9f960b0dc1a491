"""How much this witness may have confirmed that is not final: no more than a cut has room for (cuts.py).

A witness votes for no cut but one that says how each slot ends in which it has confirmed; so these must fit, those of
all witnesses together. Whoever has its share gives no further confirm until one of its slots is final: the slots wait
here, with their votes.

Of its share each keeps a place for every witness that has not confirmed in a slot yet: the more have confirmed there,
the fuller it may be that gives another, and where most have comes first. Witnesses that are full of slots in which
nobody else has confirmed would wait for each other for ever. Like this they do not: take the certified slot in which
most have confirmed, and an honest witness that has not, for want of room. In the last slot that it took as many had
confirmed, and it has as well: more than most. So there is none. (A share that is no larger than the committee leaves
no place for each. Where no slot becomes final for want of room all the same, the epoch is to end, turning.py: the cut
holds all that was confirmed, and the next epoch begins clean.)
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
        self._share = self._others = 0
        self._read = False
        self._taken: set[tuple[bytes, int]] = set()  # slots that this witness has confirmed in
        self._waiting: dict[int, dict[bytes, None]] = {}  # how many have confirmed → accounts whose next slot waits
        self._counts: dict[bytes, int] = {}  # the same the other way round
        self._since_ms: int | None = None

    def open(self, committee: Committee) -> None:
        """At the start, and when an epoch is entered."""
        self._share, self._others = share_of(committee), committee.all.bit_count() - 1
        self._read, self._since_ms = False, None
        for held in (self._taken, self._waiting, self._counts):
            held.clear()

    # ---- questions

    @property
    def since_ms(self) -> int | None:
        """Since when something waits here and no slot became final."""
        return self._since_ms if self._counts else None

    @property
    def why_not(self) -> list[str]:
        """What waits here, one sentence."""
        if not self._counts:
            return []
        said = (
            f"this witness has confirmed in {len(self._taken)} slots that are not final, of {self._share} that it may"
        )
        return [f"{said}; {len(self._counts)} more wait for that"]

    def waits(self, account: bytes) -> bool:
        return account in self._counts

    def admits(self, slot: Slot, now: Now) -> bool:
        """Whether this witness may confirm there; if not, the slot waits."""
        since_ms = self.since_ms
        self._forget(slot.account)
        if self._has_room(0) or (slot.account, slot.seq) in self._taken:
            return True
        if self._has_room(confirmers := self._ballots.confirmers(slot).bit_count()):
            return True
        self._since_ms = now.mono_ms if since_ms is None else since_ms
        self._counts[slot.account] = confirmers
        self._waiting.setdefault(confirmers, {})[slot.account] = None
        return False

    def next_waiting(self) -> bytes | None:
        """Of the accounts for which there is room the one whose slot most have confirmed in, and of these the one that
        has waited longest; it waits no more."""
        for confirmers in sorted(self._waiting, reverse=True):
            if self._has_room(confirmers):
                account = next(iter(self._waiting[confirmers]))
                self._forget(account)
                return account
        return None

    # ---- changes

    def take(self, account: bytes, seq: int) -> None:
        """This witness has confirmed there."""
        self._taken.add((account, seq))

    def leave(self, account: bytes, seq: int, now: Now) -> None:
        """The slot is final."""
        self._taken.discard((account, seq))
        self._forget(account)
        self._since_ms = now.mono_ms

    # ---- inside

    def _forget(self, account: bytes) -> None:
        confirmers = self._counts.pop(account, None)
        if confirmers is not None:
            del self._waiting[confirmers][account]
            if not self._waiting[confirmers]:
                del self._waiting[confirmers]

    def _has_room(self, confirmers: int) -> bool:
        if not self._read:
            self._read = True
            self._taken.update(
                (slot.account, slot.seq) for slot in self._slots.open_ones() if self._ballots.confirmed(slot)
            )
        return len(self._taken) < max(1, self._share - self._others + confirmers)
