"""Several ledger machines in virtual time: memory stores, a hostile network, crashes, liars. Seeded.

The network loses, repeats and reorders calls and is cut into parts; a crash forgets a step that was not committed, or
comes between the commit and what was to leave. Signatures cannot be forged by construction: a keyed hash stands for
Ed25519. The judge sees everything that leaves a node, as an adversary would who collects it all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from google.protobuf.message import Message
from virtual_time import VirtualTime

from offgrid.v1 import common_pb2, ledger_pb2, state_pb2
from offgrid_node.protocol.effects import Answered, Asked, Call, Delete, Effect, Put, Record, Reply, Woke
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CostIncurred, PeerUp
from offgrid_node.protocol.ids import base32, node_id_bytes, unbase32
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.audit import accounts, sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLedger, PushBlocks, SyncBlocks, UnlockSlot
from offgrid_node.protocol.ledger.items import Claim, Report, Statement, TxItem
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.records import GENESIS_KIND, LedgerGenesis, Tx, tx_id_of
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import Slot
from offgrid_node.protocol.ledger.tables import ACCOUNTS, DISPUTES, LOG, SLOTS, TXS
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

SALT = bytes(range(16))
FEE = 10
START_MICRO = 1_000_000


class Broken(AssertionError):
    """An invariant does not hold."""


def name_of(number: int) -> str:
    return base32(blake2b(number.to_bytes(4, "big"), digest_size=20).digest())


@dataclass(frozen=True)
class Key:
    """A signer whose signatures nobody else makes, because nobody else calls it."""

    node_id: str

    @property
    def public_key(self) -> bytes:
        return node_id_bytes(self.node_id)

    def wrapping_key(self, number: int) -> WrappingKey:
        return WrappingKey(number, self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return blake2b(digest, digest_size=64, key=node_id_bytes(self.node_id)).digest()


def holds(claim: Claim) -> bool:
    return Key(claim.signer).sign(claim.digest) == claim.signature


class Checks:
    """What every handler does with a block, once for a block however often it comes."""

    def __init__(self) -> None:
        self._checked: dict[bytes, CheckedBlock] = {}

    def __call__(self, block: ledger_pb2.Block) -> CheckedBlock:
        """Raises PeerFault."""
        raw = block.SerializeToString()
        if raw not in self._checked:
            self._checked[raw] = check_block(block, SALT, holds)
        return self._checked[raw]


class Judge:
    """Counts every signature when it is durable at its author, or leaves a liar, and all that nodes call final."""

    def __init__(self, genesis: LedgerGenesis) -> None:
        self._weights = {node_id_bytes(node): weight for node, weight in genesis.witnesses}
        self.liars: set[str] = set()
        self._seen: set[bytes] = set()
        self._said: dict[tuple[str, bool, bytes, int, int], bytes] = {}
        self._promised: dict[tuple[str, bytes, int], int] = {}
        self._confirms: dict[tuple[bytes, int, bytes], dict[int, set[bytes]]] = {}  # of slot and digest, by ballot
        self._votes: dict[tuple[bytes, int, bytes], dict[int, set[bytes]]] = {}
        self._heights: dict[tuple[bytes, int], bytes] = {}
        self.final: dict[tuple[str, int], str] = {}

    def left(self, block: CheckedBlock) -> None:
        """A block is on its way from anybody to anybody."""
        if block.digest not in self._seen:
            if block.header.author_id not in self.liars:
                raise Broken(f"a block of {block.header.author_id} is on its way before it is durable there")
            self.signed(block)

    def signed(self, block: CheckedBlock) -> None:
        self._seen.add(block.digest)
        author = block.header.author_id
        place = block.header.author, block.header.height
        if author not in self.liars and self._heights.setdefault(place, block.digest) != block.digest:
            raise Broken(f"{author} signed two blocks at height {block.header.height}")
        for item in block.items:
            if isinstance(item, Statement):
                self._saw_statement(author, block.header.author, item)
            elif isinstance(item, Report):
                self._saw_promise(author, item)

    def _saw_statement(self, author: str, name: bytes, said: Statement) -> None:
        slot = said.account, said.seq
        if author not in self.liars:
            before = self._said.setdefault((author, said.confirms, *slot, said.ballot), said.tx_digest)
            if before != said.tx_digest:
                raise Broken(f"{author} said two things of slot {said.seq} of {base32(said.account)}")
            if said.ballot < self._promised.get((author, *slot), 0):
                raise Broken(f"{author} spoke at ballot {said.ballot}, below its promise")
            votes = self._votes.get((*slot, said.tx_digest), {})
            if said.confirms and not self._enough(votes.get(said.ballot, set())):
                raise Broken(f"{author} confirmed what has no certificate")
        counted = self._confirms if said.confirms else self._votes
        counted.setdefault((*slot, said.tx_digest), {}).setdefault(said.ballot, set()).add(name)

    def _saw_promise(self, author: str, report: Report) -> None:
        place = author, report.account, report.seq
        if author not in self.liars and report.ballot <= self._promised.get(place, 0):
            raise Broken(f"{author} reported twice at ballot {report.ballot}, or went back to it")
        self._promised[place] = max(report.ballot, self._promised.get(place, 0))

    def called_final(self, src: str, seq: int, tx_id: str) -> None:
        if self.final.setdefault((src, seq), tx_id) != tx_id:
            raise Broken(f"two final transactions in slot {seq} of {src}")
        confirms = self._confirms.get((node_id_bytes(src), seq, unbase32(tx_id)), {})
        if not any(self._enough(names) for names in confirms.values()):
            raise Broken("called final without a quorum of confirms")

    def called_void(self, body: bytes) -> None:
        tx = Tx.decode(body)
        if self.final.get((base32(tx.src), tx.seq)) in (None, tx_id_of(tx.digest(SALT))):
            raise Broken(f"called void, and nothing else is final in slot {tx.seq} of {base32(tx.src)}")

    def _enough(self, names: set[bytes]) -> bool:
        """Counted apart from the code that is judged: more than two thirds."""
        return 3 * sum(self._weights.get(name, 0) for name in names) > 2 * sum(self._weights.values())


class Node:
    """One honest node: machine, store, and the commit between deciding and telling."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.node_id = world, name_of(number)
        self.store = MemoryStore()
        self.up, self.life = True, 0
        self.answers: list[Message | Fault] = []
        self.unlocked = False
        self.events: list[state_pb2.Event] = []
        self._tickets: dict[int, Callable[[Message | Fault], None]] = {}
        self._numbers = itertools.count(1)
        self._wake_ms = -1
        self.start()

    @property
    def machine(self) -> LedgerMachine:
        return self._machine

    def start(self) -> None:
        self.up = True
        self._machine = LedgerMachine(LedgerSettings(Key(self.node_id), SALT))
        self._machine.load(self.store, self.world.now())
        self._plan_wake()
        self.world.after(
            1, lambda: self.step([PeerUp(n, "", frozenset()) for n in self.world.names if n != self.node_id])
        )

    def crash(self) -> None:
        self.up, self.life = False, self.life + 1
        self._tickets.clear()

    def ask(
        self, command: object, done: Callable[[Message | Fault], None] | None = None, caller: str = "owner"
    ) -> None:
        if not self.up:
            return
        number = next(self._numbers)
        self._tickets[number] = done or self.answers.append
        self.step([Asked(number, caller, command)])

    def step(self, inputs: list[object]) -> None:
        if not self.up:
            return None
        world = self.world
        effects = self._machine.step(inputs, world.now(), world.rng)
        if world.rng.random() < world.crash_odds:  # the step is lost
            return self._die()
        self._commit(effects)
        if world.rng.random() < world.crash_odds:  # durable, and nobody was told
            return self._die()
        for effect in effects:
            match effect:
                case Call():
                    world.carry(self.node_id, effect, self.life, self._on_end)
                case Reply(number, outcome):
                    self._tickets.pop(number, self.answers.append)(outcome)
        self._plan_wake()
        return None

    def _die(self) -> None:
        self.crash()
        self.world.after(self.world.rng.randrange(10, 3_000), self.start)

    def _commit(self, effects: list[Effect]) -> None:
        batch, events, rows = Batch(), [], list[ledger_pb2.TxRow]()
        for effect in effects:
            match effect:
                case Put(table, key, value):
                    batch.writes[table, key] = value
                    if table == LOG:
                        self._took(value)
                    elif table == TXS:
                        rows.append(ledger_pb2.TxRow.FromString(value))
                case Delete(table, key):
                    batch.writes[table, key] = None
                case Record(event):
                    events.append(event)
        if batch:
            self.store.commit(batch)
        self.events += events
        for event in events:
            if event.etype == EventType.TX_FINAL:
                said = event.ledger
                self.world.judge.called_final(said.src, said.seq, said.tx_id)
        for row in rows:
            if row.state == ledger_pb2.TX_STATE_VOID:
                self.world.judge.called_void(row.signed.body)
        if any(event.etype == EventType.TX_FINAL for event in events) and not sums(self.store).conserved:
            raise Broken(f"money is not conserved: {sums(self.store)}")

    def _took(self, raw: bytes) -> None:
        """A block in a batch that is durable now."""
        block = self.world.check(ledger_pb2.Block.FromString(raw))
        if block.header.author_id == self.node_id:
            self.world.judge.signed(block)

    def _on_end(self, life: int, answered: Answered) -> None:
        if life == self.life:
            self.step([answered])

    def _plan_wake(self) -> None:
        due = self._machine.deadline_ms()
        if due is not None and due != self._wake_ms:
            self._wake_ms = due
            self.world.at(due, self._wake)

    def _wake(self) -> None:
        due = self._machine.deadline_ms()
        if self.up and due is not None and due <= self.world.now_ms:
            self.step([Woke()])

    # ---- what its handlers do

    def receive(self, sender: str, method: str, request: Message, done: Callable[[Message | Fault], None]) -> None:
        match request:
            case ledger_pb2.PushBlocksRequest():
                blocks = []
                for block in request.blocks:
                    try:
                        blocks.append(self.world.check(block))
                    except Fault as fault:
                        if sender not in self.world.judge.liars:
                            raise Broken(f"an honest node passed on a bad block: {fault}") from fault
                self.ask(PushBlocks(sender, tuple(blocks)), done, sender)
            case ledger_pb2.SyncBlocksRequest():
                signed = request.ledger_genesis
                genesis = (signed, LedgerGenesis.decode(signed.body)) if signed.body else None
                heads = tuple((node_id_bytes(h.author), h.height, h.digest) for h in request.heads)
                self.ask(
                    SyncBlocks(sender, heads, tuple(request.wanted), request.genesis_digest, genesis), done, sender
                )

    # ---- what tests ask

    def transfer(self, to: str, amount: int, request_id: str = "", fee: int = 0) -> None:
        self.ask(CreateTransfer(((node_id_bytes(to), amount),), fee, b"", request_id))

    def unlock(self) -> None:
        """Its owner asks that whatever is under way ends."""
        self.unlocked = True
        self.ask(UnlockSlot())

    def torn(self) -> set[tuple[bytes, int]]:
        """Slots of two transactions, or that their owner wants to end, and whose turn it is: they must end."""
        torn = set()
        for key, value in self.store.scan(SLOTS):
            slot, _ = Slot.decode(key, value)
            row = self.store.get(ACCOUNTS, slot.account)
            dispute = ledger_pb2.DisputeRow.FromString(self.store.get(DISPUTES, key) or b"")
            if (slot.doubled or dispute.unlocked) and row is not None and Account.decode(row).next_seq == slot.seq:
                torn.add((slot.account, slot.seq))
        return torn

    def balances(self) -> dict[str, tuple[int, int]]:
        return {node: (account.balance_micro, account.next_seq) for node, account in accounts(self.store)}


class World(VirtualTime):
    """The clock, the network, honest nodes, and liars that `liars.py` brings."""

    def __init__(
        self, seed: int, witnesses: int = 4, observers: int = 1, *, lying: int = 0, weights: list[int] | None = None
    ) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.loss = self.repeats = self.crash_odds = 0.0
        self.latency_ms = (1, 5)
        self.sides: dict[str, int] = {}
        self.names = [name_of(number) for number in range(witnesses + observers)]
        weights = weights or [1_000] * witnesses
        self.genesis = LedgerGenesis(
            self.names[-1],
            tuple(zip(self.names[:witnesses], weights, strict=True)),
            tuple((name, START_MICRO) for name in self.names),
            FEE,
            1,
        )
        self.check = Checks()
        self.judge = Judge(self.genesis)
        self.nodes: dict[str, Node] = {}
        self.liars: dict[str, object] = {}
        self.liars_txs: dict[tuple[bytes, int], dict[bytes, TxItem]] = {}
        for number in range(lying, witnesses + observers):
            self.nodes[self.names[number]] = Node(self, number)

    # ---- network

    def carry(self, sender: str, call: Call, life: int, on_end: Callable[[int, Answered], None]) -> None:
        """Loss shows as a fault, later; a repeated call is answered twice and the second answer ignored."""
        if isinstance(call.request, ledger_pb2.PushBlocksRequest):
            for block in call.request.blocks:
                self.judge.left(self.check(block))
        ended: list[bool] = []

        def end(reply: Message | None, fault: Fault | None) -> None:
            if not ended:
                ended.append(True)
                on_end(life, Answered(call.tag, call.node, reply, fault))

        def done(outcome: Message | Fault) -> None:
            if self._lost(call.node, sender):
                return
            fault = outcome if isinstance(outcome, Fault) else None
            self.after(self._delay(), lambda: end(None if fault else outcome, fault))  # type: ignore[arg-type]

        self.after(1_000, lambda: end(None, Unavailable("no answer")))
        for _ in range(2 if self.rng.random() < self.repeats else 1):
            if not self._lost(sender, call.node):
                self.after(self._delay(), lambda: self._arrive(sender, call, done))

    def _arrive(self, sender: str, call: Call, done: Callable[[Message | Fault], None]) -> None:
        receiver = self.nodes.get(call.node) or self.liars.get(call.node)
        if receiver is not None:
            receiver.receive(sender, call.method, call.request, done)  # type: ignore[attr-defined]

    def _lost(self, one: str, other: str) -> bool:
        return self.rng.random() < self.loss or self.sides.get(one, 0) != self.sides.get(other, 0)

    def _delay(self) -> int:
        return self.rng.randrange(*self.latency_ms)

    # ---- what happens

    def open(self) -> None:
        body = self.genesis.encode()
        signed = common_pb2.Signed(
            body=body, signature=Key(self.genesis.issuer).sign(digest_of(GENESIS_KIND, SALT, body))
        )
        self.nodes[self.genesis.issuer].ask(OpenLedger(signed, self.genesis))

    def cost(self, core: str, job_id: str, payee: str, amount: int) -> None:
        self.nodes[core].step([CostIncurred(job_id, 1, payee, amount, "compute")])

    def heal(self) -> None:
        self.loss = self.repeats = self.crash_odds = 0.0
        self.latency_ms = (1, 20)
        self.sides.clear()

    def check_agreement(self) -> None:
        """All honest nodes hold the same money and slots, nobody is below zero."""
        books = [node.balances() for node in self.nodes.values()]
        for node, book in zip(self.nodes, books, strict=True):
            if book != books[0]:
                raise Broken(f"{node} has other balances: {book} != {books[0]}")
            if any(balance < 0 for balance, _ in book.values()):
                raise Broken(f"overdraft: {book}")
        for node in self.nodes.values():
            if not sums(node.store).conserved or sums(node.store).supply_micro != self.genesis.supply_micro:
                raise Broken("money is not conserved")

    def honest(self) -> Iterator[Node]:
        return iter(self.nodes.values())
