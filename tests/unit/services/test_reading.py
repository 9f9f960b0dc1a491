"""Reading back: whatever hosts do, what comes out is what went in, or a fault that names who was tried and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bulk_world import STRIPE, Letter, World
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid.client.silence import PAUSE_MS_MAX
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, OutcomeUnknown, PermissionDenied, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.objects.manifest import TAG_BYTES
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.objects.gathering import ASKING_MS_MAX, HEDGE_MS
from offgrid_node.services.objects.holders import AWAY_MS, LYING_MS, Trust
from offgrid_node.services.objects.room import trust_of
from offgrid_node.services.roads.choice import TOO_SLOW

DATA = bytes(range(256)) * 2
Reply = objects_pb2.ReadReplicaResponse
Read = objects_pb2.ReadObjectRequest


@pytest.fixture
def world() -> World:
    """DATA lies on all three hosts, and no more with its owner."""
    world = World()
    world.owner.put(DATA, name="data")
    world.pass_ms(1_000)
    made = world.owner.info("data")
    assert (made.local, len(made.acks)) == (False, 3)
    assert list(world.owner.blobs.names()) == []
    world.log.clear()
    return world


def asked(world: World) -> list[str]:
    """Who was asked for stripes since, in order, by name."""
    return [entry for entry in world.log if entry == "ReadReplica"]


def by(world: World, host: int, answer: Callable[[Letter], object]) -> None:
    """One host answers reads in its own way."""
    liar = world.hosts[host].node_id

    def bend(letter: Letter):  # type: ignore[no-untyped-def]
        return answer(letter) if letter.target == liar and letter.short == "ReadReplica" else None

    world.bend = bend


def honest(world: World, letter: Letter) -> Reply:
    request = letter.request
    data = world.by_id[letter.target].blobs.read(request.object_id, request.offset, request.length)
    return Reply(data=data, size_bytes=len(DATA))


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


LIES: dict[str, Callable[[World, Letter], object]] = {
    "other bytes": lambda w, to: Reply(data=flipped(honest(w, to).data)),
    "the stripe before": lambda w, to: Reply(data=w.hosts[1].blobs.read(to.request.object_id, 0, to.request.length)),
    "too little": lambda w, to: Reply(data=honest(w, to).data[:-1]),
    "too much": lambda w, to: Reply(data=honest(w, to).data + b"x"),
    "nothing": lambda w, to: Reply(),
    "an answer of another kind": lambda w, to: objects_pb2.GetCapacityResponse(),
    "that it has no replica": lambda w, to: NotFound("gone"),
    "no answer": lambda w, to: OutcomeUnknown("too late"),
    "that it is busy": lambda w, to: Unavailable("busy"),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_bad_host_does_no_harm(world: World, lie: str) -> None:
    by(world, 0, lambda letter: LIES[lie](world, letter))
    assert world.owner.read("data") == DATA


@pytest.mark.parametrize("lie", LIES)
def test_of_bad_hosts_alone_nothing_is_believed(world: World, lie: str) -> None:
    world.bend = lambda letter: LIES[lie](world, letter) if letter.short == "ReadReplica" else None  # type: ignore[assignment,return-value]
    if lie == "the stripe before":
        part = world.owner.ask("ReadObject", Read(object="data"))  # the first stripe is what it says
        assert part.data == DATA[:STRIPE]
    with pytest.raises(Unavailable) as caught:
        world.owner.ask("ReadObject", Read(object="data", offset=STRIPE))
    assert caught.value.reason == "NoReplica"
    for host in world.hosts:
        assert host.node_id in caught.value.message, "who was tried"


def test_a_liar_is_asked_last_for_a_while(world: World) -> None:
    calls: list[str] = []
    liar = world.hosts[0].node_id

    def bend(letter: Letter):  # type: ignore[no-untyped-def]
        if letter.short != "ReadReplica":
            return None
        calls.append(letter.target)
        return Reply(data=b"no") if letter.target == liar else None

    world.bend = bend
    assert world.owner.read("data") == DATA
    assert calls.count(liar) == 1, "one try was enough"
    world.pass_ms(AWAY_MS)
    world.owner.read("data")
    assert calls.count(liar) == 1
    world.pass_ms(LYING_MS)
    world.owner.read("data")
    assert calls.count(liar) == 2, "it gets another chance in the end"


def test_stripes_are_spread_over_the_hosts(world: World) -> None:
    sources = {world.owner.ask("ReadObject", Read(object="data", offset=at)).read_from for at in range(0, 512, STRIPE)}
    assert sources == {host.node_id for host in world.hosts}


def test_dead_hosts_are_asked_last(world: World) -> None:
    for host in world.hosts[:2]:
        host.up = False
    assert world.owner.read("data") == DATA
    assert len(asked(world)) == len(DATA) // STRIPE, "each stripe was asked of the living one first"


def test_a_slow_host_gets_a_long_time_only_when_no_other_answers(world: World) -> None:
    calls = []
    world.bend = lambda letter: calls.append(letter.target) or (OutcomeUnknown("late") if len(calls) < 5 else None)  # type: ignore[func-returns-value]
    assert world.owner.ask("ReadObject", Read(object="data")).data == DATA[:STRIPE]
    assert len(calls) == 5
    assert set(calls[:3]) == {host.node_id for host in world.hosts}, "first each of them once"


def test_beside_a_frozen_host_another_is_asked_and_the_frozen_one_last_from_then_on(world: World) -> None:
    held: list[Letter] = []

    def bend(letter: Letter) -> Fault | None:
        if letter.short == "ReadReplica" and (not held or letter.target == held[0].target):
            held.append(replace(letter))
            letter.done = lambda end: None
        return None

    world.bend = bend
    ticket = world.owner.begin("ReadObject", Read(object="data"))
    world.settle()
    assert ticket.outcome is None
    world.pass_ms(HEDGE_MS + 1)
    assert ticket.outcome.data == DATA[:STRIPE]
    assert world.owner.read("data") == DATA
    assert len(held) == 1


class TestWhenNobodyGivesIt:
    def read(self, world: World) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            world.owner.ask("ReadObject", Read(object="data"))
        assert caught.value.reason == "NoReplica"
        return caught.value

    def test_dead_hosts_are_asked_once_and_named_in_one_sentence(self, world: World) -> None:
        world.owner.trust.name_of = lambda node: world.by_id[node].name
        for host in world.hosts:
            host.up = False
        said = self.read(world).message
        assert len(asked(world)) == 3, "a long time helps nobody whom nothing reaches"
        assert said.startswith(
            f"stripe 0 of {world.owner.info('data').object_id} cannot be read: no copy is here, and "
        )
        hosts = said.partition("none of its hosts gives one: ")[2].split(", ")
        assert sorted(hosts) == ["host-0 is not alive", "host-1 is not alive", "host-2 is not alive"]

    def test_each_is_said_to_have_done_what_it_did(self, world: World) -> None:
        ends = [
            Reply(data=b"no"),
            NotFound("gone"),
            OutcomeUnknown("reset by peer {grpc_status:14}"),
        ]
        answers = {host.node_id: end for host, end in zip(world.hosts, ends, strict=True)}
        world.bend = lambda letter: answers[letter.target]
        said = self.read(world).message
        for host, why in zip(world.hosts, ("gave other bytes", "keeps it no more", "did not answer"), strict=True):
            assert f"{host.node_id} {why}" in said
        assert "grpc" not in said

    def test_the_asking_ends_when_its_time_is_over(self, world: World) -> None:
        def bend(letter: Letter) -> Fault:
            world.clock.mono_ms += ASKING_MS_MAX // 2
            return OutcomeUnknown("too late")

        world.bend = bend
        assert "was not asked any more" in self.read(world).message
        assert len(asked(world)) == 2

    def test_the_client_is_not_to_ask_again_by_itself(self, world: World) -> None:
        for host in world.hosts:
            host.up = False
        retry_ms = self.read(world).retry_ms
        assert retry_ms is not None
        assert retry_ms > PAUSE_MS_MAX


class TestTheOwnersOwnCopy:
    @pytest.fixture
    def world(self) -> World:
        """The hosts are away: the only copy is here."""
        world = World()
        for host in world.hosts:
            host.up = False
        world.owner.put(DATA, name="data")
        return world

    def test_is_read_without_asking_anybody(self, world: World) -> None:
        world.log.clear()
        assert world.owner.read("data") == DATA
        assert asked(world) == []

    def test_is_no_reason_to_give_up_when_it_is_damaged(self, world: World) -> None:
        object_id = world.owner.info("data").object_id
        for host in world.hosts[:2]:
            host.up = True
        world.pass_ms(60_000)  # two of three: durable, and the owner's copy stays
        assert len(world.owner.info("data").acks) == 2
        world.owner.blobs.flip(object_id, STRIPE + TAG_BYTES)
        assert world.owner.read("data") == DATA

    def test_that_is_damaged_and_alone_is_said_to_be(self, world: World) -> None:
        world.owner.blobs.flip(world.owner.info("data").object_id, 0)
        with pytest.raises(Unavailable, match="this node: stripe 0 does not open"):
            world.owner.read("data")


@given(size=st.integers(0, 4 * STRIPE), offset=st.integers(0, 4 * STRIPE), length=st.integers(0, 4 * STRIPE))
def test_a_range_is_what_the_object_has_there_up_to_the_end_of_a_stripe(size: int, offset: int, length: int) -> None:
    world, data = World(0), bytes(index % 251 for index in range(size))
    made = world.owner.put(data)
    request = Read(object=made.object_id, offset=offset, length=length)
    if offset > size:
        with pytest.raises(InvalidRequest, match="offset"):
            world.owner.ask("ReadObject", request)
        return
    part = world.owner.ask("ReadObject", request)
    end = min(offset + length if length else size, size, offset - offset % STRIPE + STRIPE)
    assert (part.data, part.size_bytes) == (data[offset:end], size)


def test_an_object_whose_key_is_for_somebody_else_does_not_open(world: World) -> None:
    """Each wrap is for one reader; the manifest of another object brings none of ours."""
    with pytest.raises(PermissionDenied, match="seal does not open"):
        world.hosts[0].reading.key_of(world.owner.info("data").manifest)


def test_whom_a_host_names_instead_is_asked_as_well(world: World) -> None:
    """Bounded: a liar may name anybody, and costs a try each."""

    def bend(letter: Letter) -> Fault | None:
        if letter.target == world.hosts[2].node_id:
            return None
        return NotFound("not here", metadata={"holders": f"nobody,{world.hosts[2].node_id}"})

    world.bend = bend
    assert world.owner.read("data") == DATA


def test_an_answer_is_judged_while_machines_are_loaded_anew(world: World) -> None:
    """Else the read that waits for it would never end: a fault of the callback is nobody's."""
    runtime = world.owner.runtime
    trust, loaded = trust_of(runtime, world.owner.node_id, no_directory, no_pace), runtime.machines
    runtime.machines = {}
    assert trust.why("a host", Unavailable("refused")) == "is not alive"
    assert trust.rank("a host") == (False, True, 0)
    runtime.machines = loaded


def test_of_hosts_that_are_alive_and_trusted_those_are_asked_first_to_whom_a_fast_road_leads(world: World) -> None:
    paces = {"near": FREE, "over lora": Pace(byte_us=1_500), "over ble": Pace(byte_us=20)}
    trust = Trust(world.owner.runtime, "me", lambda node: node != "dead", paces=lambda node: paces.get(node, FREE))
    trust.shun("liar", 1_000)
    hosts = ["liar", "dead", "over lora", "over ble", "near"]
    assert sorted(hosts, key=trust.rank) == ["near", "over ble", "over lora", "dead", "liar"]
    assert not trust.may_answer_later("over lora", Unavailable("too large for it", reason=TOO_SLOW))


def no_pace(node: str) -> Pace:
    raise Unavailable("the node is loading what it knows", reason="Reloading")


def no_directory() -> Directory:
    raise Unavailable("the node is loading what it knows", reason="Reloading")
