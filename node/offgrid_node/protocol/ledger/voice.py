"""Whether this node may sign anything for the ledger now, what it has to say in this step, and what its owner should
know.

A node restored from a backup does not know what it has signed since. Two guards. After a start it votes and confirms
only once witnesses that together with it weigh a quorum have shown what they hold of it, and that was nothing new: one
peer that holds nothing, or says so, proves nothing, while a quorum has an honest witness in common with every other.
And once it sees anything with its own signature that it does not have, and that was not made by hand (by_hand.py), it
goes mute, durably, as witness, as author and as owner, until its key is changed (research/ledger.md; etcd and
TigerBeetle have members that lost data leave and join anew for the same reason). A node that knows that it came back
from its journal has a third: it says nothing at all before it has learnt what it said (learning.py).

Whatever is no vote waits QUIET_MS at most, so an owner signs offline too. One that was restored and is alone for so
long may sign a second transaction for a slot, or a second block for a height: that costs its own account and chain
(evidence, and it goes mute when it meets the others), and no one else's. A witness that is a quorum by itself has
nobody to wait for, and listens no longer than that either.
"""

from __future__ import annotations

from itertools import groupby
from typing import TypeVar

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Item, Report, Statement
from offgrid_node.protocol.ledger.learning import SHOWN_MAX, Learning
from offgrid_node.protocol.ledger.tables import META, MUTE_KEY

QUIET_MS = 2_000  # after a start, while no quorum of witnesses has shown what it holds
NOTICES_MAX = 64  # and as many liars

K = TypeVar("K")


class Voice:
    """`items` of one step and epoch go into one block."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._items: list[tuple[int, Item]] = []  # each with its epoch
        self._quiet_until_ms: int | None = 0
        self._epochs = Epochs(b"", b"", draft)
        self._own = b""
        self._shown: set[bytes] = (
            set()
        )  # who has shown what it holds of this node since the start, and it was nothing new
        self._greeted = 0  # the witnesses among these, and this node
        self.learning = Learning(draft)
        self.muted_why = ""
        self._notices: dict[str, str] = {}  # by what they are about
        self._accused: dict[bytes, str] = {}  # one notice of each liar

    def load(self, epochs: Epochs, own: bytes, now_ms: int) -> None:
        self._epochs, self._own, self._greeted = epochs, own, epochs.own_bit
        self._shown = set()
        row = self._draft.get(META, MUTE_KEY)
        self.muted_why = row.decode() if row is not None else ""
        self._quiet_until_ms = now_ms + QUIET_MS
        self.learning.load(epochs, now_ms)

    # ---- questions

    @property
    def free(self) -> bool:
        """Whether it may say anything that is no vote."""
        return self._quiet_until_ms is None and not self.learning.at_work and not self.muted_why

    @property
    def may_witness(self) -> bool:
        """Whether it may vote and confirm, if it is a witness."""
        return self.free and self._epochs.committee.enough(self._greeted)

    @property
    def epoch(self) -> int:
        """In which this node stands, and says what it says."""
        return self._epochs.number

    def heard(self, account: bytes) -> bool:
        """Whether this witness has shown since the start what it holds of this node."""
        return bool(self._epochs.committee.bit_of(account) & self._greeted)

    def unheard(self, account: bytes) -> bool:
        """Whether this node waits for that one to show what it holds."""
        bit = self._epochs.committee.bit_of(account)
        unheard = bool(bit & ~self._greeted) and not self._epochs.committee.enough(self._greeted)
        return unheard or self.learning.lacks(account)

    def deadline_ms(self) -> int | None:
        due = (self._quiet_until_ms, self.learning.deadline_ms())
        return min((at for at in due if at is not None), default=None)

    # ---- inputs

    def on_shown(self, account: bytes, digest: bytes, epoch: int, *, held: bool, now_ms: int) -> None:
        """This peer stands in that epoch, and has shown its newest block of this node's; `held`: it is nothing new. Who
        stands in another epoch may not have what this node said in this one."""
        self.learning.on_shown(account, digest, epoch, held=held, now_ms=now_ms)
        if held and epoch == self.epoch:
            if len(self._shown) < SHOWN_MAX:
                self._shown.add(account)
            self._greet(self._epochs.committee.bit_of(account))

    def on_time(self, now_ms: int) -> bool:
        """Whether this node has just learnt all that it had forgotten."""
        if self._quiet_until_ms is not None and self._quiet_until_ms <= now_ms:
            self._quiet_until_ms = None
        learnt_all = self.learning.on_time(now_ms)
        if learnt_all:
            self._greet(self.learning.answered)
        return learnt_all

    def enter(self) -> None:
        """Another epoch has begun: who has shown what it holds has done so for that, too."""
        self._greeted = self._epochs.own_bit
        self.learning.enter(self._epochs)
        for account in self._shown:
            self._greeted |= self._epochs.committee.bit_of(account)
        self._greet(0)

    def mute(self, why: str) -> None:
        """For ever, as far as this key goes. What was to be said in this step stays unsaid."""
        if self.muted_why:
            return
        self.muted_why = why
        self._draft.put_bytes(META, MUTE_KEY, why.encode())

    def say(self, item: Item) -> None:
        assert self.may_witness if isinstance(item, Statement | Report) else self.free, "a quiet node signs nothing"
        self._items.append((self._epochs.number, item))

    def notice(self, sentence: str, *, about: str = "") -> None:
        """Each sentence once, or the first about somebody: what he says more is no news. The oldest are forgotten."""
        _remember(self._notices, about or sentence, sentence)

    def accuse(self, liar: bytes, sentence: str) -> None:
        """The first notice of this liar; what more it does is no news."""
        _remember(self._accused, liar, sentence)

    @property
    def notices(self) -> list[str]:
        """Liars have a list of their own, so they wipe out nothing but each other."""
        return [*self._notices.values(), *self._accused.values()]

    def take(self) -> list[tuple[int, list[Item]]]:
        """What is to go out now, by epoch: nothing, if this step has found out that this node must be mute."""
        items, self._items = self._items, []
        return [] if self.muted_why else [(epoch, [item for _, item in said]) for epoch, said in groupby(items, _epoch)]

    def _greet(self, mask: int) -> None:
        self._greeted |= mask
        if self._epochs.committee.enough(self._greeted):
            self._quiet_until_ms = None


def _epoch(said: tuple[int, Item]) -> int:
    return said[0]


def _remember(held: dict[K, str], key: K, value: str) -> None:
    if key not in held:
        held[key] = value
        if len(held) > NOTICES_MAX:
            del held[next(iter(held))]
