"""How one epoch ends and the next begins.

    wish      a witness says once that it wants the epoch to end: an order has force; a witness of the epoch forked and
              the others weigh a quorum; the epoch has lasted as long as it should, and something has become final in
              it; nothing becomes final any more for want of room (room.py); or its owner asks for it. A wish binds
              nobody
    end       wishes of a quorum, or reports in the cut's slot of more than a third: this witness reports there, and
              from then on says nothing else in the epoch
    cut       the leader of a ballot proposes one (cuts.py); votes and confirms as in every slot (recovery.py)
    enter     confirms of a quorum at one ballot, the cut is here, and what is final here comes, by the cut, to the very
              root that it names: its targets end their slots, the fees are paid out, and the next epoch begins
    seal      who has witnessed signs that the checkpoint is final: a light receipt of it

A node waits for blocks where the root is another one yet; in the old epoch it says nothing more. Whatever is said in an
epoch that is over counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.cuts import Cuts, NotYet
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Cut, Fork, OrderItem, Report, Seal, Statement, Wish
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.orders import Orders
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.rewards import rewards
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import Slots
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, CUTS, SEALS, number_key
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness

LOOK_MS = 200  # at least, between two times that a cut which does not hold yet is looked at: that reads all accounts
LOOK_MAX_MS = 3_200  # each look at one cut doubles the time to the next, up to this
LED_MAX = 2  # cuts of one leader at one ballot that are looked at: an honest one proposes one
FULL_MS = 60_000  # so long a confirm waits for room while no slot becomes final, then the epoch is to end
LONGEST_MS = 600_000  # at most until the clock is asked again how long the epoch has lasted: clocks are set


class Turning:
    """`settle` does all that has become possible."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        epochs: Epochs,
        slot: CutSlot,
        accounts: Accounts,
        slots: Slots,
        transactions: Transactions,
        witness: Witness,
        voice: Voice,
        chains: Chains,
        keys: Keys,
    ) -> None:
        self._settings, self._draft, self._epochs, self._slot = settings, draft, epochs, slot
        self._accounts, self._witness, self._voice, self._chains = accounts, witness, voice, chains
        self.orders = Orders(settings.salt, draft, epochs, keys)
        self._cuts = Cuts(
            settings.salt, draft, epochs, self.orders, accounts, slots, transactions, witness.ballots, chains
        )
        self._held: set[bytes] = set()  # cuts that are here and fit, by their checkpoints' digests
        self._fresh: Cut | None = None  # proposed by this node in this step
        self._refused: dict[bytes, tuple[int, str]] = {}  # cut → until when it is not looked at again, and why
        self._looked: dict[bytes, int] = {}  # cut of another's → how long it was put off last
        self._waits = ""  # why this node has not entered the next epoch yet, though it is agreed on how this one ends
        self._sealed = False
        self._over_ms: int | None = None  # when to ask again whether the epoch has lasted long enough
        self._tried = -1  # how often accounts had changed when the root was worked out last

    def load(self) -> None:
        self.orders.load()
        self._held = {digest for digest, _ in self._draft.committed(CUTS, b"")}
        self._open()

    def _open(self) -> None:
        """At the start, and when an epoch is entered."""
        self._slot.open()
        self._looked = {}
        self._fresh, self._refused, self._waits, self._tried, self._over_ms = None, {}, "", -1, None
        self._sealed = not self._must_seal()

    # ---- questions

    @property
    def why_not(self) -> list[str]:
        """What an epoch's end waits for, one sentence each."""
        reasons = [why for _, why in self._refused.values()]
        return [f"epoch {self._epochs.number} does not end yet: {why}" for why in (self._waits, *reasons) if why]

    def deadline_ms(self) -> int | None:
        due = (self._slot.deadline_ms(), self._over_ms, *(at for at, _ in self._refused.values()))
        return min((at for at in due if at is not None), default=None)

    # ---- inputs

    def on_wish(self, bit: int) -> None:
        self._epochs.wish(bit)

    def on_order(self, item: OrderItem) -> None:
        self.orders.on_order(item)

    def on_cut(self, cut: Cut, bit: int) -> None:
        """From a witness of this epoch; others' count for nothing."""
        if not bit or not self._cuts.fits(cut):
            return
        digest = cut.checkpoint.digest(self._settings.salt)
        self._keep(digest, cut)
        self._slot.on_cut(digest)

    def on_seal(self, seal: Seal, author: bytes) -> None:
        """The first of each witness and epoch is kept; whether it is of the right checkpoint is asked of the row."""
        committee = self._epochs.committee_of(seal.epoch) if seal.epoch <= self._epochs.number else None
        key = number_key(seal.epoch) + author
        if committee is not None and committee.bit_of(author) and self._draft.get(SEALS, key) is None:
            self._draft.put_bytes(SEALS, key, seal.digest + seal.signature)

    def on_fork(self, fork: Fork) -> None:
        self._epochs.accuse(fork.first.header.author)

    def on_time(self, now: Now) -> None:
        self._slot.on_time(now.mono_ms)
        if self._over_ms is not None and self._over_ms <= now.mono_ms:
            self._over_ms = None  # asked again below, where it matters still
        for what in [what for what, (until_ms, _) in self._refused.items() if until_ms <= now.mono_ms]:
            del self._refused[what]

    # ---- commands

    def order(self, item: OrderItem) -> None:
        """Raises FailedPrecondition."""
        order, epochs = item.order, self._epochs
        if order.ledger != epochs.ledger:
            raise FailedPrecondition("the order is for another ledger", reason="OtherLedger")
        if not self.orders.is_admin(order.issuer):
            raise FailedPrecondition(f"{base32(order.issuer)} is no admin of the mesh", reason="NotAnAdmin")
        if order.epoch != epochs.number + 1:
            raise FailedPrecondition(
                f"the order is for epoch {order.epoch}; the next one is {epochs.number + 1}", reason="WrongEpoch"
            )
        if not self.orders.has_force(order):
            raise FailedPrecondition("its issuer's key was replaced since it was signed", reason="OldKey")
        if self.orders.on_order(item):
            self._voice.say(item)

    def end(self) -> None:
        """This node's owner wishes it. Raises FailedPrecondition."""
        if not self._epochs.own_bit:
            raise FailedPrecondition("this node is no witness of the epoch", reason="NotAWitness")
        self._wish()

    # ---- the end of a step

    def settle(self, now: Now) -> bool:
        """Whether another epoch has begun."""
        epochs = self._epochs
        if not self._sealed and self._voice.may_witness:
            self._seal(epochs.number - 1)
        if epochs.own_bit & ~epochs.wished and self._voice.free and self._wishes(now):
            self._wish()
        if epochs.wished and epochs.committee.enough(epochs.wished):
            self._slot.end_soon()
        if self._slot.dispute is None:
            return False
        if epochs.own_bit and self._voice.may_witness:
            while (word := self._next_word(now)) is not None:
                self._voice.say(word)
        return self._enter(now)

    def flush(self) -> None:
        self._slot.flush()
        self._epochs.flush()

    def trim(self) -> None:
        self._slot.trim()

    # ---- inside

    def _wishes(self, now: Now) -> bool:
        epochs = self._epochs
        if self.orders.best() is not None:
            return True
        if epochs.accused and epochs.committee.enough(epochs.committee.all & ~epochs.accused):
            return True
        left = list[int]()
        if epochs.moved:
            left.append((epochs.entered_us - now.utc_us) // 1_000 + self._settings.epoch_ms)
        if (since_ms := self._witness.room.since_ms) is not None:
            left.append(since_ms + FULL_MS - now.mono_ms)
        left_ms = min(left, default=LONGEST_MS)
        self._over_ms = now.mono_ms + min(left_ms, LONGEST_MS) if left and left_ms > 0 else None
        return left_ms <= 0

    def _wish(self) -> None:
        if self._epochs.own_bit & ~self._epochs.wished:
            self._epochs.wish(self._epochs.own_bit)
            self._voice.say(Wish())

    def _next_word(self, now: Now) -> Statement | Report | None:
        self._fresh = None
        word = self._slot.next_word(self._holds, lambda ballot: self._free(ballot, now), now.mono_ms)
        cut = self._fresh
        if isinstance(word, Statement) and cut is not None:
            digest = cut.checkpoint.digest(self._settings.salt)
            if digest == word.tx_digest and digest not in self._held:
                self._keep(digest, cut)
                self._voice.say(cut)
        return word

    def _holds(self, digest: bytes) -> bool:
        """Whether the epoch could end with it: it is here, and fits."""
        if self._fresh is not None and self._fresh.checkpoint.digest(self._settings.salt) == digest:
            return True
        return digest in self._held

    def _keep(self, digest: bytes, cut: Cut) -> None:
        self._held.add(digest)
        self._draft.put_bytes(CUTS, digest, cut.encode())

    def _free(self, ballot: int, now: Now) -> Sequence[bytes]:
        """What may be voted for at a ballot whose reports name no certificate: whatever its leader has proposed, if it
        holds; and this node, where it leads, proposes one."""
        epochs = self._epochs
        leader = epochs.committee.leader_of(epochs.cut, 0, ballot)
        if leader == epochs.own_bit:
            return self._proposed(now)
        return [
            digest for digest in self._slot.votes_of(leader, ballot)[:LED_MAX] if self._is_good(digest, ballot, now)
        ]

    def _proposed(self, now: Now) -> Sequence[bytes]:
        if self._is_put_off(b""):
            return ()
        try:
            self._fresh = cut = self._cuts.propose(now)
        except NotYet as why:
            self._put_off(b"", str(why), now)
            return ()
        return (cut.checkpoint.digest(self._settings.salt),)

    def _is_good(self, digest: bytes, ballot: int, now: Now) -> bool:
        if self._is_put_off(digest) or (cut := self._cuts.held(digest)) is None:
            return False
        try:
            self._cuts.check_order(cut.checkpoint, ballot)
            self._cuts.check(cut)
        except NotYet as why:
            self._looked[digest] = for_ms = min(2 * self._looked.get(digest, LOOK_MS // 2), LOOK_MAX_MS)
            self._put_off(digest, str(why), now, for_ms)
            return False
        return True

    def _is_put_off(self, what: bytes) -> bool:
        return what in self._refused

    def _put_off(self, what: bytes, why: str, now: Now, for_ms: int = LOOK_MS) -> None:
        self._refused[what] = now.mono_ms + for_ms, why

    # ---- the next epoch

    def _enter(self, now: Now) -> bool:
        digest = next(iter(self._slot.confirmed()), None)
        cut = self._cuts.held(digest) if digest is not None else None
        if digest is None or cut is None or self._tried == self._accounts.changes:
            return False
        try:
            outcome = self._cuts.outcome(cut.targets, self._epochs.witnesses)
        except NotYet as why:
            self._waits = str(why)  # a transaction that is missing changes no account: it is looked at again
            return False
        if (outcome.root, outcome.fees_micro) != (cut.checkpoint.accounts, cut.checkpoint.fees_micro):
            self._waits, self._tried = "accounts come to something else here", self._accounts.changes
            return False
        self._turn(cut, now)
        return True

    def _turn(self, cut: Cut, now: Now) -> None:
        """All that changes from one epoch to the next, in one batch."""
        body, epochs = cut.checkpoint, self._epochs
        for target in cut.targets:
            for _, digest in self._cuts.rest(target):
                self._witness.end_by_cut(target.account, digest, now)
        shares, _ = rewards(body.fees_micro, epochs.witnesses)
        for node, amount in shares.items():
            if amount:
                self._accounts.credit(node_id_bytes(node), amount)
        row = ledger_pb2.CheckpointRow(body=body.encode(), final_us=now.utc_us)
        for head in self._cuts.merged(cut):
            row.heads.add(author=head.author, height=head.height, digest=head.digest, forked_at=head.forked_at)
        for digest in sorted(self._held):
            self._draft.delete(CUTS, digest)
        self._held.clear()
        self._slot.close()
        self._draft.put(CHECKPOINTS, number_key(body.epoch), row)
        if self._voice.may_witness and epochs.own_bit:
            self._seal(body.epoch)
        epochs.enter(body, now)
        self.orders.enter()
        self._witness.enter()
        self._voice.enter()
        self._chains.enter()
        self._open()

    def _must_seal(self) -> bool:
        """Whether this node has witnessed the epoch before and not sealed what it ended with."""
        last = self._epochs.number - 1
        committee = self._epochs.committee_of(last) if last >= 0 else None
        own = self._settings.account
        unsealed = self._draft.get(SEALS, number_key(last) + own) is None if last >= 0 else False
        return unsealed and committee is not None and committee.bit_of(own) > 0

    def _seal(self, epoch: int) -> None:
        last, salt = self._epochs.checkpoint(epoch), self._settings.salt
        if last is not None:
            digest = last.digest(salt)
            final = Final(self._epochs.ledger, self._epochs.cut_of(epoch), 0, digest, epoch)
            seal = Seal(epoch, digest, self._settings.signer.sign(final.digest(salt)))
            self._draft.put_bytes(SEALS, number_key(epoch) + self._settings.account, digest + seal.signature)
            self._voice.say(seal)
        self._sealed = True
