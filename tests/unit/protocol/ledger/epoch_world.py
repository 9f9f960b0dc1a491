"""Several whole ledger machines that hand each other all their blocks, where nothing keeps them apart."""

from __future__ import annotations

from random import Random

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Delete, Put, Reply, Woke
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import AdminChanged
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.audit import sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.checkpoints import ORDER_KIND, Checkpoint, Order
from offgrid_node.protocol.ledger.commands import (
    CreateTransfer,
    EndEpoch,
    OpenLedger,
    OrderCommittee,
    PushBlocks,
    SyncBlocks,
)
from offgrid_node.protocol.ledger.items import OrderItem
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.meeting import Question
from offgrid_node.protocol.ledger.records import GENESIS_KIND, LedgerGenesis
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, LOG, number_key, number_of
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key, holds, name_of

HOUR_MS = 3_600_000
STEP_MS = 50


class Node:
    """One machine over its rows. `cut_off`: nothing goes in or out."""

    def __init__(self, world: EpochWorld, name: str) -> None:
        self.world, self.name = world, name
        self.store = MemoryStore()
        self.cut_off = False
        self.crash_in = 0  # so many steps later its step is lost, and it is started anew
        self.sent = 0  # the position in its log up to which others were handed it
        self.restart()

    def restart(self) -> None:
        self.machine = LedgerMachine(LedgerSettings(Key(self.name), SALT, epoch_ms=HOUR_MS))
        self.machine.load(self.store, self.world.now())

    def step(self, *inputs: object) -> list[Message | Fault]:
        batch, replies = Batch(), list[Message | Fault]()
        for effect in self.machine.step(inputs, self.world.now(), self.world.rng):
            match effect:
                case Put(table, key, value):
                    batch.writes[table, key] = value
                case Delete(table, key):
                    batch.writes[table, key] = None
                case Reply(_, outcome):
                    replies.append(outcome)
        self.crash_in -= 1
        if self.crash_in == 0:
            self.restart()
            return replies
        self.store.commit(batch)
        assert sums(self.store).conserved
        return replies

    def ask(self, command: object) -> Message | Fault:
        self.world.now_ms += 1
        return self.step(Asked(1, "owner", command))[-1]

    @property
    def blocks(self) -> list[bytes]:
        return [value for _, value in self.store.scan(LOG)]

    @property
    def epoch(self) -> int:
        return self.machine._epochs.number

    @property
    def views(self) -> Surveys:
        return Surveys(self.store)

    def balance(self, name: str) -> int:
        return self.views.account(name).balance_micro

    def checkpoint(self, epoch: int) -> Checkpoint:
        row = self.store.get(CHECKPOINTS, number_key(epoch))
        assert row is not None
        return Checkpoint.decode(ledger_pb2.CheckpointRow.FromString(row).body)


class EpochWorld:
    """`witnesses` of one weight, `others` that are none; the first of all is an admin of the mesh."""

    def __init__(self, witnesses: int = 4, others: int = 2, *, seed: int = 3) -> None:
        self.rng, self.now_ms = Random(seed), 10_000
        self.names = [name_of(number) for number in range(witnesses + others)]
        self.admin = self.names[0]
        genesis = LedgerGenesis(
            self.admin,
            tuple((name, 1_000) for name in self.names[:witnesses]),
            tuple((name, START_MICRO) for name in self.names),
            FEE,
            1,
        )
        body = genesis.encode()
        self.genesis, self.root = genesis, genesis.digest(SALT)
        self.signed = common_pb2.Signed(body=body, signature=Key(self.admin).sign(digest_of(GENESIS_KIND, SALT, body)))
        self.nodes = [Node(self, name) for name in self.names]
        for node in self.nodes:
            self.begin(node)
        self.run(3_000)

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000_000 + self.now_ms * 1_000)

    def begin(self, node: Node) -> None:
        node.ask(OpenLedger(self.signed, self.genesis))
        node.step(AdminChanged(self.admin, True))
        self.greet(node)

    def greet(self, node: Node, *others: Node) -> None:
        """These, or all others, show what they hold of it."""
        for other in others or (self.nodes if hasattr(self, "nodes") else ()):
            if other is not node:
                newest = other.machine._chains.author(node_id_bytes(node.name))
                yours = newest.digest if newest.height else b""
                node.ask(
                    SyncBlocks(other.name, Question(bytes(16), bytes(16)), yours, (), self.root, epoch=other.epoch)
                )

    # ---- what happens

    def run(self, for_ms: int) -> None:
        """Steps of time, after each of which all that can be heard has been."""
        until = self.now_ms + for_ms
        while self.now_ms < until:
            self.now_ms += STEP_MS
            for node in self.nodes:
                node.step(Woke())
            self.exchange()

    def exchange(self) -> None:
        going = True
        while going:
            going = False
            for node in self.nodes:
                rows = [*node.store.scan(LOG, number_key(node.sent + 1))]
                if node.cut_off or not rows:
                    continue
                fresh, node.sent = [self.checked(raw) for _, raw in rows], number_of(rows[-1][0])
                for other in self.nodes:
                    if other is not node and not other.cut_off:
                        self.hand(other, node, fresh)
                going = True

    def hand(self, to: Node, source: Node, blocks: list[CheckedBlock]) -> None:
        lacking = [block for block in blocks if to.machine._chains.place(block.digest) is None]
        if lacking:
            self.now_ms += 1
            to.step(Asked(2, source.name, PushBlocks(source.name, tuple(lacking))))

    def join(self, node: Node) -> None:
        """It hears again, and of all that it has missed, as do the others."""
        node.cut_off = False
        self.catch_up()

    def catch_up(self) -> None:
        """As anti-entropy does: everybody is handed everything, until nothing is news."""
        held = -1
        while held != (held := sum(len(node.blocks) for node in self.nodes)):
            for node in self.nodes:
                node.sent = 0
            self.exchange()

    def checked(self, raw: bytes) -> CheckedBlock:
        return check_block(ledger_pb2.Block.FromString(raw), SALT, holds)

    def pay(self, src: int, to: int, amount: int) -> Message | Fault:
        outputs = ((node_id_bytes(self.names[to]), amount),)
        return self.nodes[src].ask(CreateTransfer(outputs, 0, b"", ""))

    def order(self, epoch: int, *weights: tuple[int, int], by: int = 0, key: int = 0, ledger: bytes = b"") -> OrderItem:
        witnesses = tuple((self.names[place], weight) for place, weight in weights)
        order = Order(ledger or self.root, node_id_bytes(self.names[by]), key, epoch, witnesses, self.now_ms)
        body = order.encode()
        digest = digest_of(ORDER_KIND, SALT, body)
        return OrderItem(order, body, Key(self.names[by]).sign(digest), digest)

    def orders(self, epoch: int, *weights: tuple[int, int], by: int = 0) -> Message | Fault:
        return self.nodes[by].ask(OrderCommittee(self.order(epoch, *weights, by=by)))

    def end(self, *places: int) -> None:
        for place in places:
            self.nodes[place].ask(EndEpoch())

    def agree(self) -> None:
        """All stand in one epoch, with the same accounts."""
        states = {(node.epoch, *sorted(node.store.scan("ledger_accounts"))) for node in self.nodes}
        assert len(states) == 1, [(node.epoch, node.machine._turning.why_not) for node in self.nodes]


def turn(world: EpochWorld) -> None:
    """Payments, and the end of the epoch."""
    epoch = max(node.epoch for node in world.nodes)
    for src, to in ((4, 5), (5, 4), (0, 1)):
        world.pay(src, to, 100 + epoch)
    world.run(400)
    world.end(0, 1, 2)
    for _ in range(20):
        world.run(1_000)
        if max(node.epoch for node in world.nodes) > epoch:
            break
    world.run(1_000)
    assert max(node.epoch for node in world.nodes) == epoch + 1
