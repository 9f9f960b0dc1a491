"""What witnesses say of slots in one epoch, and what must hold of it: each says one thing at one place, in the order of
ballots, for what the reports allow; nothing more once it has spoken of the epoch's end."""

from __future__ import annotations

from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.met import Met

Place = tuple[bytes, int]  # account and number: a slot
Certificate = tuple[int, bytes]  # its ballot and what it is for
NO_CERTIFICATE: Certificate = (-1, bytes(32))  # below all others


class Broken(AssertionError):
    """An invariant does not hold."""


class Voting:
    """`cut` is the account in whose slot 0 it is agreed on how the epoch ends. Authors and liars are 20 bytes each."""

    def __init__(self, witnesses: tuple[tuple[str, int], ...], cut: bytes, liars: set[bytes], met: Met) -> None:
        self.witnesses, self.cut = witnesses, cut
        self.decided: dict[Place, tuple[int, bytes]] = {}  # confirmed by a quorum, though no node may know it yet
        self._liars, self._met = liars, met
        self._weights = {node_id_bytes(node): weight for node, weight in witnesses}
        self._bits = {account: 1 << index for index, account in enumerate(self._weights)}
        self._total = sum(self._weights.values())
        self._said: dict[tuple[bytes, bool, bytes, int, int], bytes] = {}
        self._promised: dict[tuple[bytes, bytes, int], int] = {}
        self._weighed: dict[tuple[bool, bytes, int, bytes, int], tuple[int, int]] = {}  # who said so, and their weight
        self._certified: dict[Place, list[Certificate]] = {}
        self._reports: dict[tuple[bytes, int, int], dict[Certificate, int]] = {}  # slot and ballot → who reported it
        self._known: dict[tuple[bytes, bytes, int], Certificate] = {}  # what this witness has reported last
        self._ended: set[bytes] = set()  # honest ones who have spoken in the cut's slot
        self.ballot_of_the_end = 0  # the highest at which an honest one has

    # ---- inputs

    def said(self, author: bytes, item: Statement | Report) -> None:
        """Each once; durable, or a liar's."""
        if author not in self._liars:
            self._check_may_speak(author, item)
        if isinstance(item, Statement):
            self._on_statement(author, item)
        else:
            self._on_report(author, item)

    def forgive(self, author: bytes) -> None:
        """This witness came back from an old disk: nothing binds it but what `bind` says."""
        self._said = {key: digest for key, digest in self._said.items() if key[0] != author}
        self._promised = {key: ballot for key, ballot in self._promised.items() if key[0] != author}
        self._known = {key: certificate for key, certificate in self._known.items() if key[0] != author}
        self._ended.discard(author)

    def bind(self, author: bytes, item: Statement | Report) -> None:
        """A witness that came back is told that it has said so, or will be before it speaks."""
        if item.account == self.cut:
            self._ended.add(author)
        if isinstance(item, Statement):
            self._said[author, item.confirms, item.account, item.seq, item.ballot] = item.tx_digest
        else:
            place = author, item.account, item.seq
            self._promised[place] = max(item.ballot, self._promised.get(place, 0))

    # ---- questions

    @property
    def reported_the_end(self) -> int:
        """The bits of those who have reported in the cut's slot at `ballot_of_the_end`, liars too."""
        mask = 0
        for who in self._reports.get((self.cut, 0, self.ballot_of_the_end), {}).values():
            mask |= who
        return mask

    def certified(self, place: Place) -> list[Certificate]:
        """What a quorum has voted for there, though no node may know it yet."""
        return self._certified.get(place, [])

    def confirmed(self, place: Place, digest: bytes) -> bool:
        """Whether a quorum has confirmed it at one ballot."""
        ballots = {0: None, **{at: None for at, what in self.certified(place) if what == digest}}
        return any(self.enough(self._weight(True, *place, digest, ballot)) for ballot in ballots)

    def enough(self, weight: int) -> bool:
        """More than two thirds."""
        return 3 * weight > 2 * self._total

    # ---- inside

    def _check_may_speak(self, author: bytes, item: Statement | Report) -> None:
        if author not in self._weights:
            raise Broken(f"{base32(author)} speaks of slots, and is no witness of that epoch")
        if item.account == self.cut:
            self._ended.add(author)
        elif author in self._ended:
            raise Broken(f"{base32(author)} speaks on in an epoch of whose end it has spoken")

    def _on_statement(self, author: bytes, said: Statement) -> None:
        account, seq, ballot, digest = said.account, said.seq, said.ballot, said.tx_digest
        again = self._said.setdefault((author, said.confirms, account, seq, ballot), digest) != digest
        if author in self._liars:
            self._met.lies += again
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
            decided_at, decided = self.decided.get((account, seq), (ballot, digest))
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
        place = author, account, seq
        certificate = (report.certified_ballot, report.certified) if any(report.certified) else NO_CERTIFICATE
        reports = self._reports.setdefault((account, seq, report.ballot), {})
        reports[certificate] = reports.get(certificate, 0) | self._bits.get(author, 0)
        if author in self._liars:
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
        if account == self.cut:
            self.ballot_of_the_end = max(self.ballot_of_the_end, report.ballot)
        self._known[place] = certificate
        self._promised[place] = report.ballot

    def _is_allowed(self, account: bytes, seq: int, ballot: int, digest: bytes) -> bool:
        """Whether reports of a quorum at this ballot name no higher certificate than one for this digest. Where they
        name none it is the no-op, and of an epoch's end whatever is proposed."""
        reports = self._reports.get((account, seq, ballot), {})
        certified = [each for each in self._certified.get((account, seq), ()) if each[1] == digest]
        if account == self.cut or digest == noop_digest(SALT, account, seq):
            certified.append(NO_CERTIFICATE)
        for at, what in certified:
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
            decided = self.decided.setdefault((said.account, said.seq), (said.ballot, said.tx_digest))
            if decided[1] != said.tx_digest:
                raise Broken(f"two values are confirmed by quorums in slot {said.seq} of {base32(said.account)}")
            return
        certified = self._certified.setdefault((said.account, said.seq), [])
        if any(at == said.ballot and digest != said.tx_digest for at, digest in certified):
            raise Broken(f"two certificates at ballot {said.ballot} of slot {said.seq} of {base32(said.account)}")
        certified.append((said.ballot, said.tx_digest))

    def _weight(self, confirms: bool, account: bytes, seq: int, digest: bytes, ballot: int) -> int:
        return self._weighed.get((confirms, account, seq, digest, ballot), (0, 0))[1]
