"""A beacon on a slow link: one stream for all who listen, whatever each lacks; what is made up is refused."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ledger import beacon
from offgrid_node.protocol.ledger.beacon import SYMBOLS, Beacon, Heard, Listener
from offgrid_node.protocol.ledger.heads import HEADS_MAX, Heads
from offgrid_node.protocol.reconcile.varints import varint

ROOT = b"g" * 32


def heads_of(told: dict[int, int]) -> Heads:
    made = Heads()
    for author, height in told.items():
        made.move(author.to_bytes(20, "big"), height, height.to_bytes(32, "big"))
    return made


MANY = {author: author + 1 for author in range(200)}


def hear(sender: Beacon, *listeners: Listener, frames: int = 60) -> list[tuple[Heard | None, int]]:
    """What each of them has heard in the end, and after how many frames of the one stream."""
    rng, ends = Random(1), dict[int, tuple[Heard, int]]()
    for number in range(1, frames + 1):
        raw = sender.take(rng)
        for index, listener in enumerate(listeners):
            if index not in ends and (heard := listener.on_frame(raw)) is not None:
                ends[index] = heard, number
    return [ends.get(index, (None, frames)) for index in range(len(listeners))]


def test_who_is_in_sync_knows_that_by_the_first_frame() -> None:
    assert hear(Beacon(heads_of(MANY), ROOT), Listener(heads_of(MANY), ROOT)) == [(Heard(in_sync=True), 1)]


def test_one_stream_serves_each_by_what_it_lacks() -> None:
    little = MANY | {5: 900}
    much = {author: height for author, height in MANY.items() if author >= 60}
    ends = hear(Beacon(heads_of(MANY), ROOT), Listener(heads_of(little), ROOT), Listener(heads_of(much), ROOT))
    (first, after_few), (second, after_more) = ends
    assert first is not None
    assert second is not None
    assert (first.here, len(first.there)) == ((((5).to_bytes(20, "big"), 900),), 1)
    assert (second.here, len(second.there)) == ((), 60)
    assert after_few == 1
    assert after_few < after_more < 12


def test_what_a_listener_learnt_is_named_by_the_sender() -> None:
    there = heads_of(MANY)
    ((heard, _),) = hear(Beacon(there, ROOT), Listener(heads_of(dict(list(MANY.items())[3:])), ROOT))
    assert heard is not None
    assert heard.code is not None
    names = there.shortened(heard.code)
    assert sorted(names[id_] for id_ in heard.there) == [(n.to_bytes(20, "big"), n + 1) for n in range(3)]


@given(st.dictionaries(st.integers(0, 30), st.integers(1, 9)), st.dictionaries(st.integers(0, 30), st.integers(1, 9)))
def test_any_two_come_to_know(here: dict[int, int], there: dict[int, int]) -> None:
    ((heard, _),) = hear(Beacon(heads_of(there), ROOT), Listener(heads_of(here), ROOT))
    assert heard is not None
    if heard.in_sync:
        assert here == there
    else:
        assert {author for author, _ in heard.here} == {
            author.to_bytes(20, "big") for author, height in here.items() if there.get(author) != height
        }


def test_a_frame_fits_a_lora_packet() -> None:
    rng, sender = Random(1), Beacon(heads_of(dict.fromkeys(range(HEADS_MAX), 2**30)), ROOT)
    assert max(len(sender.take(rng)) for _ in range(9)) <= 222


def test_heads_that_moved_begin_another_stream_under_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, rng = heads_of(MANY), Random(1)
    sender, listener = Beacon(heads, ROOT), Listener(heads_of({}), ROOT)
    first = sender.take(rng)
    assert listener.on_frame(first) is None
    heads.move(b"n" * 20, 7, bytes(32))
    second = sender.take(rng)
    assert second[:24] != first[:24]
    heard = listener.on_frame(second)
    for _ in range(60):
        heard = heard or listener.on_frame(sender.take(rng))
    assert heard is not None
    assert len(heard.there) == 201
    monkeypatch.setattr(beacon, "FIRST_MAX", 3 * SYMBOLS)
    keys = {Beacon.take(sender, rng)[16:24] for _ in range(9)}
    assert len(keys) > 1, "and so does a stream that has come to its end"


def test_who_missed_a_frame_waits_for_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "FIRST_MAX", 30 * SYMBOLS)
    rng, sender, listener = Random(1), Beacon(heads_of(MANY), ROOT), Listener(heads_of({1: 1}), ROOT)
    heard = None
    for number in range(70):
        frame = sender.take(rng)
        if number != 2:
            heard = heard or listener.on_frame(frame)
    assert heard is not None
    assert (len(heard.here), len(heard.there)) == (1, 200)


@given(st.binary(max_size=250))
def test_what_is_made_up_is_refused_or_tells_nothing(raw: bytes) -> None:
    try:
        heard = Listener(heads_of({1: 1}), ROOT).on_frame(raw)
    except PeerFault as fault:
        assert fault.reason in ("BadBeacon", "BadSymbols", "NoEnd")  # noqa: PT017 - either is right
    else:
        assert heard is None or not heard.in_sync


def test_what_no_sender_says_is_refused() -> None:
    for first, items in ((10**6, 1), (0, HEADS_MAX + 1)):
        with pytest.raises(PeerFault) as refused:
            Listener(heads_of({}), ROOT).on_frame(bytes(24) + varint(first) + varint(items))
        assert refused.value.reason == "BadBeacon"
    with pytest.raises(PeerFault, match=f"{SYMBOLS} are allowed"):
        Listener(heads_of({1: 1}), ROOT).on_frame(bytes(24) + varint(0) + varint(1) + bytes(13 * (SYMBOLS + 1)))
