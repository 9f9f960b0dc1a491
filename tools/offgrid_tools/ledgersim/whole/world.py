"""Several ledger machines in virtual time: the network between them, the honest nodes, the liars.

The network loses, repeats and reorders calls and is cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.audit import sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.commands import OpenLedger
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Cut, Item, Statement, TxItem
from offgrid_node.protocol.ledger.marking import Places, places_of, spelled
from offgrid_node.protocol.ledger.records import GENESIS_KIND, LedgerGenesis
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Checks, Key, name_of
from offgrid_tools.ledgersim.whole.node import SETTLE_MS, Node
from offgrid_tools.sim.engine import EPOCH_US, MS, Engine, Trace

SEEN_MAX = 32  # blocks that a liar remembers
YEAR_MS = 365 * 86_400_000
AGAIN_MS = 500  # later a node that was down is told again
CALL_MS = 1_000  # no call is waited for any longer

Done = Callable[[Message | Fault], None]


class Receiver(Protocol):
    """Who is called: a node, or a liar."""

    def receive(self, sender: str, method: str, request: Message, done: Done) -> None: ...


class Speaker(Receiver, Protocol):
    """A liar: by itself it says nothing any more once it is `silent`."""

    silent: bool


class World:
    """Time in milliseconds. The first `lying` witnesses are nobody's until `liars` have them."""

    def __init__(
        self,
        seed: int,
        witnesses: int = 4,
        observers: int = 1,
        *,
        lying: int = 0,
        weights: Sequence[int] = (),
        epoch_ms: int = 0,
        settle_ms: int = SETTLE_MS,
        trace: Trace | None = None,
    ) -> None:
        self.engine = Engine(seed, trace)
        self.rng = self.engine.rng
        self.handled = 0  # messages and timers that nodes have handled
        self.loss = self.repeats = self.crash_odds = 0.0
        self.latency_ms = (1, 5)
        self.sides: dict[str, int] = {}
        self.ending = epoch_ms > 0  # whether epochs end
        self.epoch_ms, self.settle_ms = epoch_ms or YEAR_MS, settle_ms
        self.slowness = 1  # of liars: hours go by fast when little happens
        self.names = [name_of(number) for number in range(witnesses + observers)]
        self.genesis = LedgerGenesis(
            self.names[-1],
            tuple(zip(self.names[:witnesses], weights or [1_000] * witnesses, strict=True)),
            tuple((name, START_MICRO) for name in self.names),
            FEE,
            1,
        )
        self.check = Checks()
        self.judge = Judge(self.genesis)
        self.deputy = name_of(witnesses + observers)  # a second admin, who has no node
        self.judge.admins = {node_id_bytes(name) for name in (self.names[-1], self.deputy)}
        self.dismissed = False  # all honest nodes know that the second one is none any more
        self._durable: set[bytes] = set()  # blocks that were seen by the judge
        self._heights: dict[tuple[bytes, int], bytes] = {}
        self._first: dict[tuple[bytes, int], bytes] = {}  # author and height → the block that was there first
        self.cuts: dict[int, dict[bytes, Cut]] = {}  # epoch → what was proposed as its end, by its checkpoint's digest
        self.nodes: dict[str, Node] = {}
        self.liars: dict[str, Speaker] = {}
        self._places: dict[bytes, Places] = {}  # of each block that was ever seen
        self.liars_txs: dict[tuple[bytes, int], dict[bytes, TxItem]] = {}
        for name in self.names[lying:]:
            self.nodes[name] = Node(self, name)

    @property
    def epoch(self) -> int:
        """The newest that any honest node has entered."""
        return len(self.judge.checkpoints)

    # ---- time

    @property
    def now_ms(self) -> int:
        return self.engine.now_us // MS

    def now(self) -> Now:
        return Now(self.now_ms, EPOCH_US + self.engine.now_us)

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.engine.after(delay_ms * MS, action)

    def run(self, for_ms: int) -> None:
        self.engine.run_until(self.engine.now_us + for_ms * MS)

    # ---- the network

    def carry(self, sender: str, call: Call, on_end: Callable[[Answered], None]) -> None:
        """Loss shows as a fault, later; a repeated call is answered twice and the second answer ignored."""
        if isinstance(call.request, ledger_pb2.PushBlocksRequest):
            for block in call.request.blocks:
                self.left(block)
        ended: list[bool] = []

        def end(reply: Message | None, fault: Fault | None) -> None:
            if not ended:
                ended.append(True)
                on_end(Answered(call.tag, call.node, reply, fault))

        def done(outcome: Message | Fault) -> None:
            if self._lost(call.node, sender):
                return
            if isinstance(outcome, Fault):
                self.after(self._delay(), lambda: end(None, outcome))
            else:
                self.after(self._delay(), lambda: end(outcome, None))

        self.after(CALL_MS, lambda: end(None, Unavailable("no answer")))
        twice = self.rng.random() < self.repeats
        self.judge.met.repeated += twice
        for _ in range(1 + twice):
            if not self._lost(sender, call.node):
                self.after(self._delay(), lambda: self._arrive(sender, call, done))

    def _arrive(self, sender: str, call: Call, done: Done) -> None:
        receiver = self.nodes.get(call.node) or self.liars.get(call.node)
        assert receiver is not None, "members call members"
        self.engine.note(f"{sender[:6]} {call.method[-10:]} {call.node[:6]}", call.request.SerializeToString())
        receiver.receive(sender, call.method, call.request, done)

    def _lost(self, one: str, other: str) -> bool:
        lost, cut = self.rng.random() < self.loss, self.sides.get(one, 0) != self.sides.get(other, 0)
        self.judge.met.lost += lost
        self.judge.met.cut_off += cut and not lost
        return lost or cut

    def _delay(self) -> int:
        return self.rng.randrange(*self.latency_ms)

    # ---- what the judge is told

    def durable(self, raw: ledger_pb2.Block) -> None:
        """An honest node has committed this block of its own; or again, having learnt of it."""
        block = self.check(raw)
        header = block.header
        if block.digest in self._durable:
            self.judge.bind(header.author, self._spelled(block), header.epoch)
            return
        self._durable.add(block.digest)
        self._look_for_forks(block)
        place = header.author, header.height
        if header.author not in self.judge.liars and self._heights.setdefault(place, block.digest) != block.digest:
            raise Broken(f"{header.author_id} signed two blocks at height {header.height}")
        self.judge.said(header.author, self._spelled(block), header.epoch)

    def _look_for_forks(self, block: CheckedBlock) -> None:
        header = block.header
        if self._first.setdefault((header.author, header.height), block.digest) != block.digest:
            self.judge.forked.add(header.author)
        for item in block.items:
            if isinstance(item, Cut):
                self.cuts.setdefault(header.epoch, {})[item.checkpoint.digest(SALT)] = item

    def restored(self, node: Node, *, knowing: bool) -> None:
        """It goes on with an old disk. What it said since binds it if enough others hold it, for these tell it before
        it votes; the rest may be unknown to everybody whom it hears. Where epochs have ended it may be told by another
        committee than it knows: then it is bound by what its own disk tells."""
        author = node_id_bytes(node.node_id)
        committee = Committee(self.genesis.witnesses)
        own = committee.bit_of(author)
        others = committee.weight(committee.all & ~own)
        needed = min(committee.quorum_milli, others) if knowing else committee.quorum_milli - committee.weight(own)
        held = {block.digest: block for block in node.own_blocks()}
        holders: dict[bytes, int] = {}
        for other in self.nodes.values():
            if other is not node:
                for block in other.blocks_of(author):
                    held[block.digest] = block
                    bit = committee.bit_of(node_id_bytes(other.node_id))
                    holders[block.digest] = holders.get(block.digest, 0) | bit
        bound = [
            block
            for digest, block in held.items()
            if (not self.epoch and others - committee.weight(holders.get(digest, 0)) < needed) or node.holds(digest)
        ]
        signed = {digest for place, digest in self._heights.items() if place[0] == author}
        self._heights = {place: digest for place, digest in self._heights.items() if place[0] != author}
        if knowing:
            self._heights.update({(author, block.header.height): block.digest for block in bound})
        self.judge.forgive(author)
        for block in bound:
            self.judge.bind(author, self._spelled(block), block.header.epoch)
        forgotten = signed - {block.digest for block in bound}  # whoever holds it now, if only a liar
        node.may_mute = not knowing or bool(forgotten)

    def left(self, raw: ledger_pb2.Block) -> None:
        """A block is on its way from anybody to anybody."""
        block = self.check(raw)
        if block.digest not in self._durable:
            if block.header.author not in self.judge.liars:
                raise Broken(f"a block of {block.header.author_id} is on its way before it is durable there")
            self._durable.add(block.digest)
            self._look_for_forks(block)
            self.judge.said(block.header.author, self._spelled(block), block.header.epoch)

    @property
    def seen(self) -> Sequence[bytes]:
        """The blocks of the last while, by their digests."""
        return [*self._places][-SEEN_MAX:]

    def _spelled(self, block: CheckedBlock) -> list[Item]:
        """What it says, one by one; of blocks that nobody has seen nothing is said. All is said at once, and a confirm
        may lean on a vote that comes behind it: so first votes come first."""
        if block.digest not in self._places:
            self._places[block.digest] = places_of(block.items)
        said = spelled(block.items, lambda digest: self._places.get(digest, ()))
        return sorted(said, key=lambda item: not isinstance(item, Statement) or item.confirms or item.ballot > 0)

    # ---- what happens

    def open(self) -> None:
        body = self.genesis.encode()
        signed = common_pb2.Signed(
            body=body, signature=Key(self.genesis.issuer).sign(digest_of(GENESIS_KIND, SALT, body))
        )
        self.nodes[self.genesis.issuer].ask(OpenLedger(signed, self.genesis))

    def dismiss(self) -> None:
        """The second admin is none any more; each node hears of it when it does."""
        unaware = {*self.nodes}

        def tell(name: str) -> None:
            if not self.nodes[name].dismiss(self.deputy):
                self.after(self._delay() + AGAIN_MS, partial(tell, name))
                return
            unaware.discard(name)
            if not unaware:
                self.dismissed = True
                self.judge.dismiss(node_id_bytes(self.deputy))

        for name in self.nodes:
            self.after(self._delay(), partial(tell, name))

    def cost(self, core: str, job_id: str, payee: str, amount: int) -> None:
        self.nodes[core].step([CostIncurred(job_id, 1, payee, amount, "compute")])

    def heal(self) -> None:
        self.loss = self.repeats = self.crash_odds = 0.0
        self.latency_ms = (1, 20)
        self.sides.clear()

    def check_agreement(self) -> None:
        """All honest nodes hold the same money and slots, nobody is below zero."""
        books = [node.balances() for node in self.nodes.values()]
        for name, book in zip(self.nodes, books, strict=True):
            if book != books[0]:
                raise Broken(f"{name} has other balances: {book} != {books[0]}")
            if any(balance < 0 for balance, _ in book.values()):
                raise Broken(f"overdraft: {book}")
            if self.nodes[name].epoch != self.epoch:
                raise Broken(f"{name} is in epoch {self.nodes[name].epoch}, others in {self.epoch}")
        self._check_checkpoints()
        for node in self.nodes.values():
            if not sums(node.store).conserved or sums(node.store).supply_micro != self.genesis.supply_micro:
                raise Broken("money is not conserved")

    def _check_checkpoints(self) -> None:
        for name, node in self.nodes.items():
            if node.checkpoints() != self.judge.checkpoints:
                raise Broken(f"{name} has other checkpoints than those that epochs ended with")
            if self.epoch:
                node.check_end(self.epoch - 1)

    def honest(self) -> Iterator[Node]:
        return iter(self.nodes.values())
