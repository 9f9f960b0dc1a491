"""One honest node of the whole level: its machine, its store, its clock, and the commit between deciding and telling.

A crash forgets a step that was not committed, or comes between the commit and what was to leave.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Call, Delete, Effect, Put, Record, Reply, Woke
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import AdminChanged, PeerUp
from offgrid_node.protocol.ids import node_id_bytes, unbase32
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.audit import accounts, sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.bootstrap import checked
from offgrid_node.protocol.ledger.checkpoints import Base, Checkpoint, heads_digest
from offgrid_node.protocol.ledger.commands import (
    AskCheckpoints,
    CreateTransfer,
    DeliverVouchers,
    EndEpoch,
    OrderCommittee,
    PushBlocks,
    SyncBlocks,
    UnlockSlot,
)
from offgrid_node.protocol.ledger.items import OrderItem
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.meeting import question_of
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.settings import KEEP_TXS, LedgerSettings
from offgrid_node.protocol.ledger.slots import Slot
from offgrid_node.protocol.ledger.snapshots import page_asked
from offgrid_node.protocol.ledger.sources import HoldTerms, Voucher
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    CHECKPOINTS,
    DISPUTES,
    EPOCH_KEY,
    LEARN_KEY,
    LOG,
    META,
    PLACES,
    SEALS,
    SLOTS,
    TXS,
    number_key,
)
from offgrid_node.protocol.ledger.words import words_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.judge import Broken
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.proposals import check_orders
from offgrid_tools.sim.engine import EPOCH_US, MS

if TYPE_CHECKING:
    from offgrid_tools.ledgersim.whole.world import World

DOWN_MS = (10, 3_000)
RESTORE_MS = 5_000
Ticket = Callable[[Message | Fault], None]

SETTLE_MS = 10_000  # vouchers are posted often here


class Node:
    """`skew_us` is what its wall clock is wrong by; `rate` how fast its monotonic clock goes, in thousandths."""

    def __init__(self, world: World, node_id: str) -> None:
        self.world, self.node_id = world, node_id
        self.store = MemoryStore()
        self.up, self.life = True, 0
        self.skew_us, self.rate = 0, 1_000
        self.keep_txs = KEEP_TXS
        self.admins = {world.genesis.issuer, world.deputy}  # as its directory has them
        self.answers: list[Message | Fault] = []
        self.unlocked = False
        self.restored = False
        self.may_mute = False  # what it had said is held by too few to be sure that it learns of it in time
        self.events: list[state_pb2.Event] = []
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._booted_us = 0
        self._wake_us = -1
        self.start()

    @property
    def machine(self) -> LedgerMachine:
        return self._machine

    def now(self) -> Now:
        now_us = self.world.engine.now_us
        return Now((now_us - self._booted_us) * self.rate // (1_000 * MS), EPOCH_US + now_us + self.skew_us)

    # ---- its lives

    def start(self) -> None:
        self.up, self._booted_us, self._wake_us = True, self.world.engine.now_us, -1
        self._machine = LedgerMachine(
            LedgerSettings(
                Key(self.node_id),
                SALT,
                settlement_interval_ms=self.world.settle_ms,
                epoch_ms=self.world.epoch_ms,
                keep_txs=self.keep_txs,
            )
        )
        self._machine.load(self.store, self.now())
        self._plan_wake()
        others = [name for name in self.world.names if name != self.node_id]
        up = [PeerUp(name, "", frozenset()) for name in others]
        self.world.after(1, self._mine(lambda: self.step([*self._told_of_admins(), *up])))

    def _told_of_admins(self) -> list[AdminChanged]:
        return [AdminChanged(name, name in self.admins) for name in (self.world.genesis.issuer, self.world.deputy)]

    def dismiss(self, admin: str) -> bool:
        """It hears that this one is no admin any more; whether that is durable."""
        self.admins.discard(admin)
        self.step(self._told_of_admins())
        return self.up

    def crash(self) -> None:
        self.up, self.life = False, self.life + 1
        self._tickets.clear()

    def restore(self, store: MemoryStore, *, knowing: bool) -> None:
        """Its disk is gone, and it goes on with an old copy, later than any call that was on its way; `knowing` that it
        does, it learns before it speaks."""
        self.crash()
        self.restored = True

        def come_back() -> None:
            self.store = store
            self.world.judge.met.restored += 1
            if knowing:
                store.commit(Batch(writes={(META, LEARN_KEY): b"\1"}))
            self.world.restored(self, knowing=knowing)
            self.start()

        self.world.after(RESTORE_MS, self._mine(come_back))

    def step(self, inputs: Sequence[object]) -> None:
        if not self.up:
            return
        world = self.world
        world.handled += len(inputs)
        effects = self._machine.step(inputs, self.now(), world.rng)
        if world.rng.random() < world.crash_odds:  # the step is lost
            self._die()
            return
        self._commit(effects)
        if world.rng.random() < world.crash_odds:  # durable, and nobody was told
            self._die()
            return
        self._tell(effects)
        self._plan_wake()

    def _die(self) -> None:
        self.world.judge.met.crashes += 1
        self.crash()
        self.world.after(self.world.rng.randrange(*DOWN_MS), self._mine(self.start))

    def _mine(self, action: Callable[[], object]) -> Callable[[], None]:
        """The action, in this life only."""
        life = self.life

        def mine() -> None:
            if life == self.life:
                action()

        return mine

    def _plan_wake(self) -> None:
        due_ms = self._machine.deadline_ms()
        if due_ms is None:
            return
        due_us = self._booted_us + -(-due_ms * MS * 1_000 // self.rate)
        if due_us != self._wake_us:
            self._wake_us = due_us
            self.world.engine.after(due_us - self.world.engine.now_us, self._mine(self._wake))

    def _wake(self) -> None:
        due_ms = self._machine.deadline_ms()
        if self.up and due_ms is not None and due_ms <= self.now().mono_ms:
            self.step([Woke()])

    # ---- effects

    def _commit(self, effects: Sequence[Effect]) -> None:
        batch, events, said = Batch(), list[state_pb2.Event](), list[ledger_pb2.TxRow]()
        own = list[ledger_pb2.Block]()
        for effect in effects:
            match effect:
                case Put(table, key, value):
                    batch.writes[table, key] = value
                    if table == LOG:
                        own += self._own(value)
                    elif table == TXS:
                        said.append(ledger_pb2.TxRow.FromString(value))
                case Delete(table, key):
                    batch.writes[table, key] = None
                case Record(event):
                    events.append(event)
        epoch = self.epoch
        if batch:
            self.store.commit(batch)
        self.events += events
        ended = [each for each in self.checkpoints() if each.epoch >= epoch] if self.epoch > epoch else []
        late = [block for block in own if ended and self.world.check(block).header.epoch > ended[-1].epoch]
        for block in own:
            if block not in late:
                if not self.restored:
                    check_orders(self._machine, self.world.check(block))
                self.world.durable(block)
        self._judge(events, said, ended[-1].epoch if ended else epoch, by_cut=bool(ended))
        for checkpoint in ended:
            self.world.engine.note(f"{self.node_id[:6]} ended", checkpoint.digest(SALT))
            accounts = self.accounts() if checkpoint is ended[-1] else None  # who begins anew takes in several at once
            self.world.judge.entered(node_id_bytes(self.node_id), checkpoint, accounts)
        for block in late:
            self.world.durable(block)

    def _judge(
        self, events: Sequence[state_pb2.Event], rows: Sequence[ledger_pb2.TxRow], epoch: int, *, by_cut: bool
    ) -> None:
        judge = self.world.judge
        final = [event.ledger for event in events if event.etype == EventType.TX_FINAL]
        for told in final:
            self.world.engine.note(f"{self.node_id[:6]} final", told.tx_id.encode())
            src, digest = node_id_bytes(told.src), unbase32(told.tx_id)
            judge.called_final(self.node_id, src, told.seq, digest, epoch, by_cut=by_cut)
        for row in rows:
            if row.state == ledger_pb2.TX_STATE_VOID:
                tx = Tx.decode(row.signed.body)
                judge.called_void(self.node_id, tx, tx.digest(SALT))
        if final and not sums(self.store).conserved:
            raise Broken(f"money is not conserved at {self.node_id}: {sums(self.store)}")

    def _own(self, raw: bytes) -> list[ledger_pb2.Block]:
        """The block, if it is of this node's."""
        block = ledger_pb2.Block.FromString(raw)
        return [block] if self.world.check(block).header.author_id == self.node_id else []

    def _tell(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Call():
                    self.world.carry(self.node_id, effect, self._on_end())
                case Reply(number, outcome):
                    self._tickets.pop(number, self.answers.append)(outcome)

    def _on_end(self) -> Callable[[Answered], None]:
        life = self.life

        def on_end(answered: Answered) -> None:
            if life == self.life:
                self.step([answered])

        return on_end

    # ---- what its handlers do

    def ask(self, command: object, done: Ticket | None = None, caller: str = "owner") -> None:
        if not self.up:
            return
        number = next(self._numbers)
        self._tickets[number] = done or self.answers.append
        self.step([Asked(number, caller, command)])

    def receive(self, sender: str, method: str, request: Message, done: Ticket) -> None:
        match request:
            case ledger_pb2.PushBlocksRequest():
                blocks = []
                for block in request.blocks:
                    try:
                        blocks.append(self.world.check(block))
                    except Fault as fault:
                        if node_id_bytes(sender) not in self.world.judge.liars:
                            raise Broken(f"an honest node passed on a bad block: {fault}") from fault
                self.ask(PushBlocks(sender, tuple(blocks), words=words_of(request)), done, sender)
            case ledger_pb2.SyncBlocksRequest():
                signed = request.ledger_genesis
                genesis = (signed, LedgerGenesis.decode(signed.body)) if signed.body else None
                yours = request.yours if request.HasField("yours") else None
                wanted, digest = tuple(request.wanted), request.genesis_digest
                question, link, epoch = question_of(request), request.link, request.epoch
                command = SyncBlocks(sender, question, yours, wanted, digest, genesis, link, epoch)
                self.ask(command, done, sender)

            case ledger_pb2.AskCheckpointsRequest():
                self.ask(AskCheckpoints(sender, request.first), done, sender)
            case ledger_pb2.PushCheckpointsRequest():
                root = self.world.genesis.digest(SALT)
                self.ask(checked(request, root, sender, SALT, lambda *claim: Key(claim[0]).sign(claim[1]) == claim[2]))
                done(ledger_pb2.PushCheckpointsResponse())
            case ledger_pb2.ListEpochAccountsRequest():
                try:
                    done(page_asked(self.store, request))
                except Fault as fault:
                    done(fault)
            case ledger_pb2.DeliverVouchersRequest():
                for said in request.vouchers:
                    voucher = Voucher(HoldTerms.decode(said.terms).account, said.amount_micro, said.count, said.root)
                    if Key(sender).sign(voucher.digest(SALT)) != said.signature:
                        raise Broken(f"{sender} delivered a voucher that it did not sign")
                vouchers = tuple((HoldTerms.decode(said.terms), said) for said in request.vouchers)
                self.ask(DeliverVouchers(vouchers, node_id_bytes(sender), tuple(request.asked)), done, sender)

    # ---- what its owner asks

    def transfer(self, to: str, amount: int, request_id: str = "", fee: int = 0) -> None:
        self.ask(CreateTransfer(((node_id_bytes(to), amount),), fee, b"", request_id))

    def unlock(self) -> None:
        """That whatever is under way ends."""
        self.unlocked = True
        self.world.judge.met.unlocks += 1
        self.ask(UnlockSlot())

    def end_epoch(self) -> None:
        self.ask(EndEpoch())

    def order(self, item: OrderItem) -> None:
        self.ask(OrderCommittee(item))

    # ---- questions

    @property
    def epoch(self) -> int:
        row = self.store.get(META, EPOCH_KEY)
        return ledger_pb2.EpochRow.FromString(row).number if row is not None else 0

    def checkpoints(self) -> list[Checkpoint]:
        rows = (ledger_pb2.CheckpointRow.FromString(row) for _, row in self.store.scan(CHECKPOINTS))
        return [Checkpoint.decode(row.body) for row in rows]

    def check_end(self, epoch: int) -> None:
        """What it keeps of an epoch's end: heads that come to the digest in it, and seals enough to show it."""
        row = ledger_pb2.CheckpointRow.FromString(self.store.get(CHECKPOINTS, number_key(epoch)) or b"")
        body = Checkpoint.decode(row.body)
        heads = (Base(head.author, head.height, head.digest, head.forked_at) for head in row.heads)
        if heads_digest(heads, SALT) != body.heads:
            raise Broken(f"{self.node_id} keeps other heads of the end of epoch {epoch} than it names")
        committee, sealed = self.world.judge.committee(epoch), 0
        for key, seal in self.store.scan(SEALS):
            if key.startswith(number_key(epoch)) and seal.startswith(body.digest(SALT)):
                sealed |= committee.bit_of(key[len(number_key(epoch)) :])
        if not committee.one_is_honest(sealed):
            raise Broken(f"{self.node_id} has too few seals of the end of epoch {epoch}")

    def accounts(self) -> dict[bytes, Account]:
        """Those that have or had anything."""
        rows = {name: Account.decode(row) for name, row in self.store.scan(ACCOUNTS)}
        return {name: account for name, account in rows.items() if not account.untouched}

    def torn(self) -> list[tuple[bytes, int]]:
        """Slots of two transactions, or that their owner wants to end, and whose turn it is: they must end."""
        torn = []
        for key, value in self.store.scan(SLOTS):
            slot, _ = Slot.decode(key, value)
            row = self.store.get(ACCOUNTS, slot.account)
            dispute = ledger_pb2.DisputeRow.FromString(self.store.get(DISPUTES, key) or b"")
            if (slot.doubled or dispute.unlocked) and row is not None and Account.decode(row).next_seq == slot.seq:
                torn.append((slot.account, slot.seq))
        return torn

    def holds(self, digest: bytes) -> bool:
        return self.store.get(PLACES, digest) is not None

    def blocks_of(self, author: bytes) -> list[CheckedBlock]:
        """What it holds of this author."""
        blocks = (self.world.check(ledger_pb2.Block.FromString(raw)) for _, raw in self.store.scan(LOG))
        return [block for block in blocks if block.header.author == author]

    def own_blocks(self) -> list[CheckedBlock]:
        return self.blocks_of(node_id_bytes(self.node_id))

    def balances(self) -> dict[str, tuple[int, int]]:
        return {node: (account.balance_micro, account.next_seq) for node, account in accounts(self.store)}
