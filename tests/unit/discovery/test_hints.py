"""What strangers announce: cleaned, bounded, rationed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.discovery.hints import (
    ADDRESSES_MAX,
    HINTS_MAX,
    NAME_CHARS_MAX,
    TOLD_BURST,
    TOLD_PER_S,
    Hint,
    HintBook,
    clean_name,
    read_hint,
)

TAG = bytes(range(8))
HINT = Hint("a2" * 16, TAG, ("192.0.2.7", "fd00::7"), 7440, 7441, "attic", "0.1.0")


def txt_of(hint: Hint, **changed: str) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in {**hint.txt(), **changed}.items()}


def test_what_is_announced_is_read() -> None:
    assert read_hint(HINT.label, txt_of(HINT), HINT.addresses) == HINT
    assert HINT.label == "attic-a2a2a2a2"
    assert HINT.mesh_addresses == ("192.0.2.7:7440", "[fd00::7]:7440")


def test_a_closed_door_is_not_announced() -> None:
    closed = Hint("a2" * 16, TAG, ("192.0.2.7",), 7440)
    assert "door" not in closed.txt()
    read = read_hint(closed.label, txt_of(closed), closed.addresses)
    assert read is not None
    assert read.door_port is None


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "A2" * 16},
        {"id": "short"},
        {"mesh": "00"},
        {"mesh": "zz" * 8},
        {"port": "0"},
        {"port": "65536"},
        {"port": "-1"},
        {"port": "१२"},
        {"v": "x" * 65},
        {"more": "x" * 65},
    ],
    ids=str,
)
def test_a_malformed_announcement_is_no_hint(changed: dict[str, str]) -> None:
    assert read_hint(HINT.label, txt_of(HINT, **changed), HINT.addresses) is None


def test_addresses_that_lead_nowhere_are_left_out_and_there_are_not_too_many() -> None:
    useless = ["0.0.0.0", "224.0.0.251", "255.255.255.255", "fe80::1", "::", "no address"]  # noqa: S104 - nobody binds it
    assert read_hint(HINT.label, txt_of(HINT), useless) is None
    many = [f"192.0.2.{n}" for n in range(1, 100)]
    read = read_hint(HINT.label, txt_of(HINT), [*useless, *many])
    assert read is not None
    assert read.addresses == tuple(many[:ADDRESSES_MAX])


@given(st.text(max_size=300))
def test_a_strangers_name_is_cleaned(name: str) -> None:
    cleaned = clean_name(name)
    assert 1 <= len(cleaned) <= NAME_CHARS_MAX
    assert set(cleaned) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(max_size=80), st.dictionaries(st.binary(max_size=8), st.none() | st.binary(max_size=80)))
def test_garbage_is_no_hint_and_no_error(label: str, txt: dict[bytes, bytes | None]) -> None:
    assert read_hint(label, txt, ["192.0.2.7"]) is None
    read_hint(label, {**txt_of(HINT), **txt}, ["192.0.2.7"])


def test_news_is_told_once_and_again_when_it_changes_or_comes_back() -> None:
    book = HintBook(TAG, self_id="b3" * 16)
    assert book.take(0, "attic", HINT)
    assert not book.take(0, "attic", HINT)
    moved = Hint(HINT.node_id, TAG, ("192.0.2.8",), 7440)
    assert book.take(0, "attic", moved)
    book.forget("attic")
    assert book.take(0, "attic", moved)
    assert book.hints == (moved,)


def test_this_node_and_other_meshes_are_no_news() -> None:
    book = HintBook(TAG, self_id=HINT.node_id)
    assert not book.take(0, "self", HINT)
    assert not book.take(0, "other", Hint("b3" * 16, bytes(8), ("192.0.2.7",), 7440))
    assert book.hints == ()


def test_a_flood_is_rationed_and_forgotten() -> None:
    book, told = HintBook(TAG), 0
    for number in range(73_640):  # in 8 s, as was measured
        hint = Hint("a2" * 16, TAG, ("192.0.2.7",), 1 + number % 65_535)
        told += book.take(number * 8000 // 73_640, f"false-{number}", hint)
    assert TOLD_BURST <= told <= TOLD_BURST + 8 * TOLD_PER_S + 1
    assert len(book.hints) == told
    for number in range(1000):
        book.take(10_000_000 + number * 1000, f"more-{number}", HINT)
    assert len(book.hints) == HINTS_MAX
    assert book.take(10_000_000_000, "a true one", Hint("b3" * 16, TAG, ("192.0.2.9",), 7440)), "after the flood"
