"""All liars together, who see what each honest witness holds and tell a single one just what ends a ballot there: the
last vote of a certificate, the last confirm, the last report, and which certificate these name.

While witnesses hear each other only now and then that leaves one with a certificate that the others lack, and the next
with another one of a higher ballot: what the rules of recovery are for.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import Dispute
from offgrid_node.protocol.ledger.items import Item, Report, Statement
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_node.protocol.ledger.slots import NOTHING, Slot
from offgrid_node.protocol.ledger.tables import DISPUTES, SLOTS, slot_key
from offgrid_tools.ledgersim.judge import NO_CERTIFICATE, Place
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.slots.node import Node
from offgrid_tools.ledgersim.slots.world import World

TICK_MS = (10, 100)


class Cabal:
    """`names` are the liars; what is said is said by each of them."""

    def __init__(self, world: World, names: list[str]) -> None:
        self.world, self.names = world, names
        self.lying = True
        self._committee = Committee(world.genesis.witnesses)
        self._bits = 0
        self._chosen: dict[tuple[Place, int, bool], Node] = {}  # slot, ballot, whether it is of confirms → who is told
        for name in names:
            self._bits |= self._committee.bit_of(node_id_bytes(name))
        world.after(world.rng.randrange(*TICK_MS), self._tick)

    def _tick(self) -> None:
        world, rng = self.world, self.world.rng
        world.handled += 1
        world.after(rng.randrange(*TICK_MS) * world.slowness, self._tick)
        open_places = [place for place, txs in world.txs.items() if len(txs) > 1 and place not in world.judge.final]
        node = world.nodes[rng.choice(world.honest)]
        if not self.lying or not open_places or not node.up:
            return
        choices = [*self._choices(node, rng.choice(open_places))]
        if choices:
            self._whisper(node, rng.choice(choices))

    def _choices(self, node: Node, place: Place) -> Iterator[list[Item]]:
        """What would end something at this node."""
        key = slot_key(*place)
        row = node.store.get(SLOTS, key)
        if row is None:
            return
        slot, _ = Slot.decode(key, row)
        dispute = Dispute.decode(*place, ledger_pb2.DisputeRow.FromString(node.store.get(DISPUTES, key) or b""))
        tallies = [(0, *each) for each in slot.tallies.items()] + [*dispute.all_tallies()]
        for ballot, digest, tally in tallies:
            for confirms, said in ((False, tally.voted), (True, tally.confirmed)):
                if self._completes(said) and self._is_chosen(node, (place, ballot, confirms)):
                    yield [Statement(confirms, *place, ballot, digest)]
        top = max(dispute.reporters, default=0)
        for ballot in {max(top, 1), top + 1}:
            if self._completes(dispute.reporters.get(ballot, 0)):
                yield from ([report, *self._lead(report)] for report in self._reports(place, ballot))

    def _completes(self, said: int) -> bool:
        """Whether the liars' word makes a quorum of what is none without it."""
        return not self._committee.enough(said) and self._committee.enough(said | self._bits)

    def _is_chosen(self, node: Node, what: tuple[Place, int, bool]) -> bool:
        """One node alone is told what makes a certificate of that ballot, or ends the slot there."""
        return self._chosen.setdefault(what, node) is node

    def _reports(self, place: Place, ballot: int) -> Iterator[Report]:
        """Of the lowest certificate that there is, though few may have seen it; and of none."""
        certified = sorted(self.world.judge.certified(place))
        for at, digest in (NO_CERTIFICATE, *certified[:1]):
            if at < ballot:
                yield Report(*place, ballot, max(at, 0), digest)

    def _lead(self, report: Report) -> list[Item]:
        """If one of them leads, its vote for what the report names."""
        if not self._committee.leader_of(report.account, report.seq, report.ballot) & self._bits:
            return []
        noop = noop_digest(SALT, report.account, report.seq)
        digest = report.certified if report.certified != NOTHING else noop
        return [Statement(False, report.account, report.seq, report.ballot, digest)]

    def _whisper(self, node: Node, items: list[Item]) -> None:
        world = self.world
        for name in self.names:
            messages = world.messages(node_id_bytes(name), items)
            world.left(node_id_bytes(name), messages)
            for message in messages:
                world.carry(name, node, message)
