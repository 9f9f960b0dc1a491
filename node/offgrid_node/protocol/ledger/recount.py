"""What witnesses say, counted a second time and apart from the machine, for what must never be: two certificates of one
slot and ballot, two final values of a slot, a slot or an epoch that has ended without enough of them.

Each statement counts by the committee of its block's epoch. A slot ends by a quorum of confirms, or because the cut
with which an epoch ended carries it: then by the quorum that confirmed the cut, and with a certificate of its own.

Memory follows open slots of which witnesses speak, the cuts of one epoch, and CLOSED_MAX slots that ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import Checkpoint
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Cut, Statement

CLOSED_MAX = 65_536  # slots that ended, in which a liar's late word is still compared
CUTS_MAX = 256  # of one epoch, a few from each witness

Tallies = dict[tuple[int, int, bytes], list[int]]  # (epoch, ballot, digest) → [who voted, who confirmed]


class Recount:
    """`committee_of` answers who witnessed an epoch, None where it has not come; `find` is told of what is wrong, and
    where."""

    def __init__(
        self, committee_of: Callable[[int], Committee | None], cut_of: Callable[[int], bytes],
        find: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._committee_of, self._cut_of, self._find = committee_of, cut_of, find
        self.epoch = 0
        self._open: dict[bytes, dict[int, Tallies]] = {}
        self._closed: OrderedDict[tuple[bytes, int], Tallies] = OrderedDict()
        self._cuts: dict[bytes, Cut] = {}
        self._carried: dict[tuple[bytes, int], bytes] = {}  # by the cut of this step

    def on_said(self, author: bytes, epoch: int, said: Statement, name: str) -> None:
        committee = self._committee_of(epoch)
        bit = committee.bit_of(author) if committee is not None else 0
        closed = self._closed.get((said.account, said.seq))
        if not bit or (epoch < self.epoch and closed is None):
            return
        tallies = closed if closed is not None else self._slot(said.account, said.seq)
        tallies.setdefault((epoch, said.ballot, said.tx_digest), [0, 0])[said.confirms] |= bit
        self._judge(tallies, epoch, said, name)

    def on_cut(self, epoch: int, digest: bytes, cut: Cut) -> None:
        if epoch == self.epoch and len(self._cuts) < CUTS_MAX:
            self._cuts.setdefault(digest, cut)

    def on_checkpoint(self, body: Checkpoint, digest: bytes, name: str) -> None:
        """That epoch has ended in this step; before what it made of accounts."""
        where, committee = f"epoch {body.epoch}", self._committee_of(body.epoch)
        tallies = self._open.get(self._cut_of(body.epoch), {}).get(0, {})
        if committee is None or not self._final(tallies).issuperset({digest}):
            self._find(name, f"{where} has ended without a quorum of confirms of its checkpoint")
        cut = self._cuts.get(digest)
        if cut is None:
            self._find(name, f"{where} has ended with a cut that is in none of its blocks")
        for target in cut.targets if cut is not None else ():
            for seq, ends in enumerate(target.digests, target.seq):
                self._carried[target.account, seq] = ends

    def on_ended(self, key: bytes, account: Account, name: str) -> None:
        """The account's slots below its next one have ended."""
        slots = self._open.get(key, {})
        for seq in [seq for seq in slots if seq < account.next_seq]:
            tallies = self._closed[key, seq] = slots.pop(seq)
            final, carried = self._final(tallies), self._carried.get((key, seq))
            if carried is not None and carried not in final:
                final.add(carried)
                if not self._is_certified(tallies, carried):
                    self._find(name, f"slot {seq} of {base32(key)} was carried by a cut, without a certificate")
            if not final or (seq == account.next_seq - 1 and account.head not in final):
                self._find(name, f"slot {seq} of {base32(key)} has ended without a quorum of confirms")
            if len(self._closed) > CLOSED_MAX:
                self._closed.popitem(last=False)
        if not slots:
            self._open.pop(key, None)

    def enter(self, epoch: int) -> None:
        """After what the step made of accounts: what was said in the epoch before counts for nothing more."""
        self.epoch = epoch
        self._open, self._cuts, self._carried = {}, {}, {}

    # ---- inside

    def _slot(self, account: bytes, seq: int) -> Tallies:
        return self._open.setdefault(account, {}).setdefault(seq, {})

    def _enough(self, epoch: int, mask: int) -> bool:
        committee = self._committee_of(epoch)
        return committee is not None and committee.enough(mask)

    def _final(self, tallies: Tallies) -> set[bytes]:
        return {digest for (epoch, _, digest), (_, confirmed) in tallies.items() if self._enough(epoch, confirmed)}

    def _is_certified(self, tallies: Tallies, digest: bytes) -> bool:
        return any(each == digest and self._enough(epoch, voted) for (epoch, _, each), (voted, _) in tallies.items())

    def _judge(self, tallies: Tallies, epoch: int, said: Statement, name: str) -> None:
        """Whether this word has made two of what there may be one."""
        slot, (voted, confirmed) = (
            f"slot {said.seq} of {base32(said.account)}",
            tallies[epoch, said.ballot, said.tx_digest],
        )
        for (then, ballot, digest), (others_voted, others_confirmed) in tallies.items():
            if digest == said.tx_digest:
                continue
            rivals = not said.confirms and (then, ballot) == (epoch, said.ballot)
            if rivals and self._enough(then, others_voted) and self._enough(epoch, voted):
                self._find(name, f"{slot} has two certificates at ballot {ballot}")
            if said.confirms and self._enough(then, others_confirmed) and self._enough(epoch, confirmed):
                self._find(name, f"{slot} has two final values")
