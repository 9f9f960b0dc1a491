"""One honest witness of the slots' level: the project's rules over rows of its own, with a group commit between what it
decides and what it tells.

What comes in while a step is being synced waits for the next one, as in the one writer's inbox (runtime.py). A crash
forgets a step that was not committed, or comes between the commit and what was to leave; rows are all that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Delete, Effect, Put, Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Accounts, Totals
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.disputes import Dispute
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem, Unlock, decode_item
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import Tx, noop_digest, tx_id_of
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import Slots
from offgrid_node.protocol.ledger.tables import ACCOUNTS, DISPUTES, EVIDENCE, META, TOTALS_KEY, TXS, slot_key
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.judge import Broken, Place
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.sim.engine import EPOCH_US, MS

if TYPE_CHECKING:
    from offgrid_tools.ledgersim.slots.world import World

DOWN_MS = (10, 3_000)
SYNC_MS, SYNC_MESSAGES = 500, 64  # how often a node compares what it holds with another, and how much it offers then


class Message(NamedTuple):
    """One statement, transaction or piece of evidence, as its author signed it."""

    number: int
    author: bytes
    item: Item


class Node:
    """`rate` is how fast its clock goes, in thousandths."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.own = world, name, node_id_bytes(name)
        self.tag = name[:6]
        self.store = MemoryStore()
        self.up, self.life, self.rate = True, 0, 1_000
        self._round = 0  # of what it does again and again
        self.log: list[Message] = []  # what it has taken in, and what it has said
        self.taken: set[int] = set()
        self._offered: dict[str, int] = {}  # of the log, what another surely holds
        self._inbox: list[Message] = []
        self._waits = False
        self._booted_us = 0
        self._wake_us = -1
        self._sum_micro = self._fees_micro = 0
        self._boot(first=True)

    # ---- its lives

    def start(self) -> None:
        self.up = True
        self._boot(first=False)

    def _boot(self, *, first: bool) -> None:
        world, genesis = self.world, self.world.genesis
        self._booted_us, self._wake_us, self._waits = world.engine.now_us, -1, False
        now = self.now()
        self._now: Now | None = None
        self._draft = draft = Draft()
        draft.load(self.store)
        settings = LedgerSettings(Key(self.name), SALT)
        self._voice = Voice(draft)
        self._accounts = Accounts(draft)
        self._slots = Slots(draft)
        self._transactions = Transactions(draft, self._accounts)
        keys = Keys(draft)
        epochs = Epochs(self.own, SALT, draft)
        cut = CutSlot(SALT, draft, epochs)
        self._witness = Witness(
            settings, draft, epochs, cut, self._accounts, self._slots, self._transactions, self._voice, keys
        )
        if first:
            self._accounts.open(genesis, world.root)
        else:
            self._accounts.load(world.root)
        self._witness.load()
        epochs.load(genesis, now)
        self._bit_of = epochs.committee.bit_of
        self._witness.open(genesis.fee_micro)
        self._voice.load(epochs, self.own, now.mono_ms)
        for node, _ in genesis.witnesses:  # blocks and what others hold of them are the other level's business
            self._voice.on_shown(node_id_bytes(node), b"", epochs.number, held=True, now_ms=now.mono_ms)
        if first:
            self._accounts.flush()
            self._commit(draft.take(), (), (), ())
        self._tick_after(world.rng.randrange(1, SYNC_MS))
        self._poke()

    def crash(self) -> None:
        self.world.judge.met.crashes += 1
        self.up, self.life, self._inbox = False, self.life + 1, []
        self.world.after(self.world.rng.randrange(*DOWN_MS), self._mine(self.start))

    def _mine(self, action: Callable[[], None]) -> Callable[[], None]:
        """The action, in this life only."""
        life = self.life

        def mine() -> None:
            if life == self.life:
                action()

        return mine

    def now(self) -> Now:
        now_us = self.world.engine.now_us
        return Now((now_us - self._booted_us) * self.rate // (1_000 * MS), EPOCH_US + now_us)

    # ---- what comes in

    def receive(self, message: Message) -> None:
        if self.up:
            self._inbox.append(message)
            if not self._waits:
                self._poke()

    def _poke(self) -> None:
        self._waits = True
        self.world.engine.after(self.world.sync_us, self._mine(self._step))

    def _wake(self) -> None:
        if self._wake_us <= self.world.engine.now_us and not self._waits:
            self.world.handled += 1
            self._step()

    def quicken(self) -> None:
        """A cut's slowness is over: what it does again and again it does soon."""
        self._round += 1
        if self.up:
            self._tick_after(SYNC_MS)

    def _tick_after(self, delay_ms: int) -> None:
        this = self._round
        self.world.after(delay_ms, self._mine(lambda: self._tick() if this == self._round else None))

    def _tick(self) -> None:
        """Compares what it holds with one other, which gets what it lacks."""
        world = self.world
        world.handled += 1
        self._tick_after(SYNC_MS * world.slowness)
        peer = world.nodes[world.rng.choice(world.honest)]
        if peer is self or not peer.up or world.cut(self.name, peer.name):
            return
        log, at = self.log, self._offered.get(peer.name, 0)
        while at < len(log) and log[at].number in peer.taken:
            at += 1
        self._offered[peer.name] = at
        lacking = [message for message in log[at : at + 16 * SYNC_MESSAGES] if message.number not in peer.taken]
        for message in lacking[:SYNC_MESSAGES]:
            world.carry(self.name, peer, message)

    # ---- a step

    def _step(self) -> None:
        world, draft, witness = self.world, self._draft, self._witness
        self._waits = False
        inbox, self._inbox = self._inbox, []
        world.handled += len(inbox)
        now = self.now()
        draft.begin(now)
        if now != self._now:
            self._now = now
            for part in (self._accounts, self._slots, witness, self._transactions):
                part.trim()
        taken = [message for message in inbox if message.number not in self.taken and self._take(message, now)]
        witness.on_time(now)
        witness.settle(now)
        ended = witness.take_ended()
        said = [item for _, items in self._voice.take() for item in items]
        self._slots.flush()
        witness.flush()
        self._accounts.flush()
        self._end_step(draft.take(), taken, said, ended)

    def _end_step(
        self, effects: list[Effect], taken: list[Message], said: Sequence[Item], ended: Sequence[Known]
    ) -> None:
        """Durable before visible."""
        world = self.world
        odds = world.crash_odds
        if odds and world.rng.random() < odds:  # the step is lost
            self.crash()
            return
        messages = world.messages(self.own, said)
        self._commit(effects, taken, messages, ended)
        if odds and world.rng.random() < odds:  # durable, and nobody was told
            self.crash()
            return
        self._tell(messages)
        self._plan_wake()

    def _take(self, message: Message, now: Now) -> bool:
        """False: it is not to be taken in yet."""
        witness, author = self._witness, message.author
        item = message.item
        bit = self._bit_of(author)
        if not witness.bounds.within_reach((item,), bit):
            return False
        match item:
            case Statement():
                witness.on_statement(item, bit)
            case TxItem():
                witness.on_tx(item, now)
            case Report():
                witness.on_report(item, bit)
            case Double(first, second):
                witness.on_tx(first, now, told=True)
                witness.on_tx(second, now, told=True)
            case Unlock():
                witness.on_unlock(item)
        return True

    def _commit(
        self, effects: Sequence[Effect], taken: Sequence[Message], said: Sequence[Message], ended: Sequence[Known]
    ) -> None:
        batch = Batch()
        writes = batch.writes
        final: list[ledger_pb2.LedgerEvent] = []
        for effect in effects:
            match effect:
                case Put(table, key, value):
                    writes[table, key] = value
                case Delete(table, key):
                    writes[table, key] = None
                case Record(event) if event.etype == EventType.TX_FINAL:
                    final.append(event.ledger)
        self._weigh(writes)
        self.store.commit(batch)
        for message in (*taken, *said):
            if message.number not in self.taken:
                self.taken.add(message.number)
                self.log.append(message)
        self.world.durable(self, said)
        if final:
            self._show(final, ended)

    def _show(self, final: Sequence[ledger_pb2.LedgerEvent], ended: Sequence[Known]) -> None:
        """To the judge, what has become final, in its order, and what never will."""
        judge = self.world.judge
        txs = (known.item for known in ended if known.row.state == ledger_pb2.TX_STATE_FINAL)
        for told in final:
            if told.outcome == "no-op":
                src = node_id_bytes(told.src)
                judge.called_final(self.name, src, told.seq, noop_digest(SALT, src, told.seq))
            else:
                item = next(txs)
                judge.called_final(self.name, item.tx.src, item.tx.seq, item.digest)
        for known in ended:
            if known.row.state == ledger_pb2.TX_STATE_VOID:
                judge.called_void(self.name, known.item.tx, known.item.digest)

    def _weigh(self, writes: dict[tuple[str, bytes], bytes | None]) -> None:
        """Money is conserved, row by row."""
        changed = False
        for (table, key), value in writes.items():
            if table == ACCOUNTS and value is not None:
                before = self.store.get(table, key)
                self._sum_micro += Account.decode(value).balance_micro
                self._sum_micro -= Account.decode(before).balance_micro if before is not None else 0
                changed = True
            elif table == META and key == TOTALS_KEY and value is not None:
                self._fees_micro = Totals.decode(value).fees_micro
                changed = True
        supply_micro = self.world.genesis.supply_micro
        if changed and self._sum_micro + self._fees_micro != supply_micro:
            has = f"{self._sum_micro} and fees of {self._fees_micro}"
            raise Broken(f"money is not conserved at {self.name}: {has}, of {supply_micro}")

    def _tell(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.world.spread(self, message)

    def _plan_wake(self) -> None:
        due_ms = self._witness.deadline_ms()
        if due_ms is None:
            return
        due_us = self._booted_us + -(-due_ms * MS * 1_000 // self.rate)
        if due_us != self._wake_us:
            self._wake_us = due_us
            self.world.engine.after(due_us - self.world.engine.now_us, self._mine(self._wake))

    # ---- questions

    def account(self, name: bytes) -> Account:
        """As it is durable."""
        row = self.store.get(ACCOUNTS, name)
        return Account.decode(row) if row is not None else Account(0, 0, self.world.root)

    def accounts(self) -> dict[bytes, bytes]:
        return dict(self.store.scan(ACCOUNTS))

    def is_torn(self, place: Place, digests: Iterable[bytes]) -> bool:
        """Whether it knows of several transactions in this slot, whose turn it is: then it must end."""
        if self.account(place[0]).next_seq != place[1]:
            return False
        return sum(self.store.get(TXS, digest) is not None for digest in digests) > 1

    def evidence(self) -> Iterator[Place]:
        """Slots of which it keeps two transactions of one owner, the newest of each account."""
        for _, value in self.store.scan(EVIDENCE):
            shown = decode_item(value, SALT)
            assert isinstance(shown, Double), "nothing else is evidence"
            yield shown.first.tx.src, shown.first.tx.seq

    def top_ballot(self) -> int:
        """The highest at which it has said anything in a slot that is open; 0: there is none."""
        bit = self._bit_of(self.own)
        rows = ((place, self.store.get(DISPUTES, slot_key(*place))) for place in self.world.txs)
        disputes = (Dispute.decode(*place, ledger_pb2.DisputeRow.FromString(row)) for place, row in rows if row)
        return max((dispute.promised(bit) for dispute in disputes), default=0)

    def hanging(self) -> str:
        """A transaction that is neither final nor void though its slot is final; empty: none."""
        for digest, value in self.store.scan(TXS):
            row = ledger_pb2.TxRow.FromString(value)
            if row.state == ledger_pb2.TX_STATE_SIGNED:
                tx = Tx.decode(row.signed.body)
                if tx.seq < self.account(tx.src).next_seq:
                    return f"{tx_id_of(digest)} is neither final nor void at {self.name}, and its slot is final"
        return ""
