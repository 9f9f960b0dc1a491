"""Recovery ballots: how a slot ends in which no transaction gets a quorum any more (Paxos' ballots over Byzantine
quorums, as in PBFT's view change).

An owner that signs two transactions for one slot can split the votes, and nobody votes twice at ballot 0. So on proof
of that (a `Double`), or where the owner asks for it (an `Unlock`), and on nothing else, the witnesses go on to ballots
1, 2, … until one of them ends the slot, with a transaction or with the no-op, by which nothing is moved:

    report at b    this node says nothing more at ballots below b; of all certificates it knows the highest
    vote at b      for what the leader of b has voted for, if reports at b of a quorum allow it: the certificate of the
                   highest ballot that they name, or, where they name none, the no-op
    quorum of votes at one ballot  → a certificate of that ballot → confirmed, unless a higher ballot was promised
    quorum of confirms at one ballot → final

Why it is safe while liars weigh less than a third. At one ballot: two quorums share an honest witness, which votes once
there. Of two ballots: say that X is final by confirms at b. Any quorum of votes at a higher ballot c shares an honest
witness with those who confirmed. That one confirmed before it voted, for afterwards it says nothing at b; so it knew a
certificate of b, and it votes for nothing but what a certificate of that ballot or a higher one, below c, is for. Of b
that is X; of those between, by induction, X too. A certificate that is reported and cannot be seen here (its votes are
not held) allows nothing, whoever says that there is one; if it is real, its votes come. No rule of safety asks for the
time. What a witness has confirmed it takes for certified, though a restored one may not hold the votes again.

Why it ends, once messages come through and honest witnesses weigh a quorum: a ballot's clock starts when a quorum has
reported at it, its time doubles from ballot to ballot, and leaders take turns; so one day an honest leader sees every
honest report in time, and all follow it. Whoever lags joins a ballot at which more than a third has reported, for one
of these is honest. Ballots are not counted up while no quorum can be heard, so a partition of weeks costs one ballot.

Bounded: a block that speaks of a ballot more than one above where an honest witness must be is not taken in yet
(`within_reach`): an honest author got there by blocks that it passes on as well. So liars alone reach ballot 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE, Dispute
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Tally

EVIDENCE_MS = 1_000  # from the evidence to the first report: one of the two may get its quorum yet
BALLOT_MS = 1_000  # the first ballot's time, from a quorum of reports on
DOUBLINGS_MAX = 20  # a ballot lasts 12 days at most, so words may travel that slowly

Holds = Callable[[bytes], bool]  # whether the slot could end with this digest, as far as this node knows
Free = Callable[[int], Sequence[bytes]]  # what to vote for at a ballot whose reports name no certificate


class Recovery:
    """Whose turn it is to say what; the clocks of ballots, in memory alone."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._committee, self._own_bit = Committee(()), 0
        self._clocks: dict[tuple[bytes, int], tuple[int, int]] = {}  # slot → the ballot that is timed, and until when
        self._over: dict[tuple[bytes, int], int] = {}  # slot → the ballot that has had its time

    def open(self, committee: Committee, own_bit: int) -> None:
        self._committee, self._own_bit = committee, own_bit

    # ---- questions

    def deadline_ms(self) -> int | None:
        return min((until_ms for _, until_ms in self._clocks.values()), default=None)

    def noop(self, slot: Slot) -> bytes:
        """The digest by which the slot ends with nothing."""
        return noop_digest(self._salt, slot.account, slot.seq)

    def within_reach(self, dispute: Dispute | None, ballot: int) -> bool:
        """Whether an honest witness may be at that ballot by what is known here."""
        if ballot <= 1:
            return True
        return dispute is not None and self._committee.one_is_honest(self._beyond(dispute, ballot - 1))

    # ---- inputs

    def on_time(self, now_ms: int) -> list[bytes]:
        """Accounts in whose slots a ballot has just had its time."""
        over = [slot for slot, (_, until_ms) in self._clocks.items() if until_ms <= now_ms]
        for slot in over:
            self._over[slot], _ = self._clocks.pop(slot)
        return [account for account, _ in over]

    def forget(self, account: bytes, seq: int) -> None:
        """The slot is final."""
        self._clocks.pop((account, seq), None)
        self._over.pop((account, seq), None)

    # ---- what to say

    def next_word(
        self, slot: Slot, dispute: Dispute, holds: Holds, free: Free, now_ms: int
    ) -> Statement | Report | None:
        """The next thing that this witness has to say of a slot at ballots above 0. It does so in this very step."""
        promised = dispute.promised(self._own_bit)
        return (
            self._confirm(slot, dispute, promised, holds)
            or self._vote(slot, dispute, promised, holds, free)
            or self._report(slot, dispute, promised, holds, now_ms)
        )

    # ---- inside

    def _confirm(self, slot: Slot, dispute: Dispute, promised: int, holds: Holds) -> Statement | None:
        ballot, digest = self._certificate(slot, dispute, holds)
        if ballot == 0 or ballot < promised or dispute.said(ballot, self._own_bit, confirms=True):
            return None
        return Statement(True, slot.account, slot.seq, ballot, digest)

    def _vote(self, slot: Slot, dispute: Dispute, promised: int, holds: Holds, free: Free) -> Statement | None:
        for ballot in sorted(dispute.reports, reverse=True):
            if ballot < promised:
                break
            if dispute.said(ballot, self._own_bit, confirms=False):
                continue
            leader = self._committee.leader_of(slot.account, slot.seq, ballot)
            led = [digest for digest in self._allowed(slot, dispute, ballot, holds, free) if holds(digest)]
            if leader != self._own_bit:
                led = [digest for digest in dispute.votes_of(ballot, leader) if digest in led]
            if led:
                return Statement(False, slot.account, slot.seq, ballot, led[0])
        return None

    def _report(self, slot: Slot, dispute: Dispute, promised: int, holds: Holds, now_ms: int) -> Report | None:
        ballot = self._joined(dispute, promised) or self._timed_out(slot, dispute, promised, now_ms)
        if not ballot:
            return None
        self.forget(slot.account, slot.seq)
        at, digest = self._certificate(slot, dispute, holds)
        return Report(slot.account, slot.seq, ballot, at, digest)

    def _joined(self, dispute: Dispute, promised: int) -> int:
        """The highest ballot above what was promised that an honest witness has gone to; 0: none."""
        ahead = (ballot for ballot in sorted(dispute.reporters, reverse=True) if ballot > promised)
        return next((each for each in ahead if self._committee.one_is_honest(self._beyond(dispute, each))), 0)

    def _timed_out(self, slot: Slot, dispute: Dispute, promised: int, now_ms: int) -> int:
        """The next ballot, once this one has had its time; 0: it has not, or its clock does not run."""
        if promised == 0:
            runs, lasts_ms = slot.doubled or dispute.unlocked, EVIDENCE_MS
        else:
            runs = self._committee.enough(self._beyond(dispute, promised))
            lasts_ms = BALLOT_MS << min(promised - 1, DOUBLINGS_MAX)
        place = slot.account, slot.seq
        if self._over.get(place) == promised:
            return promised + 1
        if runs and self._clocks.get(place, (-1, 0))[0] != promised:
            self._clocks[place] = promised, now_ms + lasts_ms
        return 0

    def _certificate(self, slot: Slot, dispute: Dispute, holds: Holds) -> tuple[int, bytes]:
        """The one of the highest ballot that is seen here and could end the slot, or that this node has confirmed."""
        for ballot, digest, tally in [*dispute.all_tallies(), *((0, *each) for each in slot.tallies.items())]:
            if self._certifies(tally) and (tally.confirmed & self._own_bit or holds(digest)):
                return ballot, digest
        return NO_CERTIFICATE

    def _allowed(self, slot: Slot, dispute: Dispute, ballot: int, holds: Holds, free: Free) -> list[bytes]:
        """What reports of a quorum at this ballot allow to vote for, and this node's own certificate with them, the
        best first."""
        reports = dispute.reports[ballot]
        own_at, own = self._certificate(slot, dispute, holds)
        allowed: dict[bytes, None] = {}
        for cert in sorted(reports, reverse=True):
            mask = reports[cert]
            for other, witnesses in reports.items():
                mask |= witnesses if other[0] < cert[0] or other == NO_CERTIFICATE else 0
            if not self._committee.enough(mask):
                continue
            at, digests = (-1, free(ballot)) if cert == NO_CERTIFICATE else (cert[0], (cert[1],))
            for digest in digests:
                if own == NOTHING or at >= own_at or digest == own:
                    allowed[digest] = None
        return [*allowed]

    def is_seen(self, slot: Slot, dispute: Dispute, certificate: tuple[int, bytes]) -> bool:
        """Whether its votes are here, or this node has confirmed it; "none" needs no votes."""
        ballot, digest = certificate
        tally = dispute.tallies.get(ballot, {}).get(digest) if ballot else slot.tallies.get(digest)
        return certificate == NO_CERTIFICATE or (tally is not None and self._certifies(tally))

    def certified(self, slot: Slot, dispute: Dispute) -> list[bytes]:
        """What a quorum has voted for, at whatever ballot."""
        tallies = [(digest, tally) for _, digest, tally in dispute.all_tallies()]
        return [digest for digest, tally in (*tallies, *slot.tallies.items()) if self._certifies(tally)]

    def _certifies(self, tally: Tally) -> bool:
        return bool(tally.confirmed & self._own_bit) or self._committee.enough(tally.voted)

    def _beyond(self, dispute: Dispute, ballot: int) -> int:
        """Who has reported at that ballot or a higher one."""
        mask = 0
        for other, witnesses in dispute.reporters.items():
            mask |= witnesses if other >= ballot else 0
        return mask
