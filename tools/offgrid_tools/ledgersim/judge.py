"""What must hold of every ledger after every step, counted apart from the code that is judged.

The judge sees everything that leaves a node, as an adversary would who collects it all, and all that nodes call final.
It keeps books of its own: each slot's value is booked once, when the first honest node calls it final, so an overdraft
shows at that very step whatever the order in which others learn of it; and an epoch's end when the first one enters the
next, against which all that is ever said or called final of the epoch is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import NO_ORDER, Checkpoint, accounts_root, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Double, Item, OrderItem, Report, Seal, Statement, TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx, noop_digest
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.met import Met
from offgrid_tools.ledgersim.voting import NO_CERTIFICATE, Broken, Certificate, Place, Voting

__all__ = ["NO_CERTIFICATE", "Broken", "Judge", "Place"]


class Judge:
    """Authors, accounts and liars are 20 bytes each."""

    def __init__(self, genesis: LedgerGenesis) -> None:
        self.balances = {node_id_bytes(node): amount for node, amount in genesis.balances}
        self.fees_micro, self._fee_micro = 0, genesis.fee_micro
        self.met = Met()
        self.liars: set[bytes] = set()
        self.admins: set[bytes] = set()
        self.forked: set[bytes] = set()  # authors of two blocks at one height
        self.final: dict[Place, bytes] = {}
        self.disputed: set[Place] = set()  # somebody reported there
        self.shown: set[Place] = set()  # that these were torn somebody has shown to all
        self.checkpoints: list[Checkpoint] = []  # of the epochs that are over
        self._ledger, self._supply_micro = genesis.digest(SALT), genesis.supply_micro
        self._votings = [self._voting(genesis.witnesses, 0)]
        self._early: list[tuple[bytes, int, Statement | Report]] = []  # said in epochs that have not come
        self._orders: dict[bytes, OrderItem] = {}
        self._given: set[bytes] = set()  # orders of former admins, of when they were admins
        self._ends: list[dict[bytes, int]] = []  # of each epoch that is over: account → the next slot after it
        self._standing: dict[bytes, int] = {}  # author → the epoch that it has entered
        self._next: dict[bytes, int] = {}
        self._txs: dict[bytes, Tx] = {}
        self._signed: dict[Place, bytes] = {}  # first in that slot, by honest owners nothing else
        self._torn: set[Place] = set()

    # ---- inputs

    def said(self, author: bytes, items: Iterable[Item], epoch: int = 0) -> None:
        """These are durable at their author, or have left a liar, in a block of that epoch. Each once."""
        for item in items:
            match item:
                case Statement() | Report():
                    self._on_word(author, epoch, item)
                case TxItem():
                    self._on_tx(item)
                case Double(first, second):
                    self.shown.add((first.tx.src, first.tx.seq))
                    self._on_tx(first)
                    self._on_tx(second)
                case OrderItem():
                    self._orders[item.digest] = item
                case Seal():
                    self._on_seal(author, item)

    def forgive(self, author: bytes) -> None:
        """This witness came back from an old disk: nothing binds it but what `bind` says."""
        for voting in self._votings:
            voting.forgive(author)
        self._standing.pop(author, None)
        self._signed = {
            place: digest for place, digest in self._signed.items() if self._txs[digest].source.signer != author
        }

    def bind(self, author: bytes, items: Iterable[Item], epoch: int = 0) -> None:
        """A witness that came back is told of what it had said, or will be before it speaks."""
        for item in items:
            if isinstance(item, Statement | Report) and epoch < len(self._votings):
                self._votings[epoch].bind(author, item)

    def dismiss(self, admin: bytes) -> None:
        """All honest nodes know by now that this is no admin any more: what it orders from now on nobody obeys."""
        self.admins.discard(admin)
        self._given.update(digest for digest, item in self._orders.items() if item.order.issuer == admin)
        self.met.dismissed += 1

    def called_final(
        self, node: str, src: bytes, seq: int, digest: bytes, epoch: int = 0, *, by_cut: bool = False
    ) -> None:
        """By an honest node that stands in this epoch; durable there. `by_cut`: in the step that ends the epoch."""
        place = src, seq
        known = self.final.get(place)
        if epoch < len(self._ends) and seq >= self._ends[epoch].get(src, 0):
            raise Broken(f"{node} called final in slot {seq} of {base32(src)} what epoch {epoch} did not end with")
        if known is not None:
            if known != digest:
                raise Broken(f"two final values in slot {seq} of {base32(src)}, the second one at {node}")
            return
        self.final[place] = digest
        self._check_confirmed(node, place, digest, self._votings[epoch], by_cut=by_cut)
        self._book(node, place, digest)

    def called_void(self, node: str, tx: Tx, digest: bytes) -> None:
        if self.final.get((tx.src, tx.seq)) in (None, digest):
            raise Broken(f"{node} called void, and nothing else is final in slot {tx.seq} of {base32(tx.src)}")

    def entered(self, author: bytes, body: Checkpoint, accounts: Mapping[bytes, Account] | None) -> None:
        """An honest node has ended an epoch with this, durably; its accounts then, if it was the last of several."""
        self._standing[author] = body.epoch + 1
        rows = [name + accounts[name].encode() for name in sorted(accounts)] if accounts is not None else []
        if accounts is not None and (body.accounts, body.count) != (accounts_root(rows, SALT), len(rows)):
            raise Broken(f"{base32(author)} ended epoch {body.epoch} with other accounts than its checkpoint says")
        if body.epoch < len(self.checkpoints):
            if self.checkpoints[body.epoch] != body:
                raise Broken(f"epoch {body.epoch} has two ends, the second one at {base32(author)}")
            return
        if body.epoch != len(self.checkpoints) or accounts is None:
            raise Broken(f"{base32(author)} ended epoch {body.epoch}, and the one before has no end")
        self._check_end(author, body, self._votings[-1])
        if (body.supply_micro, body.fees_micro) != (self._supply_micro, self.fees_micro):
            raise Broken(f"{base32(author)} ended epoch {body.epoch} with other fees than there are to pay out")
        self._pay_out(self._votings[-1].witnesses)
        self._check_accounts(author, body, accounts)
        self.checkpoints.append(body)
        self._ends.append({name: each.next_seq for name, each in accounts.items()})
        self._votings.append(self._voting(body.witnesses, body.epoch + 1))
        self.met.epochs += 1
        self.met.evicted += body.order == NO_ORDER and bool(self._left_out(body))
        self.met.ordered += body.order != NO_ORDER
        early, self._early = self._early, []
        for who, epoch, item in early:
            self._on_word(who, epoch, item)

    # ---- questions

    def certified(self, place: Place) -> list[Certificate]:
        """What a quorum has voted for there in the newest epoch, though no node may know it yet."""
        return self._votings[-1].certified(place)

    def ballot_of_the_end(self, epoch: int) -> int:
        return self._votings[epoch].ballot_of_the_end

    def awaited_at_the_end(self, epoch: int, leader: bytes) -> int:
        """The ballot at which honest witnesses wait for what this one would end the epoch with, and with the liars'
        word have the reports that allow it; 0: none."""
        voting, committee = self._votings[epoch], self.committee(epoch)
        ballot = voting.ballot_of_the_end
        if not ballot or committee.leader_of(voting.cut, 0, ballot) != committee.bit_of(leader):
            return 0
        reported = voting.reported_the_end
        for liar in self.liars:
            reported |= committee.bit_of(liar)
        return ballot if committee.enough(reported) else 0

    def committee(self, epoch: int) -> Committee:
        return Committee(self._votings[epoch].witnesses, epoch)

    # ---- inside

    def _voting(self, witnesses: tuple[tuple[str, int], ...], epoch: int) -> Voting:
        return Voting(witnesses, cut_account(self._ledger, epoch, SALT), self.liars, self.met)

    def _on_word(self, author: bytes, epoch: int, item: Statement | Report) -> None:
        if author not in self.liars and epoch < self._standing.get(author, 0):
            raise Broken(f"{base32(author)} speaks in epoch {epoch}, which is over for it")
        if epoch >= len(self._votings):
            if author not in self.liars:
                raise Broken(f"{base32(author)} speaks in epoch {epoch}, which nobody has entered")
            self._early.append((author, epoch, item))
            return
        voting = self._votings[epoch]
        voting.said(author, item)
        if isinstance(item, Report) and item.account != voting.cut:
            self.disputed.add((item.account, item.seq))

    def _on_seal(self, author: bytes, seal: Seal) -> None:
        if author in self.liars:
            return
        voting = self._votings[seal.epoch] if seal.epoch < len(self._votings) else None
        if voting is None or voting.decided.get((voting.cut, 0), (0, b""))[1] != seal.digest:
            raise Broken(f"{base32(author)} seals an end of epoch {seal.epoch} that no quorum has confirmed")

    # ---- the end of an epoch

    def _check_end(self, author: bytes, body: Checkpoint, voting: Voting) -> None:
        what = f"{base32(author)} ended epoch {body.epoch}"
        previous = self.checkpoints[-1].digest(SALT) if self.checkpoints else self._ledger
        if (body.ledger, body.previous) != (self._ledger, previous):
            raise Broken(f"{what} of another ledger, or behind another end")
        if not voting.confirmed((voting.cut, 0), body.digest(SALT)):
            raise Broken(f"{what} with what no quorum has confirmed")
        for (account, seq), (_, digest) in voting.decided.items():
            if account != voting.cut and self.final.get((account, seq)) != digest:
                raise Broken(f"{what} without slot {seq} of {base32(account)}, which is final")
        if body.order != NO_ORDER:
            item = self._orders.get(body.order)
            given = item is not None and (item.order.issuer in self.admins or item.digest in self._given)
            if item is None or not given or item.order.witnesses != body.witnesses:
                raise Broken(f"{what} by an order that no admin has given")
        elif [each for each in voting.witnesses if each in body.witnesses] != [*body.witnesses]:
            raise Broken(f"{what} with witnesses whom nobody has ordered")
        elif not self._left_out(body) <= self.forked:
            raise Broken(f"{what} without a witness that has never forked")

    def _left_out(self, body: Checkpoint) -> set[bytes]:
        """Who witnessed that epoch and does not witness the next one."""
        before = {node_id_bytes(node) for node, _ in self._votings[body.epoch].witnesses}
        return before - {node_id_bytes(node) for node, _ in body.witnesses}

    def _pay_out(self, witnesses: tuple[tuple[str, int], ...]) -> None:
        """The fees, by weight; what cannot be shared out stays."""
        fees, total = self.fees_micro, sum(weight for _, weight in witnesses)
        for node, weight in witnesses:
            share = fees * weight // total
            self.balances[node_id_bytes(node)] = self.balances.get(node_id_bytes(node), 0) + share
            self.fees_micro -= share

    def _check_accounts(self, author: bytes, body: Checkpoint, accounts: Mapping[bytes, Account]) -> None:
        what = f"epoch {body.epoch} ended at {base32(author)}"
        for name, each in accounts.items():
            if each.balance_micro != self.balances.get(name, 0) or each.next_seq != self._next.get(name, 0):
                raise Broken(f"{what} with an account of {base32(name)} that what is final does not come to")
        if any(self._next[name] and name not in accounts for name in self._next):
            raise Broken(f"{what} without an account that has spent")

    # ---- money

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

    def _check_confirmed(self, node: str, place: Place, digest: bytes, voting: Voting, *, by_cut: bool) -> None:
        cut = by_cut and any(what == digest for _, what in voting.certified(place))
        if not cut and not voting.confirmed(place, digest):
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
