"""Rules of what witnesses say, ballot by ballot, counted from what was really signed, liars' signatures included.

- signed once: no honest witness says two things of one kind for one slot and ballot, and at lower ballots than one at
  which it has spoken it says nothing more;
- certified: nobody confirms without a quorum of votes at that ballot;
- told: a report names a certificate at least of the ballot at which its author has confirmed;
- bound: above ballot 0 nobody votes but for what the reports of a quorum at that ballot allow; where they name no
  certificate that is the no-op, and in the slot of an epoch's end whatever is proposed;
- locked: what a witness says is in its rows by the transaction that makes it say so; of ballot 0 it may be in the log
  alone, until the slot's row is written, or the one that says that all are (ahead.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger import slots
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, Witnesses, cut_account
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE, Dispute
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.records import LedgerGenesis, noop_digest
from offgrid_node.protocol.ledger.tables import ACCOUNTS, DISPUTES, EPOCH_KEY, META, SLOTS, slot_key
from offgrid_node.protocol.quorum.enough import byzantine_quorum, weight_of
from offgrid_tools.sim.monitor.evidence import Evidence, Violation

EPOCHS_MAX = 256  # more than a run has


class Slot(NamedTuple):
    account: bytes
    seq: int

    def __str__(self) -> str:
        return f"{base32(self.account)[:8]}/{self.seq}"


class Turn(NamedTuple):
    """A slot in one epoch: what is said of it in another counts for nothing."""

    epoch: int
    slot: Slot

    def __str__(self) -> str:
        return f"{self.slot}" if not self.epoch else f"{self.slot} in epoch {self.epoch}"


class Ballots:
    """Of all slots."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._weights: dict[int, Mapping[str, int]] = {}  # by epoch
        self._cuts: set[bytes] = set()  # accounts in whose slots it is agreed on how epochs end
        self._votes: dict[tuple[Turn, int, bytes], set[str]] = {}
        self._confirms: dict[tuple[Turn, bytes], dict[int, set[str]]] = {}  # by ballot
        self._certified: dict[tuple[Slot, bytes], set[int]] = {}  # the epochs in which a quorum has voted for it
        self._reports: dict[tuple[Turn, int], dict[str, set[tuple[int, bytes]]]] = {}
        self._promised: dict[tuple[str, Turn], int] = {}
        self._confirmed: dict[tuple[str, Turn], int] = {}  # the highest ballot
        self._locks: dict[str, dict[Turn, dict[bool, bytes]]] = {}  # witness → what it votes for and confirms at 0

    def open(self, genesis: LedgerGenesis) -> None:
        self._weights[genesis.epoch] = dict(genesis.witnesses)
        ledger, salt = genesis.digest(self._evidence.salt), self._evidence.salt
        self._cuts = {cut_account(ledger, epoch, salt) for epoch in range(EPOCHS_MAX)}

    def ended(self, checkpoint: Checkpoint) -> Witnesses | None:
        """Somebody has entered the epoch behind this: who witnessed the one that ended; None: that is no news."""
        if checkpoint.epoch + 1 in self._weights:
            return None
        self._weights[checkpoint.epoch + 1] = dict(checkpoint.witnesses)
        return tuple(self._weights[checkpoint.epoch].items())

    # ---- questions

    def noop(self, slot: Slot) -> bytes:
        return noop_digest(self._evidence.salt, *slot)

    def is_final(self, slot: Slot, digest: bytes) -> bool:
        """Whether a quorum has confirmed it at one ballot, or has voted for it in an epoch that ended: so a cut may
        say that it is."""
        turns = [Turn(epoch, slot) for epoch in self._weights]
        return any(
            self._is_quorum(turn, signers)
            for turn in turns
            for signers in self._confirms.get((turn, digest), {}).values()
        ) or any(epoch + 1 in self._weights for epoch in self._certified.get((slot, digest), ()))

    def torn(self, node: str) -> str:
        """A slot whose turn it is, of two transactions or that its owner wants to end, and that has not ended at this
        node; empty when there is none."""
        for key, value in self._evidence.stores[node].scan(SLOTS):
            lock, _ = slots.Slot.decode(key, value)
            row = self._evidence.row(node, ACCOUNTS, lock.account)
            dispute = self._dispute(node, Turn(0, Slot(lock.account, lock.seq)))
            unlocked = dispute is not None and dispute.unlocked
            if (lock.doubled or unlocked) and row is not None and Account.decode(row).next_seq == lock.seq:
                return str(Slot(lock.account, lock.seq))
        return ""

    # ---- what is signed

    def stated(self, witness: str, epoch: int, statement: Statement, *, honest: bool) -> None:
        slot = Turn(epoch, Slot(statement.account, statement.seq))
        if honest:
            what = "confirm" if statement.confirms else "vote"
            self._evidence.sign(what, witness, str(slot), statement.ballot, statement.tx_digest)
            self._promise(witness, slot, statement.ballot)
            self._check_lock(witness, slot, statement)
        votes = self._votes.setdefault((slot, statement.ballot, statement.tx_digest), set())
        if not statement.confirms:
            if honest and statement.ballot:
                self._check_bound(witness, slot, statement)
            votes.add(witness)
            if self._is_quorum(slot, votes):
                self._certified.setdefault((slot.slot, statement.tx_digest), set()).add(epoch)
            return
        if honest and not self._is_quorum(slot, votes):
            raise Violation(f"{self._evidence.name_of(witness)} confirms in slot {slot} what has no certificate")
        if honest:
            self._confirmed[witness, slot] = statement.ballot
        confirms = self._confirms.setdefault((slot, statement.tx_digest), {})
        confirms.setdefault(statement.ballot, set()).add(witness)

    def reported(self, witness: str, epoch: int, report: Report, *, honest: bool) -> None:
        slot, certificate = Turn(epoch, Slot(report.account, report.seq)), (report.certified_ballot, report.certified)
        if honest:
            self._evidence.sign("report", witness, str(slot), report.ballot, report.encode())
            self._promise(witness, slot, report.ballot)
            confirmed = self._confirmed.get((witness, slot), -1)
            if (certificate[0] if any(certificate[1]) else -1) < confirmed:
                raise Violation(
                    f"{self._evidence.name_of(witness)} hides in slot {slot} the certificate of ballot {confirmed}"
                )
            dispute = self._dispute(witness, slot)
            told = dispute.reports.get(report.ballot, {}).get(certificate, 0) if dispute is not None else 0
            if not told & self._bit(epoch, witness) and not self._is_past(witness, slot):
                raise Violation(f"{self._evidence.name_of(witness)} reports of slot {slot} what its disk does not have")
        self._reports.setdefault((slot, report.ballot), {}).setdefault(witness, set()).add(certificate)

    # ---- inside

    def _promise(self, witness: str, slot: Turn, ballot: int) -> None:
        promised = self._promised.get((witness, slot), 0)
        if ballot < promised:
            raise Violation(
                f"{self._evidence.name_of(witness)} speaks at ballot {ballot} of slot {slot}, after ballot {promised}"
            )
        self._promised[witness, slot] = ballot

    def _check_bound(self, witness: str, slot: Turn, vote: Statement) -> None:
        reports = self._reports.get((slot, vote.ballot), {})

        def allow(certificate: tuple[int, bytes]) -> bool:
            at, _ = certificate
            signers = {
                name
                for name, told in reports.items()
                if any(each in (certificate, NO_CERTIFICATE) or each[0] < at for each in told)
            }
            return self._is_quorum(slot, signers)

        told = {certificate for certificates in reports.values() for certificate in certificates}
        real = (at for at, digest in told if digest == vote.tx_digest and self._is_certificate(slot, at, digest))
        if any(allow((at, vote.tx_digest)) for at in real):
            return
        free = (
            vote.tx_digest == self.noop(slot.slot) or slot.slot.account in self._cuts
        )  # there it is whatever a leader proposes
        if not free or not allow(NO_CERTIFICATE):
            name = self._evidence.name_of(witness)
            raise Violation(f"{name} votes at ballot {vote.ballot} of slot {slot} for what no reports allow")

    def _is_certificate(self, slot: Turn, ballot: int, digest: bytes) -> bool:
        return any(digest) and self._is_quorum(slot, self._votes.get((slot, ballot, digest), set()))

    def wrote(self, witness: str, slot: Slot) -> None:
        """The slot's row is written: it has to know what the witness has said there at ballot 0 in this epoch."""
        turn = Turn(self._epoch_of(witness), slot)
        said = self._locks.get(witness, {}).get(turn)
        row = self._evidence.row(witness, SLOTS, slot_key(*slot))
        if said is None or witness in self._evidence.dishonest or self._is_past(witness, turn):
            return
        lock = slots.Slot.decode(slot_key(*slot), row)[0] if row is not None else None
        for confirms, digest in said.items():
            if lock is None or digest != (lock.confirmed if confirms else lock.voted):
                raise self._unlocked(witness, turn)

    def wrote_all(self, witness: str) -> None:
        """The witness will not count again what it has in its log up to now."""
        for turn in [*self._locks.get(witness, {})]:
            self.wrote(witness, turn.slot)
            if self._is_past(witness, turn):
                del self._locks[witness][turn]

    def _check_lock(self, witness: str, turn: Turn, statement: Statement) -> None:
        """What a witness says is durable by the same transaction, unless the slot, or the epoch, has ended by it."""
        if not statement.ballot:
            self._locks.setdefault(witness, {}).setdefault(turn, {})[statement.confirms] = statement.tx_digest
            return
        dispute = self._dispute(witness, turn)
        held = (
            dispute is not None
            and dispute.said(statement.ballot, self._bit(turn.epoch, witness), confirms=statement.confirms)
            and statement.tx_digest in dispute.tallies[statement.ballot]
        )
        if not held and not self._is_past(witness, turn):
            raise self._unlocked(witness, turn)

    def _unlocked(self, witness: str, turn: Turn) -> Violation:
        return Violation(f"{self._evidence.name_of(witness)} speaks for slot {turn}, and its disk has no lock of that")

    def _bit(self, epoch: int, witness: str) -> int:
        names = [*self._weights[epoch]]
        return 1 << names.index(witness) if witness in names else 0

    def _epoch_of(self, witness: str) -> int:
        """The one that it is in."""
        row = self._evidence.row(witness, META, EPOCH_KEY)
        return ledger_pb2.EpochRow.FromString(row).number if row is not None else 0

    def _is_past(self, witness: str, turn: Turn) -> bool:
        """Whether the slot is final there, or its epoch over."""
        account = self._evidence.row(witness, ACCOUNTS, turn.slot.account)
        ended = account is not None and Account.decode(account).next_seq > turn.slot.seq
        return ended or self._epoch_of(witness) > turn.epoch

    def _dispute(self, witness: str, turn: Turn) -> Dispute | None:
        row = self._evidence.row(witness, DISPUTES, slot_key(*turn.slot))
        return Dispute.decode(*turn.slot, ledger_pb2.DisputeRow.FromString(row)) if row is not None else None

    def _is_quorum(self, turn: Turn, signers: Iterable[str]) -> bool:
        weights = self._weights.get(turn.epoch, {})
        return bool(weights) and weight_of(signers, weights) >= byzantine_quorum(weights)
