"""Fragments: any order gives the message back, contradictions give nothing, budgets hold."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.fragment import (
    FRAGMENT_COST_BYTES,
    MESSAGE_BYTES_MAX,
    Contradiction,
    MessageTooLarge,
    NoRoom,
    Reassembly,
    split,
)
from offgrid_transports.framing import FRAGMENTS_MAX


@given(st.binary(min_size=1, max_size=500), st.integers(1, 60), st.randoms(use_true_random=False))
def test_any_order_with_duplicates_gives_the_message_back(message: bytes, part_bytes: int, rng: Random) -> None:
    parts = split(message, part_bytes)
    order = [index for index in range(len(parts)) for _ in range(rng.choice((1, 1, 2)))]
    rng.shuffle(order)
    table = Reassembly()
    for index in order:
        held = table.add(0, "peer", 1, index, len(parts), parts[index])
    assert held.complete
    assert held.message() == message
    table.drop("peer", 1)
    assert (len(table), table.held_bytes) == (0, 0)


def test_split_refuses_what_no_peer_would_take() -> None:
    with pytest.raises(MessageTooLarge):
        split(bytes(MESSAGE_BYTES_MAX + 1), 1000)
    with pytest.raises(MessageTooLarge):
        split(bytes(FRAGMENTS_MAX + 1), 1)


@pytest.mark.parametrize(
    ("index", "total", "payload"),
    [(0, 3, b"BB"), (1, 4, b"BB"), (1, 3, b"B"), (1, 3, b"BBB"), (2, 3, b"CCC")],
    ids=["other bytes", "other total", "shorter", "longer", "last longer than the others"],
)
def test_a_contradiction_drops_the_set(index: int, total: int, payload: bytes) -> None:
    table = Reassembly()
    table.add(0, "peer", 1, 0, 3, b"AA")
    with pytest.raises(Contradiction):
        table.add(0, "peer", 1, index, total, payload)
    assert (len(table), table.held_bytes) == (0, 0)


def test_a_message_that_would_get_too_long_is_refused_with_its_first_fragment() -> None:
    table = Reassembly()
    with pytest.raises(MessageTooLarge):
        table.add(0, "peer", 1, 0, 5000, bytes(1000))
    assert len(table) == 0


def test_held_bitmap_tells_what_is_held_beyond_the_first_that_is_missing() -> None:
    table = Reassembly()
    for index in (0, 1, 3, 12):
        held = table.add(0, "peer", 1, index, 20, b"x")
    assert held.base == 2
    assert held.held_bitmap() == bytes([0b0100_0000, 0b0010_0000])
    assert held.held_bitmap(1) == bytes([0b0100_0000])


def test_a_new_message_waits_for_an_idle_one_to_be_forgotten() -> None:
    table = Reassembly(sets_per_peer_max=2, idle_ms=1000)
    table.add(0, "peer", 1, 0, 2, b"x")
    table.add(0, "peer", 2, 0, 2, b"x")
    with pytest.raises(NoRoom):
        table.add(999, "peer", 3, 0, 2, b"x")
    table.add(1000, "peer", 3, 0, 2, b"x")
    assert table.get("peer", 1) is None
    assert len(table) == 2


def test_a_message_that_grows_pushes_out_the_one_begun_last() -> None:
    table = Reassembly(peer_bytes_max=3 * (FRAGMENT_COST_BYTES + 1))
    table.add(0, "peer", "first", 0, 9, b"x")
    table.add(0, "peer", "second", 0, 9, b"x")
    table.add(0, "peer", "first", 1, 9, b"x")
    with pytest.raises(NoRoom):
        table.add(0, "peer", "second", 1, 9, b"x")
    table.add(0, "peer", "first", 2, 9, b"x")
    assert table.get("peer", "second") is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4), st.integers(0, 3), st.integers(1, 90))))
def test_no_sequence_of_fragments_exceeds_a_budget(steps: list[tuple[str, int, int, int]]) -> None:
    table = Reassembly(peers_max=3, sets_per_peer_max=2, peer_bytes_max=700, bytes_max=1200, idle_ms=5)
    for now_ms, (peer, key, index, size) in enumerate(steps):
        with contextlib.suppress(Contradiction, NoRoom):
            table.add(now_ms, peer, key, index, 4, bytes(size))
        held = [found for name in "abcd" for k in range(1, 5) if (found := table.get(name, k))]
        assert table.held_bytes == sum(found.cost_bytes for found in held) <= 1200
        assert len({name for name in "abcd" for k in range(1, 5) if table.get(name, k)}) <= 3
        for name in "abcd":
            mine = [found for k in range(1, 5) if (found := table.get(name, k))]
            assert len(mine) <= 2
            assert sum(found.cost_bytes for found in mine) <= 700
