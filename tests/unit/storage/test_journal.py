"""Journal packs: what was written comes back, and anything else is refused."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.journal import (
    EMPTY,
    PACK_BYTES,
    PACK_BYTES_MAX,
    Tail,
    check_follows,
    decode_pack,
    encode_packs,
    journal_key,
)
from offgrid_node.storage.rows import EVENT_BYTES_MAX

EVENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)
TAILS = st.builds(Tail, st.integers(0, 2**62), st.binary(min_size=16, max_size=16))


@given(TAILS, EVENTS)
def test_a_pack_comes_back_as_it_was(tail: Tail, events: list[bytes]) -> None:
    [(key, stored)], after = encode_packs(tail, events)
    pack = decode_pack(key, stored)
    check_follows(pack, tail)
    assert list(pack.events) == events
    assert pack.tail == after
    assert key == journal_key(tail.seq + 1)


@given(TAILS, EVENTS, st.data())
def test_any_changed_bit_is_refused(tail: Tail, events: list[bytes], data: st.DataObject) -> None:
    [(key, stored)], _ = encode_packs(tail, events)
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    changed = bytearray(stored)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt) as caught:
        decode_pack(key, bytes(changed))
    assert caught.value.reason == "JournalDamaged"


@given(TAILS, EVENTS, st.data())
def test_any_truncation_or_extension_is_refused(tail: Tail, events: list[bytes], data: st.DataObject) -> None:
    [(key, stored)], _ = encode_packs(tail, events)
    cut = data.draw(st.integers(0, len(stored) - 1))
    for changed in (stored[:cut], stored[cut:] if cut else b"", stored + data.draw(st.binary(min_size=1))):
        with pytest.raises(Corrupt):
            decode_pack(key, changed)


@given(st.binary(min_size=8, max_size=8), st.binary(max_size=200))
def test_garbage_under_a_right_digest_is_refused(key: bytes, body: bytes) -> None:
    """Whoever can compute the digest still cannot make the decoder return what was never encoded."""
    stored = body + hashlib.blake2b(body, digest_size=16, person=b"og.journal.v1").digest()
    with pytest.raises(Corrupt):
        decode_pack(key, stored)


def forged(count: int, first: int, rest: bytes, version: int = 1) -> bytes:
    body = bytes([version]) + count.to_bytes(4, "big") + first.to_bytes(8, "big") + bytes(16) + rest
    return body + hashlib.blake2b(body, digest_size=16, person=b"og.journal.v1").digest()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (forged(2, 1, b"\0\0\0\1a"), "holds 1 events and claims 2"),
        (forged(0, 1, b""), "claims 0|bytes"),
        (forged(1, 1, b"\0\0\0\2a"), "within an event"),
        (forged(1, 1, b"\0\0\0"), "within a length"),
        (forged(1, 2, b"\0\0\0\1a"), "starts at event 2"),
        (forged(1, 1, b"\0\0\0\1a", version=2), "unknown version 2"),
        (bytes(PACK_BYTES_MAX + 1), "bytes"),
    ],
)
def test_a_refusal_says_what_is_wrong(stored: bytes, said: str) -> None:
    with pytest.raises(Corrupt, match=said):
        decode_pack(journal_key(1), stored)


def test_a_right_pack_under_a_wrong_key_is_refused() -> None:
    [(_, stored)], _ = encode_packs(EMPTY, [b"a"])
    with pytest.raises(Corrupt):
        decode_pack(journal_key(2), stored)


def test_packs_form_a_chain() -> None:
    [(first_key, first)], tail = encode_packs(EMPTY, [b"a", b"b"])
    [(next_key, following)], _ = encode_packs(tail, [b"c"])
    one, two = decode_pack(first_key, first), decode_pack(next_key, following)
    check_follows(one, EMPTY)
    check_follows(two, one.tail)
    with pytest.raises(Corrupt, match="events 1 to 2 are missing"):
        check_follows(two, EMPTY)
    with pytest.raises(Corrupt, match="there twice"):
        check_follows(one, one.tail)
    with pytest.raises(Corrupt, match="does not follow") as caught:
        check_follows(two, Tail(2, bytes(16)))
    assert caught.value.reason == "JournalForked"


@given(st.lists(st.integers(0, PACK_BYTES * 3 // 2), max_size=8))
def test_packs_are_bounded_and_whole(sizes: list[int]) -> None:
    events = [bytes([at]) * size for at, size in enumerate(sizes)]
    packs, after = encode_packs(EMPTY, events)
    tail = EMPTY
    found: list[bytes] = []
    for key, stored in packs:
        pack = decode_pack(key, stored)
        check_follows(pack, tail)
        assert len(stored) <= PACK_BYTES or len(pack.events) == 1
        found += pack.events
        tail = pack.tail
    assert (found, tail) == (events, after)


def test_the_largest_event_fits_a_pack() -> None:
    [(key, stored)], _ = encode_packs(EMPTY, [bytes(EVENT_BYTES_MAX)])
    assert len(decode_pack(key, stored).events[0]) == EVENT_BYTES_MAX
