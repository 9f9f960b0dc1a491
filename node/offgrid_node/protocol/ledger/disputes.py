"""What was said of a slot at ballots above 0: votes, confirms and reports, and whether its owner wants it to end.

As at ballot 0 every statement counts, also of a witness that says two things, so what follows depends on nothing but
which blocks are known. What this node has said itself stands among the rest, in the batch of the block that says it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.slots import NOTHING, Tally
from offgrid_node.protocol.ledger.tables import DISPUTES, slot_key

HELD_MAX = 1_024  # disputes in memory; all are in their rows
DIGESTS_MAX = 8  # of one witness at one ballot, of transactions that are not here; more are put aside (aside.py)
NO_CERTIFICATE = (0, NOTHING)


class Dispute(msgspec.Struct):
    """`tallies`: ballot → transaction or no-op → who voted and confirmed. `reports`: ballot → certificate that is seen
    here (its ballot and what it is for), or none → who reported it as the highest that they know. `reporters`: ballot →
    whoever reported there."""

    account: bytes
    seq: int
    unlocked: bool = False
    tallies: dict[int, dict[bytes, Tally]] = msgspec.field(default_factory=dict)
    reports: dict[int, dict[tuple[int, bytes], int]] = msgspec.field(default_factory=dict)
    reporters: dict[int, int] = msgspec.field(default_factory=dict)

    # ---- questions

    def promised(self, bit: int) -> int:
        """The highest ballot at which this witness has said anything: at lower ones it says nothing more."""
        return max(
            (ballot for ballot in {*self.tallies, *self.reporters} if self._speaks(ballot, bit)),
            default=0,
        )

    def said(self, ballot: int, bit: int, *, confirms: bool) -> bool:
        """Whether this witness has confirmed, or else voted, at that ballot."""
        tallies = self.tallies.get(ballot, {}).values()
        return any((tally.confirmed if confirms else tally.voted) & bit for tally in tallies)

    def votes_of(self, ballot: int, bit: int) -> list[bytes]:
        """What this witness has voted for at that ballot: a liar for several."""
        return [digest for digest, tally in self.tallies.get(ballot, {}).items() if tally.voted & bit]

    def all_tallies(self) -> Iterator[tuple[int, bytes, Tally]]:
        """The highest ballot first."""
        for ballot in sorted(self.tallies, reverse=True):
            for digest, tally in self.tallies[ballot].items():
                yield ballot, digest, tally

    # ---- changes

    def state(self, ballot: int, digest: bytes, bit: int, *, confirms: bool) -> None:
        tally = self.tallies.setdefault(ballot, {}).setdefault(digest, Tally())
        if confirms:
            tally.confirmed |= bit
        else:
            tally.voted |= bit

    def report(self, ballot: int, certificate: tuple[int, bytes], bits: int) -> None:
        """Of a certificate that is seen here, or of none."""
        reports = self.reports.setdefault(ballot, {})
        reports[certificate] = reports.get(certificate, 0) | bits

    def reach(self, ballot: int, bit: int) -> None:
        """This witness has reported at that ballot, whatever that was."""
        self.reporters[ballot] = self.reporters.get(ballot, 0) | bit

    # ---- rows

    def encode(self) -> ledger_pb2.DisputeRow:
        return ledger_pb2.DisputeRow(
            unlocked=self.unlocked,
            tallies=[
                ledger_pb2.BallotTally(ballot=ballot, tx_digest=digest, voted=tally.voted, confirmed=tally.confirmed)
                for ballot, digest, tally in self.all_tallies()
            ],
            reports=[
                ledger_pb2.ReportTally(ballot=ballot, certified_ballot=at, certified=digest, witnesses=witnesses)
                for ballot, reports in sorted(self.reports.items())
                for (at, digest), witnesses in reports.items()
            ],
            reporters=[
                ledger_pb2.ReportTally(ballot=ballot, witnesses=witnesses)
                for ballot, witnesses in sorted(self.reporters.items())
            ],
        )

    @classmethod
    def decode(cls, account: bytes, seq: int, row: ledger_pb2.DisputeRow) -> Dispute:
        dispute = cls(account, seq, row.unlocked)
        for tally in row.tallies:
            dispute.tallies.setdefault(tally.ballot, {})[tally.tx_digest] = Tally(tally.voted, tally.confirmed)
        for report in row.reports:
            reports = dispute.reports.setdefault(report.ballot, {})
            reports[report.certified_ballot, report.certified] = report.witnesses
        dispute.reporters.update((each.ballot, each.witnesses) for each in row.reporters)
        return dispute

    def _speaks(self, ballot: int, bit: int) -> bool:
        said = any((tally.voted | tally.confirmed) & bit for tally in self.tallies.get(ballot, {}).values())
        return said or bool(self.reporters.get(ballot, 0) & bit)


class Disputes:
    """Rows read when they are asked for, written once a step, deleted when the slot is final."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._held: dict[bytes, Dispute] = {}
        self._changed: dict[bytes, Dispute] = {}

    def get(self, account: bytes, seq: int) -> Dispute | None:
        key = slot_key(account, seq)
        dispute = self._held.get(key)
        if dispute is None and (row := self._draft.row(DISPUTES, key, ledger_pb2.DisputeRow)) is not None:
            dispute = self._held[key] = Dispute.decode(account, seq, row)
        return dispute

    def make(self, account: bytes, seq: int) -> Dispute:
        """The dispute to change, which is then written at the end of the step."""
        dispute = self.get(account, seq)
        key = slot_key(account, seq)
        if dispute is None:
            dispute = self._held[key] = Dispute(account, seq)
        self._changed[key] = dispute
        return dispute

    def close(self, account: bytes, seq: int) -> None:
        """The slot is final."""
        key = slot_key(account, seq)
        self._held.pop(key, None)
        self._changed.pop(key, None)
        self._draft.delete(DISPUTES, key)

    def flush(self) -> None:
        """The end of a step: what has changed becomes rows."""
        for key, dispute in self._changed.items():
            self._draft.put(DISPUTES, key, dispute.encode())
        self._changed.clear()

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        if len(self._held) > HELD_MAX:
            self._held.clear()
