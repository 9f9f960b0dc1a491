"""What it takes a mesh to hold the same blocks: bytes of all gossip, beside those of a spanning tree.

The very classes of the protocol (gossip, chains, orphans, intake), one set for each node, in virtual time; what lies
beyond them, slots and money, is left out, so that a thousand nodes find room in one process. The mesh is cut in two
halves for some hours, both go on writing, and it is joined again. A spanning tree brings each block once to each node
but its author; all else that is said, calls and answers, links and meetings, is what spreading costs besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call, Put
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, seal_block
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.commands import PushBlocks, SyncBlocks
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.gossip import Gossip, Tag
from offgrid_node.protocol.ledger.intake import Intake
from offgrid_node.protocol.ledger.items import Item, Statement
from offgrid_node.protocol.ledger.marking import Marking
from offgrid_node.protocol.ledger.meeting import question_of
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.words import words_of
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_tools.bench.figures import Figure
from offgrid_tools.sim.engine import EPOCH_US, MS, SECOND, Engine

SALT, GENESIS = bytes(16), bytes(range(32))
HOUR_S = 3_600
LATENCY_MS = (5, 80)
STATEMENTS = 6  # in a block: what a witness says of three payments
HEAL_S = 900  # so long the halves may take to hold the same
TIMEOUT_MS = 5_000


class Shape(msgspec.Struct, frozen=True):
    """`writers` in all, each writing `blocks` while the mesh is cut; half of both on either side."""

    nodes: int
    writers: int
    blocks: int
    hours: float


class Spread(msgspec.Struct, frozen=True):
    """`tree_bytes`: each block once to each node but its author. `healed_s`: from the joining until all hold the
    same; `healing_bytes` of that time, beside `lacking_bytes` that were lacking when it began."""

    total_bytes: int
    tree_bytes: int
    healing_bytes: int
    lacking_bytes: int
    healed_s: float
    blocks: int

    @property
    def ratio(self) -> float:
        return self.total_bytes / self.tree_bytes

    @property
    def healing_ratio(self) -> float:
        return self.healing_bytes / self.lacking_bytes


class _Signer:
    """Nobody checks it here."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.public_key = node_id_bytes(node_id)

    def wrapping_key(self, number: int) -> WrappingKey:
        return WrappingKey(number, self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return digest + digest


class _Rows:
    """What a node has committed."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._tables.setdefault(table, {})[key] = value

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables.get(table, {}).get(key)

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self._tables.get(table, {}).items()))


class _Slots:
    """In the place of a witness: what blocks say concerns nobody here."""

    def bit_of(self, account: bytes) -> int:
        return 0

    @property
    def bounds(self) -> _Slots:
        return self

    def within_reach(self, items: Sequence[Item], bit: int) -> bool:
        return True

    def on_statement(self, item: Statement, bit: int) -> None:
        pass


class _Node:
    """One node's gossip, and what it leans on."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh, self.name, self.own = mesh, name, node_id_bytes(name)
        self._rows, self._draft, self._signer = _Rows(), Draft(), _Signer(name)
        self._draft.load(self._rows)
        self.chains = Chains(self._draft, SALT)
        self.chains.load(GENESIS)
        self._orphans, self._voice = Orphans(self._draft), Voice(self._draft)
        epochs = Epochs(self.own, SALT, self._draft)
        epochs.load(LedgerGenesis(name, ((name, 1_000),), (), 0, 0), Now(0, 0))
        self._voice.load(epochs, self.own, -TIMEOUT_MS)
        self._intake = Intake(
            self.own, SALT, self._draft, epochs, self.chains, Marking(self.chains, SALT), self._orphans, self._voice,
            _Slots(), None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.gossip = Gossip(name, self._draft, epochs, self.chains, self._orphans, self._voice)
        self._wake_ms = -1
        self._run(lambda now: self.gossip.open(common_pb2.Signed(), GENESIS, now))

    # ---- what happens to it

    def met(self, up: Sequence[str], down: Sequence[str]) -> None:
        """Its mesh domain has found these alive, and those gone."""

        def change(_: Now) -> None:
            for node in down:
                self.gossip.on_peer_down(node)
            for node in up:
                self.gossip.on_peer_up(node)

        self._run(change)

    def write(self) -> CheckedBlock:
        written: list[CheckedBlock] = []

        def speak(now: Now) -> None:
            head, items = self.chains.author(self.own), self.mesh.statements()
            parents = self.chains.take_parents(self.own)
            block = seal_block(
                self.own, head.height + 1, head.digest, parents, items, now.utc_us, self._signer, SALT
            )  # fmt: skip
            self.mesh.known[block.raw] = block
            self.chains.append(block)
            self.gossip.add_own(block, now)
            written.append(block)

        self._run(speak)
        return written[0]

    def receive(self, sender: str, request: Message) -> Message:
        answer: list[Message] = []

        def handle(now: Now) -> None:
            match request:
                case ledger_pb2.PushBlocksRequest():
                    blocks = tuple(self.mesh.known[block.SerializeToString()] for block in request.blocks)
                    held = [block.place for block in blocks if self.chains.holds(block.digest)]
                    taken = self._intake.take(blocks, sender, now)
                    command = PushBlocks(sender, blocks, (), words_of(request))
                    self.gossip.on_push(command, held, taken, now, self.mesh.engine.rng)
                    answer.append(ledger_pb2.PushBlocksResponse())
                case ledger_pb2.SyncBlocksRequest():
                    yours = request.yours if request.HasField("yours") else None
                    wanted = tuple(request.wanted)
                    command_ = SyncBlocks(sender, question_of(request), yours, wanted, link=request.link)
                    answer.append(self.gossip.on_sync(command_, now))

        self._run(handle)
        return answer[0]

    def on_end(self, answered: Answered) -> None:
        tag = answered.tag
        assert isinstance(tag, Tag)
        self._run(lambda now: self.gossip.on_answered(tag, answered, now))

    # ---- inside

    def _run(self, act: Callable[[Now], None]) -> None:
        now = self.mesh.now()
        self._draft.begin(now)
        act(now)
        self._close(now)

    def _close(self, now: Now) -> None:
        rng = self.mesh.engine.rng
        self._voice.on_time(now.mono_ms)
        self.gossip.on_time(now, rng)
        self.gossip.flush(now, rng)
        for effect in self._draft.take():
            match effect:
                case Put(table, key, value):
                    self._rows.put(table, key, value)
                case Call():
                    self.mesh.carry(self, effect)
        due = self.gossip.deadline_ms()
        if due is not None and due != self._wake_ms:
            self._wake_ms = due
            self.mesh.engine.after(due * MS - self.mesh.engine.now_us, self._wake)

    def _wake(self) -> None:
        due = self.gossip.deadline_ms()
        if due is not None and due <= self.mesh.now().mono_ms:
            self._wake_ms = -1
            self._run(lambda now: None)


class Mesh:
    """Nodes, and a network that is whole or cut in two."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.engine = shape, Engine(seed)
        self.known: dict[bytes, CheckedBlock] = {}
        self.bytes = 0
        names = [base32(blake2b(b"%d" % number, digest_size=20).digest()) for number in range(shape.nodes)]
        self.nodes = {name: _Node(self, name) for name in names}
        self._halves = names[: shape.nodes // 2], names[shape.nodes // 2 :]
        self._side = {name: side for side, half in enumerate(self._halves) for name in half}
        self.cut = False

    def now(self) -> Now:
        return Now(self.engine.now_us // MS, EPOCH_US + self.engine.now_us)

    def statements(self) -> list[Item]:
        rng = self.engine.rng
        return [
            Statement(bool(n % 2), rng.randbytes(20), rng.randrange(0, 99), 0, rng.randbytes(32))
            for n in range(STATEMENTS)
        ]

    def carry(self, sender: _Node, call: Call) -> None:
        self.bytes += call.request.ByteSize()
        receiver = self.nodes[call.node]

        def arrive() -> None:
            if self._apart(sender, receiver):
                return
            answer = receiver.receive(sender.name, call.request)
            self.bytes += answer.ByteSize()
            self.engine.after(self._delay(), lambda: end(answer))

        def end(answer: Message | None) -> None:
            fault = None if answer is not None else Unavailable("no answer")
            sender.on_end(Answered(call.tag, call.node, answer, fault))

        if self._apart(sender, receiver):
            self.engine.after(TIMEOUT_MS * MS, lambda: end(None))
        else:
            self.engine.after(self._delay(), arrive)

    def meet(self) -> None:
        """Everybody finds everybody."""
        for name, node in self.nodes.items():
            others = [other for other in self.nodes if other != name]
            self.engine.after(self.engine.rng.randrange(0, 2 * SECOND), partial(node.met, others, ()))

    def part(self) -> None:
        self.cut = True
        self._tell_halves(lambda node, others: node.met((), others))

    def join(self) -> None:
        self.cut = False
        self._tell_halves(lambda node, others: node.met(others, ()))

    def run(self, seconds: float) -> None:
        self.engine.run_until(self.engine.now_us + int(seconds * SECOND))

    @property
    def agreed(self) -> bool:
        return len({node.chains.heads.summary(GENESIS) for node in self.nodes.values()}) == 1

    def _tell_halves(self, tell: Callable[[_Node, Sequence[str]], None]) -> None:
        """Each node finds out about the other half within two seconds."""
        for name, node in self.nodes.items():
            others = self._halves[1 - self._side[name]]
            self.engine.after(self.engine.rng.randrange(0, 2 * SECOND), partial(tell, node, others))

    def _apart(self, one: _Node, other: _Node) -> bool:
        return self.cut and self._side[one.name] != self._side[other.name]

    def _delay(self) -> int:
        return self.engine.rng.randrange(*LATENCY_MS) * MS


def spread(shape: Shape, seed: int = 1) -> Spread:
    """Raises RuntimeError should the halves not come together in HEAL_S."""
    mesh = Mesh(shape, seed)
    rng = mesh.engine.rng
    mesh.meet()
    mesh.run(30)
    mesh.part()
    names, half = [*mesh.nodes], shape.nodes // 2
    writers = [*names[: shape.writers // 2], *names[half : half + shape.writers // 2]]
    written: list[CheckedBlock] = []

    def write(node: _Node) -> None:
        written.append(node.write())

    for writer in writers * shape.blocks:
        at_us = rng.randrange(5 * SECOND, int(shape.hours * HOUR_S * SECOND))
        mesh.engine.after(at_us, partial(write, mesh.nodes[writer]))
    mesh.run(shape.hours * HOUR_S)
    size = sum(len(block.raw) for block in written)
    before, began_us = mesh.bytes, mesh.engine.now_us
    mesh.join()
    while not mesh.agreed:
        mesh.run(1)
        if mesh.engine.now_us - began_us > HEAL_S * SECOND:
            raise RuntimeError(f"the halves hold other blocks after {HEAL_S} s")
    lacking = sum(
        len(block.raw) * (shape.nodes - half if mesh._side[block.header.author_id] == 0 else half) for block in written
    )
    healed_s = (mesh.engine.now_us - began_us) / SECOND
    tree = size * (shape.nodes - 1)
    return Spread(mesh.bytes, tree, mesh.bytes - before, lacking, healed_s, len(written))


FULL = Shape(nodes=1_000, writers=10, blocks=40, hours=24)
QUICK = Shape(nodes=60, writers=4, blocks=20, hours=1)


def measure_spreading(shape: Shape) -> list[Figure]:
    """The whole of it, and what happens once the halves are joined. The goal is for FULL: of a smaller mesh, which is
    nearer to its tree, the ratio is a report."""
    told = spread(shape)
    ratio = "spread_bytes_of_tree" if shape == FULL else "spread_bytes_of_tree_small"
    return [
        Figure("spread_nodes", shape.nodes, note=f"cut in two for {shape.hours:g} h"),
        Figure("spread_blocks", told.blocks),
        Figure(ratio, told.ratio),
        Figure("spread_healing_bytes_of_tree", told.healing_ratio),
        Figure("spread_healed_s", told.healed_s),
    ]
