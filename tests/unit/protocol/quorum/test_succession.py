"""Whatever epochs follow each other, an ack counts for just what its node was to hold all the time since it signed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.events import OpenQuorum
from offgrid_node.protocol.quorum.records import Ack, Epoch, sign_ack, sign_epoch
from offgrid_node.protocol.quorum.succession import laid, successor, wants_another
from offgrid_node.protocol.quorum.tally import Tally, merged
from offgrid_tools.sim.crypto import SimSigner

SALT, SUBJECT = b"s" * 16, b"r" * 32
OWNER, NODES = SimSigner("owner"), [SimSigner(f"host-{n}") for n in range(4)]
SHARDS, NEEDED, REQUIRED = 5, 3, 1_500


@dataclass
class Model:
    """The rule itself: what each node is to hold since when, and what it has acked of it."""

    tally: Tally | None = None
    since: dict[tuple[str, int], int] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)  # the newest epoch that each node acked

    @property
    def number(self) -> int:
        return self.tally.epoch.epoch if self.tally else 0

    def open(self, wanted: OpenQuorum) -> None:
        before = self.tally.epoch if self.tally else None
        epoch = successor(OWNER.node_id, before, wanted)
        assert Epoch.decode(epoch.encode()) == epoch
        assert (laid(epoch), wants_another(epoch, wanted)) == (wanted.layout, bool(wanted.lost))
        row = self.tally.row if self.tally else None
        self.tally = Tally.opened(sign_epoch(epoch, OWNER, SALT), 1, row)
        pairs = zip(wanted.layout, range(SHARDS), strict=True) if wanted.layout else ((n, 0) for n, _ in wanted.members)
        self.since = {
            pair: self.since[pair] if pair in self.since and pair not in wanted.lost else epoch.epoch for pair in pairs
        }

    def ack(self, signer: SimSigner, number: int) -> None:
        assert self.tally is not None
        epoch = self.tally.epoch
        ack = Ack(signer.node_id, OWNER.node_id, epoch.quorum_id, number, SUBJECT, 7, bytes(32))
        try:
            self.tally.add(signer.node_id, sign_ack(ack, signer, SALT), number)
            self.acked[signer.node_id] = max(number, self.acked.get(signer.node_id, 0))
        except PeerFault:
            assert not any(node == signer.node_id and since <= number for (node, _), since in self.since.items())

    def held(self) -> set[tuple[str, int]]:
        return {(node, shard) for (node, shard), since in self.since.items() if since <= self.acked.get(node, 0)}

    def check(self) -> None:
        assert self.tally is not None
        held = {(node, shard) for node, shards in self.tally.held.items() for shard in shards}
        assert held == self.held()
        assert self.tally.acked_milli == lightest_loss(held, self.tally.epoch)
        again = Tally(quorum_pb2.QuorumRow.FromString(self.tally.row.SerializeToString()))
        assert (again.held, again.reached) == (self.tally.held, self.tally.reached)


def lightest_loss(held: set[tuple[str, int]], epoch: Epoch) -> int:
    """By trying every set of hosts: what must be lost until too little is left."""
    nodes = sorted({node for node, _ in held})
    least = [
        sum(epoch.weights[node] for node in lost)
        for count in range(len(nodes) + 1)
        for lost in itertools.combinations(nodes, count)
        if len([shard for node, shard in held if node not in lost]) < epoch.needed
    ]
    return min(least)


members = st.lists(st.sampled_from(NODES).map(lambda n: n.node_id), min_size=1, max_size=4, unique=True).flatmap(
    lambda ids: st.tuples(*[st.tuples(st.just(node), st.sampled_from([0, 500, 1_000, 2_000])) for node in ids])
)


@st.composite
def openings(draw: st.DrawFn, *, coded: bool) -> OpenQuorum:
    named = draw(members)
    places = st.sampled_from(["", *(node for node, _ in named)])
    layout = tuple(draw(st.lists(places, min_size=SHARDS, max_size=SHARDS))) if coded else ()
    pairs = st.tuples(st.sampled_from([n.node_id for n in NODES]), st.integers(0, SHARDS - 1 if coded else 0))
    lost = draw(st.frozensets(pairs, max_size=2))
    return OpenQuorum("object:o-1", SUBJECT, 7, REQUIRED, named, NEEDED if coded else 1, layout, lost)


@given(st.data(), st.booleans())
def test_acks_count_on_for_what_stays(data: st.DataObject, coded: bool) -> None:
    model = Model()
    model.open(data.draw(openings(coded=coded)))
    for _ in range(data.draw(st.integers(0, 12))):
        if data.draw(st.booleans()):
            model.open(data.draw(openings(coded=coded)))
            model.acked = {node: number for node, number in model.acked.items() if node in model.tally.held}  # type: ignore[union-attr]
        else:
            model.ack(data.draw(st.sampled_from(NODES)), data.draw(st.integers(1, model.number)))
        model.check()


@given(st.data())
def test_brokers_that_hear_of_it_in_any_order_count_the_same(data: st.DataObject) -> None:
    model, rows = Model(), []
    for _ in range(data.draw(st.integers(1, 4))):
        model.open(data.draw(openings(coded=True)))
        for signer in data.draw(st.lists(st.sampled_from(NODES), max_size=4)):
            model.ack(signer, data.draw(st.integers(1, model.number)))
            assert model.tally is not None
            rows.append(quorum_pb2.QuorumRow.FromString(model.tally.row.SerializeToString()))
    assert model.tally is not None
    rows.append(model.tally.row)
    held: quorum_pb2.QuorumRow | None = None
    for row in data.draw(st.permutations(rows)):
        held = merged(held, row) or held
    assert held is not None
    assert Tally(held).held == dict(
        sorted(model.tally.held.items(), key=lambda one: list(Tally(held).held).index(one[0]))
    )


def test_a_later_ack_takes_the_place_of_an_earlier_one() -> None:
    node = NODES[0].node_id
    model = Model()
    model.open(OpenQuorum("object:o-1", SUBJECT, 7, REQUIRED, ((node, 1_000),), 3, ("", "", node, node, node)))
    model.ack(NODES[0], 1)
    model.open(OpenQuorum("object:o-1", SUBJECT, 7, REQUIRED, ((node, 1_000),), 3, (node, node, node, node, "")))
    assert model.tally is not None
    assert (model.tally.held, model.tally.acked_milli) == ({node: (2, 3)}, 0)
    model.ack(NODES[0], 2)
    assert (model.tally.held, model.tally.acked_milli) == ({node: (0, 1, 2, 3)}, 1_000)
    assert len(model.tally.row.acks) == 1
    model.ack(NODES[0], 1)
    assert model.tally.held == {node: (0, 1, 2, 3)}, "the newest stands"
