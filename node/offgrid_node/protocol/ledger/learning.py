"""What a node that came back from its journal learns of itself before it speaks again.

What it signed after the rows with which it came back, others hold: its blocks, and in them votes, confirms and
transactions. They come in like anybody's, by gossip, and what they say binds this node as it did before: a slot in
which it has voted is voted for, a transaction that it signed is in flight.

When is that all? `needed_milli` is the weight of a certificate, more than two thirds of all witnesses, of others alone:
this node's own memory counts for nothing. What has become final was confirmed by as many, and any two such sets share
more than a third, so an honest witness that confirmed it, and holds the certificate that it was shown. So whatever
could be final is known here before this node speaks, and so is all that it leans on. (Where the others weigh less than
that together, all of them are needed.) What only those who are silent hold may stay unknown: votes for what was not
final yet, an own transaction that nobody has voted for. Should such a block come to light, that is a fork, and the node
is as one more liar: it goes mute, and nothing is unsafe while liars and it weigh less than a third.

A peer counts once the newest block that it shows is held here, and only while it stands in the epoch in which this node
stands: who has entered a later one may have been replaced as a witness, and knows that there are others to ask; who is
behind takes in nothing of this epoch. So the witnesses of the newest epoch are asked, whatever rows a node came back
with, and in each one anew that it enters meanwhile. One that shows a block that never comes is waited for
PATIENCE_MS and no longer, if the others weigh enough. One that has come, and leans on what has not, is waited for
however long that takes, and every peer is asked for both: to speak before would be to sign twice knowingly. No bound is
safe there: whoever keeps back what it leans on could bring it later, and this node would have signed two blocks.
"""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.tables import LEARN_KEY, META
from offgrid_node.protocol.quorum.enough import decimal

MEET_MS = 2_000  # after a start: whoever is up shows what it holds, witness or not
PATIENCE_MS = 30_000  # since a block was shown that is not here, or since the last of this node's own came in
SHOWN_MAX = 1_024  # peers whose newest block of this node's is not here


class Learning:
    """At work from the moment of a restore until enough is known; the row that says so outlives restarts."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._committee, self._own_bit, self._epoch = Committee(()), 0, 0
        self.needed_milli = 0
        self.at_work = False
        self._met = False  # somebody has shown what it holds: a lone witness needs no weight, and yet its blocks
        self.answered = 0  # witnesses whose newest block of this node's is here
        self._missing: dict[bytes, tuple[bytes, int]] = {}  # peer → the block that it shows, not here, and its epoch
        self._came: dict[bytes, int] = {}  # own blocks that are here and not in the chain yet, each with its height
        self._patient_until_ms: int | None = None
        self._meeting_until_ms: int | None = None

    def load(self, epochs: Epochs, now_ms: int) -> None:
        self.enter(epochs)
        self.at_work = self._draft.get(META, LEARN_KEY) is not None
        self._met, self._patient_until_ms = False, None
        self._missing.clear()
        self._came.clear()
        self._meeting_until_ms = now_ms + MEET_MS if self.at_work else None

    # ---- questions

    @property
    def why(self) -> str:
        """Why this node is silent, and what it waits for; empty when it does not learn."""
        if not self.at_work:
            return ""
        shown, needed = decimal(self._committee.weight(self.answered)), decimal(self.needed_milli)
        said = (
            f"it was restored, and learns from others what it signed; witnesses that weigh {shown} of {needed} told it"
        )
        silent = [*self._committee.nodes_of(self._committee.all & ~self._own_bit & ~self.answered)]
        if not self._enough:
            return f"{said}; it waits for {', '.join(silent) or 'any other node'}"
        if not self._came:
            return f"{said}; it waits for blocks that some have shown"
        return f"{said}; it waits for what its own block of height {min(self._came.values())} leans on, of all peers"

    def lacks(self, account: bytes) -> bool:
        """Whether this witness' word is waited for."""
        return self.at_work and bool(self._committee.bit_of(account) & ~self.answered) and not self._enough

    def deadline_ms(self) -> int | None:
        if self._meeting_until_ms is not None:
            return self._meeting_until_ms
        waits = self.at_work and self._missing and self._enough and not self._came
        return self._patient_until_ms if waits else None

    # ---- inputs

    def on_shown(self, account: bytes, digest: bytes, epoch: int, *, held: bool, now_ms: int) -> None:
        """The newest block of this node's that this peer has, and the epoch in which it stands."""
        if not self.at_work:
            return
        if held:
            self._missing.pop(account, None)
            if epoch == self._epoch:
                self._met = True
                self.answered |= self._committee.bit_of(account)
        elif account in self._missing or len(self._missing) < SHOWN_MAX:
            self._missing[account] = digest, epoch
            if self._patient_until_ms is None:
                self._be_patient(now_ms)

    def enter(self, epochs: Epochs) -> None:
        """Another epoch has begun: its witnesses are asked."""
        self._committee, self._own_bit, self._epoch = epochs.committee, epochs.own_bit, epochs.number
        others_milli = self._committee.weight(self._committee.all & ~self._own_bit)
        self.needed_milli, self.answered = min(self._committee.quorum_milli, others_milli), 0

    def on_came(self, digest: bytes, height: int) -> None:
        """A block of this node's own has come, under its signature, and is not in its chain yet. Nobody else makes
        any."""
        if self.at_work:
            self._came[digest] = height

    def on_learnt(self, digest: bytes, now_ms: int) -> None:
        """A block of this node's own is in its chain."""
        self._came.pop(digest, None)
        for account, epoch in [(account, at) for account, (shown, at) in self._missing.items() if shown == digest]:
            self.on_shown(account, digest, epoch, held=True, now_ms=now_ms)
        self._be_patient(now_ms)

    def on_time(self, now_ms: int) -> bool:
        """Whether this node has just learnt enough."""
        if self._meeting_until_ms is not None and self._meeting_until_ms <= now_ms:
            self._meeting_until_ms = None
        if not self.at_work or not self._enough or self._came or self._meeting_until_ms is not None:
            return False
        if self._missing and self._patient_until_ms is not None and now_ms < self._patient_until_ms:
            return False
        self.at_work = False
        self._draft.delete(META, LEARN_KEY)
        return True

    # ---- inside

    @property
    def _enough(self) -> bool:
        return self._met and self._committee.weight(self.answered) >= self.needed_milli

    def _be_patient(self, now_ms: int) -> None:
        self._patient_until_ms = now_ms + PATIENCE_MS
