"""What witnesses have said and cannot be counted yet: votes and confirms for transactions that are not here, beyond
DIGESTS_MAX of one witness at one ballot, and reports of certificates that are not seen here.

Nothing is dropped, for what counts in a slot has to depend on nothing but which blocks are known: a liar that could
have some of its words forgotten here and counted there would keep the others from ever agreeing. A row for each digest,
looked at when that is known: what liars make up costs them as much to say as it takes here, and no time.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.tables import ASIDE


class Aside:
    """By slot and digest; all in rows."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._new: dict[bytes, set[bytes]] = {}  # slot → keys of this batch, which no scan of committed rows finds

    def put_statement(self, slot: bytes, statement: Statement, bit: int) -> None:
        row = self._row(slot, statement.tx_digest)
        tally = next((each for each in row.tallies if each.ballot == statement.ballot), None)
        if tally is None:
            tally = row.tallies.add(ballot=statement.ballot)
        if statement.confirms:
            tally.confirmed |= bit
        else:
            tally.voted |= bit
        self._put(slot, statement.tx_digest, row)

    def put_report(self, slot: bytes, report: Report, bit: int) -> None:
        row = self._row(slot, report.certified)
        place = report.ballot, report.certified_ballot
        told = next((each for each in row.reports if (each.ballot, each.certified_ballot) == place), None)
        if told is None:
            told = row.reports.add(ballot=report.ballot, certified_ballot=report.certified_ballot)
        told.witnesses |= bit
        self._put(slot, report.certified, row)

    def take_tallies(self, slot: bytes, digest: bytes) -> list[ledger_pb2.BallotTally]:
        """Votes and confirms for this transaction, which is here now."""
        row = self._row(slot, digest)
        tallies = [*row.tallies]
        if tallies:
            del row.tallies[:]
            self._put(slot, digest, row)
        return tallies

    def take_reports(
        self, slot: bytes, digest: bytes, is_seen: Callable[[tuple[int, bytes]], bool]
    ) -> list[ledger_pb2.ReportTally]:
        """Reports of certificates for this digest that are seen by now."""
        row = self._row(slot, digest)
        seen = [told for told in row.reports if is_seen((told.certified_ballot, digest))]
        if seen:
            rest = [told for told in row.reports if told not in seen]
            del row.reports[:]
            row.reports.extend(rest)
            self._put(slot, digest, row)
        return seen

    def close(self, slot: bytes) -> None:
        """The slot is final."""
        committed = {key for key, _ in self._draft.committed(ASIDE, b"", prefix=slot)}
        for key in sorted(committed | self._new.pop(slot, set())):
            self._draft.delete(ASIDE, key)

    def trim(self) -> None:
        """At a new instant: all rows are committed."""
        self._new.clear()

    def _row(self, slot: bytes, digest: bytes) -> ledger_pb2.DisputeRow:
        return self._draft.row(ASIDE, slot + digest, ledger_pb2.DisputeRow) or ledger_pb2.DisputeRow()

    def _put(self, slot: bytes, digest: bytes, row: ledger_pb2.DisputeRow) -> None:
        if not (row.tallies or row.reports):
            self._draft.delete(ASIDE, slot + digest)
            return
        self._draft.put(ASIDE, slot + digest, row)
        self._new.setdefault(slot, set()).add(slot + digest)
