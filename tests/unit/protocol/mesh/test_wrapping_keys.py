"""Wrapping keys in the mesh: rotated durably, told to all, and never taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesh_world import World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, PeerFault
from offgrid_node.protocol.mesh.commands import RotateWrappingKey
from offgrid_node.protocol.mesh.records import ROLES_ALL, PeerRecord, decode_peer
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY, WRAP_NUMBER_MAX


@pytest.fixture
def world() -> World:
    world = World(3, 4)
    world.run(5_000)
    return world


def rotate(world: World, number: int) -> int:
    answer = world.first.ask(RotateWrappingKey(number))
    assert isinstance(answer, objects_pb2.RotateDataKeysResponse), answer
    return answer.number


def known(world: World) -> list[object]:
    """What each node takes for the first one's wrapping key."""
    return [node.mesh.directory.wrapping_key(world.first.node_id) for node in world.running()]


def test_everybody_learns_the_next_key(world: World) -> None:
    assert known(world) == [world.first.key.wrapping_key(0)] * 4
    assert rotate(world, 0) == 1
    world.run(5_000)
    assert known(world) == [world.first.key.wrapping_key(1)] * 4


def test_asked_again_for_the_same_number_it_is_rotated_once(world: World) -> None:
    assert [rotate(world, 0), rotate(world, 0), rotate(world, 1)] == [1, 1, 2]


def test_when_the_key_of_now_was_begun_is_kept(world: World) -> None:
    def begun() -> int:
        return int.from_bytes(world.first.store.get("meta", BEGUN_KEY) or b"", "big")

    assert begun() == 0
    rotate(world, 0)
    first = begun()
    world.run(5_000)
    assert (rotate(world, 0), begun()) == (1, first), "asked again"
    rotate(world, 1)
    assert begun() > first > 0


def test_it_is_begun_behind_all_that_was_sealed_whatever_the_clock_says_by_now(world: World) -> None:
    ahead_us = 2_000_000_000_000_000
    world.first.ask(RotateWrappingKey(0, ahead_us))
    assert int.from_bytes(world.first.store.get("meta", BEGUN_KEY) or b"", "big") == ahead_us + 1


def test_it_outlives_its_process(world: World) -> None:
    rotate(world, 0)
    world.first.crash()
    world.first.start()
    world.run(5_000)
    assert known(world) == [world.first.key.wrapping_key(1)] * 4


def test_a_node_that_was_cut_off_learns_it_later(world: World) -> None:
    world.sides = {node.node_id: 1 for node in world.running()[2:]}
    rotate(world, 0)
    world.run(5_000)
    assert world.first.key.wrapping_key(0) in known(world)
    world.sides = {}
    world.run(60_000)
    assert known(world) == [world.first.key.wrapping_key(1)] * 4


def test_a_number_that_was_never_reached_is_refused_and_there_is_a_last_one(world: World) -> None:
    assert isinstance(world.first.ask(RotateWrappingKey(1)), InvalidRequest)
    world.first.mesh._wrap_number = WRAP_NUMBER_MAX
    assert isinstance(world.first.ask(RotateWrappingKey(WRAP_NUMBER_MAX)), FailedPrecondition)


@given(st.integers(0, WRAP_NUMBER_MAX), st.binary(max_size=33))
def test_a_peer_record_names_a_key_or_the_first_number(number: int, key: bytes) -> None:
    record = PeerRecord("a" * 32, 1, ROLES_ALL, (), "test", number, key)
    if len(key) == (32 if number else 0):
        assert decode_peer(record.body) == record
    else:
        with pytest.raises(PeerFault):
            decode_peer(record.body)
