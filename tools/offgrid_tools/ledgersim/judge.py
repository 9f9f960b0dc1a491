"""What must hold of every ledger after every step, counted apart from the code that is judged.

The judge sees everything that leaves a node, as an adversary would who collects it all, and all that nodes call final.
It keeps books of its own: each slot's value is booked once, when the first honest node calls it final, so an overdraft
shows at that very step whatever the order in which others learn of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx, noop_digest
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.met import Met

Place = tuple[bytes, int]  # account and number: a slot
Certificate = tuple[int, bytes]  # its ballot and what it is for
NO_CERTIFICATE: Certificate = (-1, bytes(32))  # below all others


class Broken(AssertionError):
    """An invariant does not hold."""


class Judge:
    """Authors, accounts and liars are 20 bytes each."""

    def __init__(self, genesis: LedgerGenesis) -> None:
        self._weights = {node_id_bytes(node): weight for node, weight in genesis.witnesses}
        self._bits = {account: 1 << index for index, account in enumerate(self._weights)}
        self._total = sum(self._weights.values())
        self.balances = {node_id_bytes(node): amount for node, amount in genesis.balances}
        self.fees_micro, self._fee_micro = 0, genesis.fee_micro
        self.met = Met()
        self.liars: set[bytes] = set()
        self.final: dict[Place, bytes] = {}
        self.disputed: set[Place] = set()  # somebody reported there
        self._next: dict[bytes, int] = {}
        self._txs: dict[bytes, Tx] = {}
        self._signed: dict[Place, bytes] = {}  # first in that slot, by honest owners nothing else
        self._torn: set[Place] = set()
        self._said: dict[tuple[bytes, bool, bytes, int, int], bytes] = {}
        self._promised: dict[tuple[bytes, bytes, int], int] = {}
        self._weighed: dict[tuple[bool, bytes, int, bytes, int], tuple[int, int]] = {}  # who said so, and their weight
        self._certified: dict[Place, list[Certificate]] = {}
        self._reports: dict[tuple[bytes, int, int], dict[Certificate, int]] = {}  # slot and ballot → who reported it
        self._known: dict[tuple[bytes, bytes, int], Certificate] = {}  # what this witness has reported last
        self.shown: set[Place] = set()  # that these were torn somebody has shown to all
        self._decided: dict[Place, tuple[int, bytes]] = {}  # confirmed by a quorum, though no node may know it yet

    # ---- inputs

    def said(self, author: bytes, items: Iterable[Item]) -> None:
        """These are durable at their author, or have left a liar. Each once."""
        for item in items:
            match item:
                case Statement():
                    self._on_statement(author, item)
                case Report():
                    self._on_report(author, item)
                case TxItem():
                    self._on_tx(item)
                case Double(first, second):
                    self.shown.add((first.tx.src, first.tx.seq))
                    self._on_tx(first)
                    self._on_tx(second)

    def forgive(self, author: bytes) -> None:
        """This witness came back from an old disk: nothing binds it but what `bind` says."""
        self._said = {key: digest for key, digest in self._said.items() if key[0] != author}
        self._promised = {key: ballot for key, ballot in self._promised.items() if key[0] != author}
        self._known = {key: certificate for key, certificate in self._known.items() if key[0] != author}
        self._signed = {
            place: digest for place, digest in self._signed.items() if self._txs[digest].source.signer != author
        }

    def bind(self, author: bytes, items: Iterable[Item]) -> None:
        """A witness that came back is told of what it had said, or will be before it speaks."""
        for item in items:
            match item:
                case Statement():
                    self._said[author, item.confirms, item.account, item.seq, item.ballot] = item.tx_digest
                case Report():
                    place = author, item.account, item.seq
                    self._promised[place] = max(item.ballot, self._promised.get(place, 0))

    def called_final(self, node: str, src: bytes, seq: int, digest: bytes) -> None:
        """By an honest node; durable there."""
        place = src, seq
        known = self.final.get(place)
        if known is not None:
            if known != digest:
                raise Broken(f"two final values in slot {seq} of {base32(src)}, the second one at {node}")
            return
        self.final[place] = digest
        self._check_confirmed(node, place, digest)
        self._book(node, place, digest)

    def called_void(self, node: str, tx: Tx, digest: bytes) -> None:
        if self.final.get((tx.src, tx.seq)) in (None, digest):
            raise Broken(f"{node} called void, and nothing else is final in slot {tx.seq} of {base32(tx.src)}")

    # ---- questions

    def certified(self, place: Place) -> list[Certificate]:
        """What a quorum has voted for there, though no node may know it yet."""
        return self._certified.get(place, [])

    def enough(self, weight: int) -> bool:
        """More than two thirds."""
        return 3 * weight > 2 * self._total

    # ---- inside

    def _on_tx(self, item: TxItem) -> None:
        tx, signer = item.tx, item.tx.source.signer
        place = tx.src, tx.seq
        self._txs[item.digest] = tx
        if self._signed.setdefault(place, item.digest) != item.digest:
            if signer not in self.liars:
                raise Broken(f"{base32(signer)} signed two transactions for slot {tx.seq} of {base32(tx.src)}")
            if place not in self._torn:
                self._torn.add(place)
                self.met.torn += 1

    def _on_statement(self, author: bytes, said: Statement) -> None:
        account, seq, ballot, digest = said.account, said.seq, said.ballot, said.tx_digest
        again = self._said.setdefault((author, said.confirms, account, seq, ballot), digest) != digest
        if author in self.liars:
            self.met.lies += again
        else:
            if again:
                what = "confirms" if said.confirms else "votes"
                raise Broken(
                    f"{base32(author)} said two things, {what} at ballot {ballot} of slot {seq} of {base32(account)}"
                )
            if ballot < self._promised.get((author, account, seq), 0):
                raise Broken(f"{base32(author)} spoke at ballot {ballot} of slot {seq}, below its promise")
            if said.confirms and not self.enough(self._weight(False, account, seq, digest, ballot)):
                raise Broken(f"{base32(author)} confirmed in slot {seq} of {base32(account)} what has no certificate")
            decided_at, decided = self._decided.get((account, seq), (ballot, digest))
            if not said.confirms and ballot > decided_at and digest != decided:
                raise Broken(f"{base32(author)} voted against what is final in slot {seq} of {base32(account)}")
            if not said.confirms and ballot and not self._is_allowed(account, seq, ballot, digest):
                raise Broken(
                    f"{base32(author)} voted at ballot {ballot} of slot {seq} of {base32(account)} for what no reports"
                    " allow"
                )
        if author in self._weights:
            self._weigh(author, said)

    def _on_report(self, author: bytes, report: Report) -> None:
        account, seq = report.account, report.seq
        self.disputed.add((account, seq))
        place = author, account, seq
        certificate = (report.certified_ballot, report.certified) if any(report.certified) else NO_CERTIFICATE
        reports = self._reports.setdefault((account, seq, report.ballot), {})
        reports[certificate] = reports.get(certificate, 0) | self._bits.get(author, 0)
        if author in self.liars:
            return
        if report.ballot <= self._promised.get(place, 0):
            raise Broken(f"{base32(author)} reported twice at ballot {report.ballot}, or went back to it")
        confirmed = [
            (at, digest)
            for at in range(report.ballot)
            if (digest := self._said.get((author, True, account, seq, at))) is not None
        ]
        if any(at > report.certified_ballot or (at == 0 and not any(report.certified)) for at, _ in confirmed):
            raise Broken(f"{base32(author)} reported less than it had confirmed in slot {seq} of {base32(account)}")
        if certificate != NO_CERTIFICATE and certificate not in self._certified.get((account, seq), ()):
            raise Broken(f"{base32(author)} reported a certificate that is none in slot {seq} of {base32(account)}")
        if certificate < self._known.get(place, NO_CERTIFICATE):
            raise Broken(f"{base32(author)} reported less than before in slot {seq} of {base32(account)}")
        self._known[place] = certificate
        self._promised[place] = report.ballot

    def _is_allowed(self, account: bytes, seq: int, ballot: int, digest: bytes) -> bool:
        """Whether reports of a quorum at this ballot name no higher certificate than one for this digest."""
        reports = self._reports.get((account, seq, ballot), {})
        certified = [each for each in self._certified.get((account, seq), ()) if each[1] == digest]
        for at, what in (*certified, *([NO_CERTIFICATE] if digest == noop_digest(SALT, account, seq) else ())):
            if (at, what) not in reports:
                continue
            mask = 0
            for certificate, who in reports.items():
                mask |= who if certificate[0] < at or certificate == (at, what) else 0
            if self.enough(sum(weight for each, weight in self._weights.items() if self._bits[each] & mask)):
                return True
        return False

    def _weigh(self, author: bytes, said: Statement) -> None:
        key = said.confirms, said.account, said.seq, said.tx_digest, said.ballot
        mask, weight = self._weighed.get(key, (0, 0))
        bit = self._bits[author]
        if mask & bit:
            return
        weight += self._weights[author]
        self._weighed[key] = mask | bit, weight
        if not self.enough(weight):
            return
        if said.confirms:
            decided = self._decided.setdefault((said.account, said.seq), (said.ballot, said.tx_digest))
            if decided[1] != said.tx_digest:
                raise Broken(f"two values are confirmed by quorums in slot {said.seq} of {base32(said.account)}")
            return
        certified = self._certified.setdefault((said.account, said.seq), [])
        if any(at == said.ballot and digest != said.tx_digest for at, digest in certified):
            raise Broken(f"two certificates at ballot {said.ballot} of slot {said.seq} of {base32(said.account)}")
        certified.append((said.ballot, said.tx_digest))

    def _weight(self, confirms: bool, account: bytes, seq: int, digest: bytes, ballot: int) -> int:
        return self._weighed.get((confirms, account, seq, digest, ballot), (0, 0))[1]

    def _check_confirmed(self, node: str, place: Place, digest: bytes) -> None:
        ballots = {0: None, **{at: None for at, what in self._certified.get(place, ()) if what == digest}}
        if not any(self.enough(self._weight(True, *place, digest, ballot)) for ballot in ballots):
            raise Broken(f"{node} called final what no quorum has confirmed, in slot {place[1]} of {base32(place[0])}")

    def _book(self, node: str, place: Place, digest: bytes) -> None:
        src, seq = place
        if self._next.get(src, 0) != seq:
            raise Broken(f"{node} called slot {seq} of {base32(src)} final before the slots before it")
        self._next[src] = seq + 1
        if digest == noop_digest(SALT, src, seq):
            return
        tx = self._txs.get(digest)
        if tx is None or (tx.src, tx.seq) != place:
            raise Broken(f"{node} called final in slot {seq} of {base32(src)} what is no transaction of it")
        if seq and tx.prev != self.final[src, seq - 1]:
            raise Broken(f"{node} called final in slot {seq} of {base32(src)} what does not follow the slot before")
        if tx.fee_micro < self._fee_micro:
            raise Broken(f"{node} called final in slot {seq} of {base32(src)} what pays too low a fee")
        self.balances[src] = self.balances.get(src, 0) - tx.total_micro
        self.fees_micro += tx.fee_micro
        for account, amount in tx.outputs:
            self.balances[account] = self.balances.get(account, 0) + amount
        if self.balances[src] < 0:
            raise Broken(f"overdraft: {base32(src)} has {self.balances[src]} millionths after its slot {seq}")
