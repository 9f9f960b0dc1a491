"""What a payment costs on a link that carries bytes by the dozen: real machines, their blocks in the compact form, each
said once and heard by all.

One node speaks at a time, as on a radio. `in_turn`: a node takes in what it has heard when its turn to speak comes, so
one block says all that it has to say by then; otherwise each answers at once to each block, and what is sealed waits.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.commands import PushBlocks
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.compact import compress
from offgrid_node.protocol.ledger.expanding import expand
from offgrid_node.protocol.ledger.heard import Heard
from offgrid_node.protocol.ledger.receipts import least
from offgrid_node.protocol.ledger.tables import LOG, number_key
from offgrid_node.protocol.signing import SIGNATURE_BYTES
from offgrid_tools.ledgersim.keys import SALT, holds
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.ledgersim.whole.world import World

CALM_MS = 10_000  # after the start, until all witnesses have met
FRAME_MS = 400  # a block of 80 bytes at SF8, and the gap before the next
TURNS_MAX = 100
AMOUNT_MICRO = 12_500


class Round(msgspec.Struct, frozen=True):
    """All blocks of one payment until it is final at every node. `sizes` are in the order in which they were said.
    `late_bytes` are of what is left to say then: the confirm of a witness that was sealed before, and ends nothing."""

    sizes: tuple[int, ...]
    whole_bytes: int  # the same blocks as they are
    late_bytes: int

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


def finality_round(witnesses: int = 4, *, in_turn: bool = True, rounds: int = 1, seed: int = 1) -> Round:
    """The last of so many payments, by an owner who is no witness, with the request id that `offgrid transfer` gives
    each."""
    world = World(seed, witnesses, observers=2)
    world.open()
    world.run(CALM_MS)
    world.sides = {name: number for number, name in enumerate(world.names)}  # what is heard is what is said here
    radio = _Radio(world, in_turn)
    for number in range(rounds):
        said = radio.pay(f"r-{number}")
    return said


def finality_at_once(witnesses: int = 4) -> Round:
    """Each node answering at once: in turn the bytes are fewer."""
    return finality_round(witnesses, in_turn=False, rounds=3)


def receipt_bytes(witnesses: int = 4) -> int:
    """Of a light receipt, all witnesses having the same weight."""
    committee = Committee(tuple((name, 1_000) for name in World(1, witnesses).names[:witnesses]))
    receipt = least(committee, {1 << bit: bytes(SIGNATURE_BYTES) for bit in range(witnesses)}, 0)
    assert receipt is not None, "all of them are enough"
    return len(receipt.encode())


class _Radio:
    """`owner` pays `payee`; neither witnesses."""

    def __init__(self, world: World, in_turn: bool) -> None:
        self._world, self._in_turn = world, in_turn
        self._nodes = [*world.nodes.values()]
        self._owner, self._payee = self._nodes[-1], self._nodes[-2]
        self._heard: dict[str, list[tuple[str, CheckedBlock]]] = {node.node_id: [] for node in self._nodes}
        self._said = {node.node_id: len([*node.store.scan(LOG)]) for node in self._nodes}  # as far as it was looked at
        self._waiting: list[tuple[Node, CheckedBlock]] = []
        self._contexts = {node.node_id: self._rows(node) for node in self._nodes}

    def pay(self, request_id: str) -> Round:
        sizes, whole = list[int](), 0
        before = self._owner.balances()[self._owner.node_id][1]
        self._owner.transfer(self._payee.node_id, AMOUNT_MICRO, request_id)
        self._look(self._owner)
        for turn in range(TURNS_MAX):
            if all(node.balances()[self._owner.node_id][1] > before for node in self._nodes):
                return Round(tuple(sizes), whole, self._rest())
            if self._in_turn and not self._waiting:
                self._take_in(self._nodes[turn % len(self._nodes)])
            if self._waiting:
                node, block = self._waiting.pop(0)
                sizes.append(self._say(node, block))
                whole += len(block.raw)
        raise RuntimeError(f"not final after {TURNS_MAX} turns")

    def _say(self, node: Node, block: CheckedBlock) -> int:
        data = compress(self._contexts[node.node_id], block)
        self._world.run(FRAME_MS)
        for other in self._nodes:
            if other is not node:
                heard = expand(self._contexts[other.node_id], data, holds)
                assert heard.raw == block.raw, "a listener has the block that was signed"
                self._contexts[other.node_id].hear(heard)
                self._heard[other.node_id].append((node.node_id, heard))
        for other in () if self._in_turn else self._nodes:
            self._take_in(other)
        return len(data)

    def _take_in(self, node: Node) -> None:
        heard, self._heard[node.node_id] = self._heard[node.node_id], []
        if heard:
            node.ask(PushBlocks(heard[0][0], tuple(block for _, block in heard)), caller=heard[0][0])
        self._contexts[node.node_id] = self._rows(node)
        self._look(node)

    def _look(self, node: Node) -> None:
        """Its own blocks that are new wait for their turn."""
        place = self._said[node.node_id]
        while (raw := node.store.get(LOG, number_key(place + 1))) is not None:
            place += 1
            block = self._world.check(ledger_pb2.Block.FromString(raw))
            if block.header.author == node_id_bytes(node.node_id):
                self._waiting.append((node, block))
        self._said[node.node_id] = place

    def _rest(self) -> int:
        """What is left to say comes before the next payment."""
        late = 0
        for node in self._nodes * 2:
            self._take_in(node)
            while self._waiting:
                late += self._say(*self._waiting.pop(0))
        return late

    def _rows(self, node: Node) -> Heard:
        return Heard(node.store, self._world.genesis, SALT)
