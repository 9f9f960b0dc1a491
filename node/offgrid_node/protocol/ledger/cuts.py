"""What an epoch could end with: how a leader makes a cut, and what a witness asks of one before it votes for it.

A cut takes in everything that is final here, and of open slots whatever has a certificate, account by account as far as
the chain goes. So a checkpoint is no vote on money: each transaction in it had its quorum. Why nothing final is lost: a
quorum confirmed it, each before its first word in the cut's slot; a quorum voted for the cut, each after that. They
share an honest witness, which voted for no cut but one that covers all that it has confirmed, by the same digest or by
one certified at a higher ballot, which is the same digest then (README.md, 2).

What does not hold yet may hold later, for blocks are on their way: a reason is given, and it is asked again.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.ballots import Ballots, bits_of
from offgrid_node.protocol.ledger.blocks import BLOCK_BYTES_MAX
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.checkpoints import (
    NO_ORDER,
    TARGET_SLOTS_MAX,
    Base,
    Checkpoint,
    Target,
    Witnesses,
    accounts_root,
    heads_digest,
    targets_digest,
)
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Cut, decode_cut
from offgrid_node.protocol.ledger.orders import Orders
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.rewards import rewards
from offgrid_node.protocol.ledger.slots import Slot, Slots
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, CUTS, FORKS, number_key
from offgrid_node.protocol.ledger.transactions import Transactions

CUT_BYTES_MAX = BLOCK_BYTES_MAX - 16 * 1024  # what is said in the same step has room beside it
TARGET_BYTES_MAX = CUT_BYTES_MAX * 3 // 4
COUNT_MAX = 2**16 - 1
_HEAD_BYTES = len(Target(bytes(20), 0, ()).encode())
SIGN = 0x80  # in the first byte of an account's row


def share_of(committee: Committee) -> int:
    """In how many slots that are not final one witness may have confirmed: a cut has room for those of all."""
    return TARGET_BYTES_MAX // (_HEAD_BYTES + DIGEST_BYTES) // max(1, committee.all.bit_count())


class NotYet(Exception):
    """Why a cut does not hold here, as far as this node knows."""


class Outcome(msgspec.Struct, frozen=True):
    """What all accounts come to by a cut, rewards included; `fees_micro` are those of which they are paid."""

    fees_micro: int
    root: bytes
    count: int
    overdrawn: bytes | None  # an account below zero


class Cuts:
    """Makes them, checks them, works out what they come to."""

    def __init__(
        self,
        salt: bytes,
        draft: Draft,
        epochs: Epochs,
        orders: Orders,
        accounts: Accounts,
        slots: Slots,
        transactions: Transactions,
        ballots: Ballots,
        chains: Chains,
    ) -> None:
        self._salt, self._draft, self._epochs, self._orders = salt, draft, epochs, orders
        self._accounts, self._slots, self._transactions = accounts, slots, transactions
        self._ballots, self._chains = ballots, chains

    # ---- questions

    def fits(self, cut: Cut) -> bool:
        """Whether it is of this ledger's epoch, which alone makes it one that the epoch may end with."""
        body, epochs = cut.checkpoint, self._epochs
        return (body.ledger, body.epoch, body.previous) == (epochs.ledger, epochs.number, epochs.previous)

    def held(self, digest: bytes) -> Cut | None:
        """By its checkpoint's digest, if it is here."""
        row = self._draft.get(CUTS, digest)
        return decode_cut(row, self._salt) if row is not None else None

    def bases(self) -> dict[bytes, Base]:
        """Of the checkpoint before this epoch."""
        if not self._epochs.number:
            return {}
        row = self._draft.row(CHECKPOINTS, number_key(self._epochs.number - 1), ledger_pb2.CheckpointRow)
        heads = row.heads if row is not None else ()
        return {head.author: Base(head.author, head.height, head.digest, head.forked_at) for head in heads}

    def merged(self, cut: Cut) -> list[Base]:
        """The heads of all authors, in their order."""
        bases = self.bases() | {head.author: head for head in cut.heads}
        return [bases[author] for author in sorted(bases)]

    def outcome(self, targets: Sequence[Target], witnesses: Witnesses) -> Outcome:
        """What comes of it, if all that it needs is here. Raises NotYet."""
        changed: dict[bytes, Account] = {}
        fees = self._accounts.totals.fees_micro

        def account(name: bytes) -> Account:
            if name not in changed:
                changed[name] = replace(self._accounts.get(name))
            return changed[name]

        for target in targets:
            src = account(target.account)
            for seq, digest in self.rest(target):
                if digest == self._ballots.noop(Slot(target.account, seq)):
                    src.next_seq, src.head = seq + 1, digest
                    continue
                known = self._transactions.of_slot(target.account, seq, digest)
                if known is None or known.item.tx.prev != src.head:
                    raise NotYet(f"what ends slot {seq} of {base32(target.account)} is not here")
                tx = known.item.tx
                src.balance_micro -= tx.total_micro
                src.next_seq, src.head = seq + 1, digest
                for name, amount in tx.outputs:
                    account(name).balance_micro += amount
                fees += tx.fee_micro
        shares, _ = rewards(fees, witnesses)
        for node, amount in shares.items():
            if amount:
                account(node_id_bytes(node)).balance_micro += amount
        rows = self._accounts.rows(changed)
        overdrawn = next((name for name, row in rows.items() if row[0] & SIGN), None)
        leaves = [name + rows[name] for name in sorted(rows)]
        return Outcome(fees, accounts_root(leaves, self._salt), len(rows), overdrawn)

    def rest(self, target: Target) -> list[tuple[int, bytes]]:
        """The slots of a target that are not final here. Raises NotYet where it does not begin or end there."""
        account, name = self._accounts.get(target.account), base32(target.account)
        done = account.next_seq - target.seq
        if done < 0:
            raise NotYet(f"slot {account.next_seq} of {name} is not final here yet")
        if done > len(target.digests):
            raise NotYet(f"slot {account.next_seq - 1} of {name} is final here and not in it")
        return [(target.seq + place, target.digests[place]) for place in range(done, len(target.digests))]

    def check_order(self, body: Checkpoint, ballot: int) -> None:
        """A lying leader may not leave an order out. But whether an order has force each node knows for itself, so that
        is asked while an honest leader's turn may be yet to come, and no longer. Raises NotYet."""
        best = self._orders.best()
        patient = ballot <= self._epochs.committee.faults_survived + 1
        if best is not None and patient and body.order != best.digest:
            raise NotYet(f"the newest order that has force here is not what it names, and the ballot is {ballot}")

    def check(self, cut: Cut) -> Outcome:
        """Of a cut that fits: what this witness may vote for comes to this. Raises NotYet."""
        body = cut.checkpoint
        self._check_witnesses(body)
        self._check_heads(cut)
        covered = {target.account: target for target in cut.targets}
        for target in cut.targets:
            rest = self.rest(target)
            self._check_ended(target, len(target.digests) - len(rest))
            for seq, digest in rest:
                self._check_certified(target.account, seq, digest)
        for slot in self._slots.open_ones():
            if self._ballots.confirmed(slot):
                self._check_covered(slot, covered.get(slot.account))
        outcome = self.outcome(cut.targets, self._epochs.witnesses)
        if outcome.overdrawn is not None:
            raise NotYet(f"{base32(outcome.overdrawn)} would be below zero")
        supply = self._accounts.totals.supply_micro
        if (body.accounts, body.count, body.fees_micro, body.supply_micro) != (
            outcome.root, outcome.count, outcome.fees_micro, supply,
        ):  # fmt: skip
            raise NotYet("accounts come to something else here")
        return outcome

    # ---- a cut of this node's

    def propose(self, now: Now) -> Cut:
        """What this node would end the epoch with. Raises NotYet."""
        epochs, targets = self._epochs, self._targets()
        outcome = self.outcome(targets, epochs.witnesses)
        if outcome.overdrawn is not None:
            raise NotYet(f"{base32(outcome.overdrawn)} would be below zero")
        room = CUT_BYTES_MAX - sum(len(target.encode()) for target in targets)
        order = self._orders.best()
        witnesses = order.order.witnesses if order is not None else self._without_liars()
        blank = Checkpoint(
            epochs.ledger, epochs.number, epochs.previous, outcome.root, outcome.count,
            self._accounts.totals.supply_micro, outcome.fees_micro, bytes(32), targets_digest(targets, self._salt),
            order.digest if order is not None else NO_ORDER, witnesses, max(0, now.utc_us),
        )  # fmt: skip
        cut = Cut(blank, tuple(targets), tuple(self._heads(room)))
        return replace(cut, checkpoint=replace(blank, heads=heads_digest(self.merged(cut), self._salt)))

    # ---- inside

    def _targets(self) -> list[Target]:
        """Of each account the slots from its next one on that have a certificate, as many as there is room for: what
        witnesses have confirmed before what none has, which may get its votes anew in the next epoch. Of each witness
        no more than an honest one has confirmed, so there is room for those of all."""
        bound, share = dict[bytes, int](), share_of(self._epochs.committee)
        taken = Counter[int]()
        slots = sorted(self._slots.open_ones(), key=lambda slot: (slot.account, slot.seq))
        for slot in slots:
            within = [bit for bit in bits_of(self._ballots.confirmers(slot)) if taken[bit] < share]
            if within:
                taken.update(within)
                bound[slot.account] = slot.seq + 1 - self._accounts.get(slot.account).next_seq
        found = {name: self._certified(name) for name in dict.fromkeys(slot.account for slot in slots)}
        chosen, room = dict[bytes, int](), TARGET_BYTES_MAX
        for most in (bound, {name: len(digests) for name, digests in found.items()}):
            for name, digests in found.items():
                before = chosen.get(name, 0)
                fitting = room // DIGEST_BYTES if before else (room - _HEAD_BYTES) // DIGEST_BYTES
                more = min(len(digests), most.get(name, 0)) - before
                if (more := min(more, fitting)) > 0:
                    chosen[name] = before + more
                    room -= more * DIGEST_BYTES + (0 if before else _HEAD_BYTES)
        return [
            Target(name, self._accounts.get(name).next_seq, tuple(found[name][: chosen[name]]))
            for name in sorted(chosen)
        ]

    def _certified(self, name: bytes) -> list[bytes]:
        """What an account's slots from its next one on could end with, as far as they have a certificate."""
        account, digests = self._accounts.get(name), list[bytes]()
        head = account.head
        while len(digests) < TARGET_SLOTS_MAX:
            slot = self._slots.get(name, account.next_seq + len(digests))
            digest = self._next(slot, head) if slot is not None else None
            if digest is None:
                break
            digests.append(digest)
            head = digest
        return digests

    def _next(self, slot: Slot, head: bytes) -> bytes | None:
        """What a quorum has voted for in this slot, at the highest ballot, if it follows that and is here."""
        for _, digest in self._ballots.certificates(slot):
            known = self._transactions.of_slot(slot.account, slot.seq, digest)
            if digest == self._ballots.noop(slot) or (known is not None and known.item.tx.prev == head):
                return digest
        return None

    def _heads(self, room: int) -> list[Base]:
        """Of authors who have come farther than the checkpoint before says, as many as there is room for: in each epoch
        others come first."""
        bases, heads, names = self.bases(), list[Base](), sorted(self._chains.authors)
        first = bisect(names, self._epochs.cut)
        for name in (*names[first:], *names[:first]):
            base, head = bases.get(name), self._chains.base_of(name)
            if head != base and (base is None or head.height >= base.height):
                heads.append(head)
        most = min(room // len(Base(bytes(20), 0, bytes(32)).encode()), COUNT_MAX)
        return sorted(heads[:most], key=lambda head: head.author)

    def _without_liars(self) -> Witnesses:
        """This epoch's witnesses but those who forked, where the rest weighs a quorum."""
        committee = self._epochs.committee
        accused = {*committee.nodes_of(self._epochs.accused)}
        if not committee.enough(committee.all & ~self._epochs.accused):
            return self._epochs.witnesses
        return tuple((node, weight) for node, weight in self._epochs.witnesses if node not in accused)

    def _check_witnesses(self, body: Checkpoint) -> None:
        if body.order != NO_ORDER:
            ordered = self._orders.in_force(body.order)
            if ordered is None or ordered.witnesses != body.witnesses:
                raise NotYet("the order that it names is not in force here, or names other witnesses")
            return
        committee, kept = self._epochs.committee, {*body.witnesses}
        gone = [(node, weight) for node, weight in self._epochs.witnesses if (node, weight) not in kept]
        rest = tuple(each for each in self._epochs.witnesses if each in kept)
        if rest != body.witnesses:
            raise NotYet("it adds witnesses, or weighs them otherwise, and nobody has ordered that")
        for node, _ in gone:
            if self._draft.get(FORKS, node_id_bytes(node)) is None:
                raise NotYet(f"it leaves out {node}, against whom nothing is known here")
        if not committee.enough(sum(committee.bit_of(node_id_bytes(node)) for node, _ in rest)):
            raise NotYet("the witnesses that stay do not weigh a quorum")

    def _check_heads(self, cut: Cut) -> None:
        bases = self.bases()
        for head in cut.heads:
            name, base = base32(head.author), bases.get(head.author)
            if base is not None and head.height < base.height:
                raise NotYet(f"{name} was at height {base.height} before, not {head.height}")
            if head != base and not self._chains.has_base(head):
                raise NotYet(f"block {head.height} of {name} is not here")
        if heads_digest(self.merged(cut), self._salt) != cut.checkpoint.heads:
            raise NotYet("its heads are not those that it was signed with")

    def _check_ended(self, target: Target, done: int) -> None:
        """So many of its slots are final here: the last of them ended with what it says."""
        if done and target.digests[done - 1] != self._accounts.get(target.account).head:
            raise NotYet(f"slot {target.seq + done - 1} of {base32(target.account)} has ended otherwise here")

    def _check_certified(self, account: bytes, seq: int, digest: bytes) -> None:
        """A quorum of votes for it is here, or this witness has confirmed it, at a ballot as high as any at which this
        witness has confirmed something else."""
        slot = self._slots.get(account, seq)
        confirmed = self._ballots.confirmed(slot) if slot is not None else []
        known = [*(self._ballots.certificates(slot) if slot is not None else ()), *confirmed]
        at = max((ballot for ballot, each in known if each == digest), default=-1)
        if at < 0 or any(ballot > at and each != digest for ballot, each in confirmed):
            raise NotYet(f"no quorum is seen here to have voted for what ends slot {seq} of {base32(account)}")

    def _check_covered(self, slot: Slot, target: Target | None) -> None:
        """This witness has confirmed there: the cut must say how the slot ends. With what, `_check_certified` asks."""
        first, last = (target.seq, target.seq + len(target.digests)) if target is not None else (0, 0)
        if not first <= slot.seq < last:
            raise NotYet(f"slot {slot.seq} of {base32(slot.account)} is confirmed here and not in it")
