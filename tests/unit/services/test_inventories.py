"""An owner and its hosts compare what they keep: what a host lost is brought again, what came back from a backup though
it was deleted goes again, and nobody reads an object for it."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from bulk_world import Letter, Node, World
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, Unavailable
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.objects import comparing
from offgrid_node.protocol.objects.inventory import SUMMARY_BYTES, count_of, holdings_of, summary_of
from offgrid_node.protocol.objects.measuring import FIRST_MS_MAX
from offgrid_node.protocol.objects.tables import GIVEN, KEPT
from offgrid_node.protocol.reconcile import symbols
from offgrid_node.protocol.reconcile.sessions import WINDOW_SYMBOLS_MAX
from offgrid_node.protocol.reconcile.symbols import KEY_BYTES, SYMBOLS_MAX
from offgrid_node.services.bulk import inline
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.objects import inventories
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs

DATA = bytes(range(256)) * 2


class Held:
    """Work that begins when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Any]] = []

    def __call__(self, work: Any, ended: Any) -> None:
        self._waiting.append((work, ended))

    def end(self) -> None:
        work, ended = self._waiting.pop(0)
        ended(work())


def member(node: Node) -> Caller:
    return Caller(Kind.MEMBER, node.node_id, frozenset({CORE}))


def put(world: World, name: str, data: bytes = DATA) -> str:
    object_id = world.owner.put(data, name=name, required_milli=1_000).object_id
    world.pass_ms(1_000)
    return object_id


def return_(world: World, host: Node) -> None:
    """Its process has begun anew; it hears of everybody, and they of it, and of the life that it lives now."""
    host.restart()
    world.log.clear()
    world.settle()
    for _ in range(3):
        world.pass_ms(FIRST_MS_MAX)


def agree(world: World, host: Node) -> bool:
    return summary_of(world.owner.store, GIVEN, host.node_id) == summary_of(host.store, KEPT, world.owner.node_id)


def said(world: World) -> list[str]:
    """Of inventories; hosts are asked for their room as well."""
    return [method for method in world.log if method.endswith("Inventory")]


def holders(world: World, object_id: str) -> set[str]:
    return {ack.node_id for ack in world.owner.info(object_id).acks}


class TestInSync:
    def test_is_told_in_one_call_of_few_bytes(self) -> None:
        world = World(2)
        for n in range(20):
            put(world, f"object {n}")
        sizes: list[int] = []

        def weigh(letter: Letter) -> None:
            if letter.short == "CompareInventory":
                sizes.append(letter.request.ByteSize())

        world.bend = weigh
        return_(world, world.hosts[0])
        assert said(world) == ["CompareInventory"]
        assert len(sizes) == 1
        assert sizes[0] + SUMMARY_BYTES < 50
        assert count_of(summary_of(world.owner.store, GIVEN, world.hosts[0].node_id)) == 20

    def test_is_asked_again_now_and_then(self) -> None:
        world = World(1)
        put(world, "one")
        world.log.clear()
        world.pass_ms(comparing.AGAIN_MS)
        assert said(world) == ["CompareInventory"]


class TestWorkForAMember:
    def test_is_under_way_once_until_it_ends(self) -> None:
        world = World(2)
        put(world, "one")
        (host, other), held = world.hosts, Held()
        host.bulk._carry = held
        request = objects_pb2.CompareInventoryRequest(key=bytes(KEY_BYTES), first=0, count=8)
        names = objects_pb2.NameInventoryRequest(key=bytes(KEY_BYTES), ids=[1])
        host.begin("CompareInventory", request, member(world.owner))
        for method, again in (("CompareInventory", request), ("NameInventory", names)):
            with pytest.raises(Exhausted, match="at most 1"):
                host.ask(method, again, member(world.owner))
        assert host.begin("CompareInventory", request, member(other)).outcome is None, "others wait for their turn"
        held.end()
        held.end()
        host.bulk._carry = inline
        assert host.ask("NameInventory", names, member(world.owner)) is not None


class TestAHostThatLost:
    @pytest.mark.parametrize("whole_disk", [False, True])
    def test_everything_is_filled_again(self, whole_disk: bool) -> None:
        world = World(2)
        made = [put(world, f"object {n}") for n in range(5)]
        host = world.hosts[0]
        host.blobs = MemoryBlobs()
        if whole_disk:
            host.store = MemoryStore()
        return_(world, host)
        assert sorted(host.blobs.names()) == sorted(made)
        assert all(holders(world, object_id) == {each.node_id for each in world.hosts} for object_id in made)
        assert agree(world, host)
        assert not {"ReadReplica", "ReadObject"} & set(world.log)

    @pytest.mark.parametrize("backup", [False, True])
    def test_with_its_disk_and_was_back_before_anybody_saw_it_gone(self, backup: bool) -> None:
        world = World(2)
        host, tables, blobs = world.hosts[0], MemoryStore()._tables, MemoryBlobs()
        made = [put(world, "one")]
        if backup:
            tables, blobs = deepcopy(host.store._tables), deepcopy(host.blobs)
        made.append(put(world, "two"))
        host.store, host.blobs = MemoryStore(), blobs
        host.store._tables = tables
        host.restart(seen=False)
        for _ in range(90):
            world.pass_ms(1_000)
        assert sorted(host.blobs.names()) == sorted(made)
        assert agree(world, host)

    def test_with_its_disk_and_was_back_before_it_had_named_its_life(self) -> None:
        """Its owner has begun anew, and has compared where it could."""
        world = World(2)
        made, host = [put(world, "one")], world.hosts[0]
        world.bend = lambda letter: Unavailable("late") if letter.short == "GetCapacity" else None
        world.owner.restart()
        world.pass_ms(comparing.UNNAMED_MS)
        made.append(put(world, "two"))
        host.store, host.blobs = MemoryStore(), MemoryBlobs()
        host.restart(seen=False)
        world.bend = lambda letter: None
        for _ in range(90):
            world.pass_ms(1_000)
        assert sorted(host.blobs.names()) == sorted(made)
        assert agree(world, host)

    def test_is_filled_from_the_others_where_its_owner_has_no_copy(self) -> None:
        world = World(3)
        object_id, host = put(world, "one"), world.hosts[0]
        assert not world.owner.info(object_id).local
        host.blobs = MemoryBlobs()
        return_(world, host)
        world.pass_ms(60_000)
        assert object_id in host.blobs.names()
        assert holders(world, object_id) == {each.node_id for each in world.hosts}
        assert agree(world, host)

    def test_what_is_not_durable_yet_gets_that_as_well(self) -> None:
        world = World(1)
        object_id, host = world.owner.put(DATA, required_milli=2_000).object_id, world.hosts[0]
        world.pass_ms(1_000)
        assert world.owner.info(object_id).state == objects_pb2.OBJECT_STATE_ACCEPTED
        host.blobs.delete(object_id)
        return_(world, host)
        world.pass_ms(20_000)
        assert object_id in host.blobs.names()
        assert holders(world, object_id) == {host.node_id}
        assert agree(world, host)

    def test_everything_needs_no_symbols_for_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much it was: symbols end somewhere."""
        monkeypatch.setattr(symbols, "SYMBOLS_MAX", 32)
        world = World(1)
        made = [put(world, f"object {n}") for n in range(60)]
        world.hosts[0].blobs = MemoryBlobs()
        return_(world, world.hosts[0])
        world.pass_ms(1_000)
        assert sorted(world.hosts[0].blobs.names()) == sorted(made)
        assert agree(world, world.hosts[0])

    def test_more_than_is_worked_out_together_is_compared_part_by_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is there more is found as well; what is the same is not touched."""
        monkeypatch.setattr(inventories, "TOGETHER_MAX", 8)
        world = World(1)
        made = [put(world, f"object {n}", b"x") for n in range(70)]
        host = world.hosts[0]
        for object_id in made[:60]:
            host.blobs.delete(object_id)
        return_(world, host)
        for _ in range(10):
            world.pass_ms(1_000)
        assert agree(world, host)
        assert sorted(each.object_id for each in holdings_of(host.store, KEPT, world.owner.node_id)) == sorted(made)
        assert len(said(world)) > 33, "a part for each next character"

    def test_whose_answers_never_end_is_given_up_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inventories, "TOGETHER_MAX", 0)
        world = World(1)
        made = [put(world, f"object {n}") for n in range(3)]
        world.hosts[0].blobs.delete(made[0])

        def garble(letter: Letter) -> None:
            if letter.short == "CompareInventory" and letter.request.count:
                letter.request.key, letter.request.prefix = b"another key here", ""

        world.bend = garble
        return_(world, world.hosts[0])
        assert said(world) == ["CompareInventory"] * 4, "the sum, all, the first part, the first part of that"
        assert holders(world, made[0]), "nothing follows from it"

    def test_and_cannot_be_compared_is_asked_less_and_less(self) -> None:
        world, asked = World(1), list[int]()
        put(world, "one")

        def refuse(letter: Letter) -> Fault | None:
            if letter.short != "CompareInventory":
                return None
            asked.append(world.clock.mono_ms)
            return Unavailable("busy")

        world.bend = refuse
        for _ in range(comparing.AGAIN_MS * 4 // comparing.RETRY_MS):
            world.pass_ms(comparing.RETRY_MS)
        pauses = [later - sooner for sooner, later in pairwise(asked)]
        assert pauses[:4] == [comparing.RETRY_MS << times for times in range(4)]
        assert max(pauses) == comparing.AGAIN_MS

    def test_one_of_many_gets_just_that_one(self) -> None:
        world = World(2)
        made = [put(world, f"object {n}", b"x" * 10) for n in range(50)]
        host = world.hosts[0]
        host.blobs.delete(made[17])
        return_(world, host)
        assert made[17] in host.blobs.names()
        assert world.log.count("OpenReplica") == 1
        assert agree(world, host)

    def test_does_not_count_until_it_has_it_again(self) -> None:
        world = World(2)
        object_id = put(world, "one")
        host = world.hosts[0]
        host.blobs = MemoryBlobs()
        refused = InvalidRequest("not now")
        world.bend = lambda letter: refused if letter.short == "OpenReplica" else None
        return_(world, host)
        assert holders(world, object_id) == {world.hosts[1].node_id}
        assert world.owner.info(object_id).state == objects_pb2.OBJECT_STATE_DURABLE
        world.bend = lambda letter: None
        world.pass_ms(120_000)
        assert holders(world, object_id) == {each.node_id for each in world.hosts}

    def test_what_was_put_since_its_backup_gets_that(self) -> None:
        world = World(2)
        first = put(world, "first")
        host = world.hosts[0]
        backup = deepcopy(host.store._tables), deepcopy(host.blobs)
        second = put(world, "second")
        host.store = MemoryStore()
        host.store._tables, host.blobs = backup
        return_(world, host)
        assert sorted(host.blobs.names()) == sorted([first, second])
        assert agree(world, host)


class TestAHostThatKeepsMore:
    def test_what_was_deleted_meanwhile_is_dropped(self) -> None:
        world = World(2)
        object_id, host = put(world, "one"), world.hosts[0]
        backup = deepcopy(host.store._tables), deepcopy(host.blobs)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
        world.pass_ms(1_000)
        assert list(host.blobs.names()) == []
        host.store = MemoryStore()
        host.store._tables, host.blobs = backup
        return_(world, host)
        assert list(host.blobs.names()) == []
        assert agree(world, host)

    @pytest.mark.parametrize("backup", [False, True])
    def test_than_its_owner_knows_keeps_it(self, backup: bool) -> None:
        """The owner is the one who lost something, all or what it put since its backup."""
        world = World(2)
        made, host, owner = {put(world, "one")}, world.hosts[0], world.owner
        tables = deepcopy(owner.store._tables) if backup else {}
        made.add(put(world, "two"))
        owner.store = MemoryStore()
        owner.store._tables = tables
        world.log.clear()
        owner.restart()
        world.settle()
        world.pass_ms(1_000)
        assert ("NameInventory" in world.log) == backup
        assert set(host.blobs.names()) == made
        assert {each.object_id for each in holdings_of(host.store, KEPT, owner.node_id)} == made


class TestALiar:
    @pytest.mark.parametrize(
        "answer",
        [
            objects_pb2.CompareInventoryResponse(),
            objects_pb2.CompareInventoryResponse(summary=bytes(SUMMARY_BYTES - 1), symbols=b"x"),
            objects_pb2.CompareInventoryResponse(summary=b"\xff" * SUMMARY_BYTES, symbols=b"x"),
            objects_pb2.CompareInventoryResponse(summary=b"\0" * 7 + b"\1" + b"x" * 32, symbols=b"nonsense"),
            objects_pb2.NameInventoryResponse(),
        ],
    )
    def test_is_asked_again_later_and_costs_nothing_else(self, answer: Message) -> None:
        world = World(1)
        object_id = put(world, "one")
        world.bend = lambda letter: answer if letter.short == "CompareInventory" else None
        return_(world, world.hosts[0])
        assert holders(world, object_id) == {world.hosts[0].node_id}
        world.bend = lambda letter: None
        world.log.clear()
        world.pass_ms(comparing.RETRY_MS)
        assert said(world) == ["CompareInventory"]


class TestWhatAHostRefuses:
    @pytest.mark.parametrize(
        ("field", "request_"),
        [
            ("key", objects_pb2.CompareInventoryRequest(key=b"x", count=1)),
            ("count", objects_pb2.CompareInventoryRequest(key=bytes(16), count=WINDOW_SYMBOLS_MAX + 1)),
            ("first", objects_pb2.CompareInventoryRequest(key=bytes(16), first=SYMBOLS_MAX, count=1)),
            ("key", objects_pb2.NameInventoryRequest(ids=[1])),
            ("ids", objects_pb2.NameInventoryRequest(key=bytes(16), ids=range(1_001))),
        ],
    )
    def test_is_named_by_its_field(self, field: str, request_: Message) -> None:
        world = World(1)
        method = type(request_).__name__.removesuffix("Request")
        with pytest.raises(Fault) as error:
            world.hosts[0].ask_as(world.owner, method, request_)
        assert [violation.field for violation in error.value.violations] == [field]
