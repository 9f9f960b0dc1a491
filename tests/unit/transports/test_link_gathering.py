"""Pieces: any order gives the message back, contradictions give nothing, budgets hold."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.gathering import (
    MESSAGE_BYTES_MAX,
    PIECE_COST_BYTES,
    WAITING_MAX,
    Contradiction,
    Gathered,
    Gathering,
    MessageTooLarge,
    NoRoom,
)

PEER = "peer"


@st.composite
def cuts(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    """A message, and pieces of it (from, to) that cover it: cut twice, differently, so that they overlap."""
    message = draw(st.binary(min_size=1, max_size=300))
    pieces = []
    for _ in range(2):
        ends = sorted({*draw(st.lists(st.integers(1, len(message)), max_size=8)), len(message)})
        pieces += list(zip([0, *ends[:-1]], ends, strict=True))
    return message, draw(st.permutations(pieces + draw(st.lists(st.sampled_from(pieces)))))


@given(cuts())
def test_any_order_with_copies_and_overlaps_gives_the_message_back(cut: tuple[bytes, list[tuple[int, int]]]) -> None:
    message, pieces = cut
    table = Gathering()
    for start, end in pieces:
        held = table.add(0, PEER, 1, start, message[start:end], last=end == len(message))
        assert message.startswith(held.message())
    assert held.complete
    assert held.message() == message
    table.drop(PEER, 1)
    assert (len(table), table.held_bytes, table.get(PEER, 1)) == (0, 0, None)


def test_a_message_is_complete_when_its_end_is_known_and_nothing_is_missing() -> None:
    table = Gathering()
    assert not table.add(0, PEER, 1, 2, b"cd", last=True).complete
    assert not table.add(0, PEER, 1, 0, b"a", last=False).complete
    assert table.add(0, PEER, 1, 1, b"b", last=False).message() == b"abcd"
    assert not table.add(0, PEER, 2, 0, b"abcd", last=False).complete


@pytest.mark.parametrize(
    ("offset", "data", "last"),
    [(2, b"cdef", False), (2, b"cd", True), (9, b"x", False), (9, b"x", True)],
    ids=["over its end", "an earlier end", "beyond its end", "a later end"],
)
def test_a_contradiction_about_the_end_drops_the_message(offset: int, data: bytes, last: bool) -> None:
    table = Gathering()
    table.add(0, PEER, 1, 4, b"e", last=True)
    with pytest.raises(Contradiction):
        table.add(0, PEER, 1, offset, data, last=last)
    assert (len(table), table.held_bytes) == (0, 0)


def test_an_end_before_what_was_heard_of_is_a_contradiction_though_that_piece_still_waits() -> None:
    table = Gathering()
    table.add(0, PEER, 1, 100, b"x", last=False)
    with pytest.raises(Contradiction):
        table.add(0, PEER, 1, 0, b"abc", last=True)
    assert len(table) == 0


def test_a_message_that_would_get_too_long_is_refused_with_the_first_piece_that_says_so() -> None:
    table = Gathering()
    table.add(0, PEER, 1, MESSAGE_BYTES_MAX - 1, b"x", last=False)
    with pytest.raises(MessageTooLarge, match=f"{MESSAGE_BYTES_MAX} are taken"):
        table.add(0, PEER, 1, MESSAGE_BYTES_MAX, b"x", last=False)
    assert len(table) == 0


def test_a_new_message_waits_for_an_idle_one_to_be_forgotten() -> None:
    table, evicted = Gathering(messages_per_peer_max=2, idle_ms=1000), list[tuple[str, Hashable]]()
    table.on_evicted = lambda peer, key: evicted.append((peer, key))
    table.add(0, PEER, 1, 0, b"x", last=False)
    table.add(0, PEER, 2, 0, b"x", last=False)
    with pytest.raises(NoRoom):
        table.add(999, PEER, 3, 0, b"x", last=False)
    table.add(1000, PEER, 3, 0, b"x", last=False)
    assert evicted == [(PEER, 1)]
    assert len(table) == 2


def test_a_peer_whose_messages_are_done_leaves_its_place_to_another() -> None:
    table = Gathering(peers_max=1)
    table.add(0, PEER, 1, 0, b"x", last=False)
    with pytest.raises(NoRoom):
        table.add(0, "another", 1, 0, b"x", last=False)
    table.drop(PEER, 1)
    table.add(0, "another", 1, 0, b"x", last=False)


def test_what_is_finished_or_given_up_is_not_told_as_evicted() -> None:
    table = Gathering()
    table.on_evicted = lambda peer, key: pytest.fail("nothing was")
    table.add(0, PEER, 1, 0, b"x", last=True)
    table.drop(PEER, 1)
    table.drop(PEER, 1)


def test_a_message_that_grows_pushes_out_the_one_begun_last() -> None:
    table, evicted = Gathering(peer_bytes_max=2 * PIECE_COST_BYTES + 30 + PIECE_COST_BYTES), list[Hashable]()
    table.on_evicted = lambda peer, key: evicted.append(key)
    table.add(0, PEER, "first", 0, bytes(10), last=False)
    table.add(0, PEER, "second", 0, bytes(10), last=False)
    table.add(0, PEER, "first", 10, bytes(10), last=False)
    with pytest.raises(NoRoom):
        table.add(0, PEER, "second", 10, bytes(10), last=False)
    assert evicted == []
    table.add(0, PEER, "first", 20, bytes(10), last=False)
    assert evicted == ["second"]


def test_one_message_holds_only_so_many_pieces_from_beyond_a_gap() -> None:
    table = Gathering()
    for offset in range(1, WAITING_MAX + 1):
        table.add(0, PEER, 1, 2 * offset, b"x", last=False)
    with pytest.raises(NoRoom):
        table.add(0, PEER, 1, 1, b"x", last=False)
    assert len(table.add(0, PEER, 1, 0, b"abcdef", last=False).message()) == 7, "what fills the gap is always taken"


def test_a_longer_piece_from_the_same_place_is_worth_more_than_a_shorter_one() -> None:
    table = Gathering()
    table.add(0, PEER, 1, 5, b"f", last=False)
    table.add(0, PEER, 1, 5, b"fgh", last=False)
    held = table.add(0, PEER, 1, 5, b"fg", last=False)
    assert table.held_bytes == held.cost_bytes == 2 * PIECE_COST_BYTES + 3
    assert table.add(0, PEER, 1, 0, b"abcde", last=False).message() == b"abcdefgh"
    assert table.held_bytes == PIECE_COST_BYTES + 8


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 3), st.integers(0, 400), st.integers(1, 90), st.booleans()),
        max_size=60,
    )
)
def test_no_sequence_of_pieces_exceeds_a_budget(steps: list[tuple[str, int, int, int, bool]]) -> None:
    table = Gathering(peers_max=3, messages_per_peer_max=2, peer_bytes_max=700, bytes_max=1200, idle_ms=5)
    gone = set[tuple[str, Hashable]]()
    table.on_evicted = lambda peer, key: gone.add((peer, key))
    for now_ms, (peer, key, offset, size, last) in enumerate(steps):
        before = {(name, k) for name in "abcd" for k in (1, 2, 3) if table.get(name, k)}
        gone.clear()
        dropped = set[tuple[str, Hashable]]()
        try:
            table.add(now_ms, peer, key, offset, bytes(size), last=last)
        except Contradiction:
            dropped = {(peer, key)}
        except NoRoom:
            assert (peer, key) not in gone
        found = {(name, k): held for name in "abcd" for k in (1, 2, 3) if (held := table.get(name, k))}
        assert before - set(found) <= gone | dropped, "what goes is told"
        assert len(table) == len(found)
        assert table.held_bytes == sum(held.cost_bytes for held in found.values()) <= 1200
        assert len({name for name, _ in found}) <= 3
        for name in "abcd":
            mine = [held for (owner, _), held in found.items() if owner == name]
            assert len(mine) <= 2
            assert sum(held.cost_bytes for held in mine) <= 700


def test_a_flood_of_strangers_leaves_who_began_first_to_finish() -> None:
    table, rng, message = Gathering(bytes_max=40_000), Random(1), bytes(20_000)
    for start in range(0, len(message), 1000):
        held = table.add(start, PEER, 1, start, message[start : start + 1000], last=start == 19_000)
        for _ in range(50):
            with contextlib.suppress(NoRoom):
                table.add(start, f"stranger {rng.random()}", 1, 5, bytes(900), last=False)
        assert table.held_bytes <= 40_000
    assert held.complete


def test_a_gathered_message_costs_what_it_holds() -> None:
    held = Gathered()
    assert held.add(3, b"de", last=False) == PIECE_COST_BYTES + 2
    assert held.add(0, b"abc", last=False) == 3 - PIECE_COST_BYTES
    assert (held.cost_bytes, held.message()) == (PIECE_COST_BYTES + 5, b"abcde")
