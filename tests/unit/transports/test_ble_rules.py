"""Bluetooth's rules without a radio: air, advertisements, pieces, greetings, whom to connect to."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.ble.adverts import (
    AD_BYTES_MAX,
    SEEN_MAX,
    SERVICE_BYTES,
    Advert,
    Sighting,
    Sightings,
    advertisement,
    service_data,
)
from offgrid_transports.ble.air import Phy, Shape, message_ms
from offgrid_transports.ble.greeting import (
    FRAME_BYTES_MAX,
    HEAD,
    BadGreeting,
    Greeting,
    newer_stays,
    parse_greeting,
)
from offgrid_transports.ble.pieces import COUNT_MASK, FIRST, LAST, Cutter, Joiner
from offgrid_transports.ble.seeking import (
    BRISK,
    CANDIDATES_MAX,
    FAMILIAR_MS,
    FULL,
    JITTER_MS,
    LONELY,
    PATIENCE_MS,
    RETRY_MS_MAX,
    SETTLED,
    STALE_MS,
    Candidates,
    duty,
)


@pytest.mark.parametrize(
    ("phy", "octets", "kilobytes_per_second"),
    [(Phy.LE_1M, 251, 100), (Phy.LE_2M, 251, 177), (Phy.LE_1M, 27, 40), (Phy.LE_CODED_S8, 251, 14)],
)
def test_a_connection_carries_what_its_phy_and_data_length_allow(
    phy: Phy, octets: int, kilobytes_per_second: int
) -> None:
    shape = Shape(octets - 4, 4)
    assert 100 * shape.piece_bytes / message_ms(100 * shape.piece_bytes, shape, phy, octets) == pytest.approx(
        kilobytes_per_second * (octets - 4) / octets, rel=0.03
    )


def test_a_packet_is_as_long_as_the_specification_says() -> None:
    assert Phy.LE_1M.packet_us(251) == 2088
    assert Phy.LE_2M.packet_us(251) == 1048
    assert Phy.LE_1M.packet_us(0) == 80
    assert Phy.LE_CODED_S8.packet_us(0) == 720
    assert Phy.LE_CODED_S2.packet_us(0) == 462


@given(st.integers(0, 5000), st.integers(20, 512), st.integers(27, 251))
def test_a_longer_message_is_longer_on_air(length: int, piece: int, octets: int) -> None:
    shape = Shape(piece, 4, 2)
    assert 0 < message_ms(length, shape, Phy.LE_2M, octets) < message_ms(length + piece, shape, Phy.LE_2M, octets)


@given(st.sampled_from([0, 0x80, 0xA7, 0xFF]), st.binary(max_size=16))
def test_what_is_advertised_is_seen(psm: int, hello: bytes) -> None:
    data, response = advertisement(Advert(psm, hello))
    assert len(data) <= AD_BYTES_MAX
    assert len(response) <= AD_BYTES_MAX
    seen = Sightings()
    heard = [seen.hear("a", False, data, -40)] + ([seen.hear("a", True, response, -41)] if response else [])
    assert heard[0] is not None
    assert hello.startswith(heard[0].advert.hello)
    assert heard[-1] is not None
    assert (heard[-1].advert, seen.garbage) == (Advert(psm, hello), 0)


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_broken_advertisements_are_counted_and_no_more(noise: bytes, response: bytes, cut: int) -> None:
    seen = Sightings()
    whole = advertisement(Advert(0xA7, b"meshmesh"))[0]
    for data in (noise, whole[:cut] + noise, bytes([len(noise) + 17, 0x21]) + SERVICE_BYTES + noise):
        service_data(data)
        for is_response in (False, True):
            sighting = seen.hear("a", is_response, data + response, -40)
            if sighting is not None:
                assert len(sighting.advert.hello) <= 16
                assert sighting.advert.psm == 0 or 0x80 <= sighting.advert.psm <= 0xFF


def test_only_so_many_addresses_are_remembered() -> None:
    seen = Sightings()
    data, response = advertisement(Advert(0xA7, bytes(16)))
    for number in range(SEEN_MAX + 1):
        assert seen.hear(str(number), False, data, -40)
    assert seen.hear("0", True, response, -40) is None
    assert seen.hear("1", True, response, -40) is not None


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(2, 64))
def test_messages_are_cut_and_joined(messages: list[bytes], value_bytes: int) -> None:
    cutter, joiner = Cutter(), Joiner(300)
    values = [value for message in messages for value in cutter.cut(message, value_bytes)]
    assert all(len(value) <= value_bytes for value in values)
    joined = [message for message in map(joiner.join, values) if message is not None]
    assert (joined, joiner.spoiled) == (messages, 0)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8), st.data())
def test_a_lost_value_spoils_its_message_and_no_other(messages: list[bytes], data: st.DataObject) -> None:
    cutter, joiner = Cutter(), Joiner(300)
    values = [(n, value) for n, message in enumerate(messages) for value in cutter.cut(message, 8)]
    lost = data.draw(st.integers(0, len(values) - 1))
    joined = [m for at, (_, value) in enumerate(values) if at != lost and (m := joiner.join(value)) is not None]
    assert joined == [message for n, message in enumerate(messages) if n != values[lost][0]]


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_values_of_any_kind_never_make_a_message_that_is_too_long(values: list[bytes]) -> None:
    joiner = Joiner(100)
    for value in values:
        assert len(joiner.join(value) or b"") <= 100


def test_a_message_without_end_is_dropped_at_the_limit() -> None:
    joiner = Joiner(100)
    joiner.join(bytes([FIRST]) + bytes(60))
    joiner.join(bytes([1]) + bytes(60))
    assert joiner.spoiled == 1
    assert joiner.join(bytes([2 & COUNT_MASK | LAST]) + bytes(5)) is None


@given(st.binary(min_size=8, max_size=8), st.integers(64, FRAME_BYTES_MAX), st.binary(max_size=16))
def test_a_greeting_says_who_speaks(name: bytes, frame_bytes: int, hello: bytes) -> None:
    greeting = Greeting(name, frame_bytes, hello)
    assert parse_greeting(bytes(greeting)) == greeting


@given(st.binary(max_size=64))
def test_whatever_is_no_greeting_is_refused(message: bytes) -> None:
    try:
        greeting = parse_greeting(message)
    except BadGreeting:
        return
    assert message.startswith(b"\xf0\x01")
    assert 64 <= greeting.frame_bytes <= FRAME_BYTES_MAX


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "0 bytes"),
        (bytes(HEAD.size + 17), "29 bytes"),
        (HEAD.pack(0x00, 1, bytes(8), 99), "kind 0x00"),
        (HEAD.pack(0xF0, 2, bytes(8), 99), "version 2"),
        (HEAD.pack(0xF0, 1, bytes(8), 63), "frames of 63"),
    ],
)
def test_a_bad_greeting_says_what_is_allowed(message: bytes, says: str) -> None:
    with pytest.raises(BadGreeting, match=says):
        parse_greeting(message)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8), st.booleans(), st.booleans())
def test_both_ends_keep_the_same_one_of_two_channels(mine: bytes, theirs: bytes, older: bool, newer: bool) -> None:
    if mine == theirs:
        return
    here = newer_stays(mine, theirs, older, newer)
    assert here == newer_stays(theirs, mine, not older, not newer)
    if older != newer:
        assert here != newer_stays(mine, theirs, newer, older), "and whichever came first"


def sighting(address: str, hello: bytes, rssi: int = -50) -> Sighting:
    return Sighting(address, Advert(0xA7, hello), rssi)


NOBODY: frozenset[str] = frozenset()


def test_who_shows_the_lower_hello_connects_at_once_and_the_other_after_a_while() -> None:
    low, high = b"meshmesh" + b"\1" * 8, b"meshmesh" + b"\2" * 8
    eager, patient = Candidates(low, Random(1)), Candidates(high, Random(1))
    eager.see(0, sighting("h", high), False)
    patient.see(0, sighting("l", low), False)
    assert eager.next(0, NOBODY)[0] == sighting("h", high)
    found, due = patient.next(0, NOBODY)
    assert found is None
    assert due is not None
    assert PATIENCE_MS <= due <= PATIENCE_MS + JITTER_MS
    assert patient.next(due, NOBODY)[0] == sighting("l", low)


def test_the_hello_of_a_scan_response_counts_when_it_comes() -> None:
    patient = Candidates(b"meshmesh" + b"\2" * 8, Random(1))
    patient.see(0, sighting("l", b"meshmesh\1"), False)
    patient.see(1, sighting("l", b"meshmesh" + b"\1" * 8), False)
    assert patient.next(1, NOBODY)[0] is None


def test_only_the_own_mesh_is_connected_to() -> None:
    candidates = Candidates(b"meshmesh" + b"\1" * 8, Random(1))
    candidates.see(0, sighting("a", b"other..." + b"\2" * 8), False)
    candidates.see(0, sighting("b", b""), False)
    assert (candidates.next(10**6, NOBODY), len(candidates), candidates.foreign) == ((None, None), 0, 2)


def test_the_strongest_comes_first_and_whoever_is_connected_or_gone_not_at_all() -> None:
    candidates = Candidates(b"mesh", Random(1))
    for address, rssi in (("far", -90), ("near", -40), ("linked", -20)):
        candidates.see(0, sighting(address, b"mesh", rssi), False)
    found, _ = candidates.next(JITTER_MS, frozenset({"linked"}))
    assert found is not None
    assert found.address == "near"
    assert candidates.next(STALE_MS + 1, NOBODY) == (None, None)
    assert len(candidates) == 0


def test_who_cannot_be_reached_is_tried_later_and_later() -> None:
    candidates = Candidates(b"a", Random(1))
    now_ms, pauses = 0, []
    for _ in range(12):
        candidates.see(now_ms, sighting("x", b"a"), False)
        candidates.failed(now_ms, "x")
        assert candidates.next(now_ms, NOBODY) == (None, None), "it may be gone"
        candidates.see(now_ms, sighting("x", b"a"), False)
        found, due = candidates.next(now_ms, NOBODY)
        assert found is None
        assert due is not None
        pauses.append(due - now_ms)
        now_ms = due
    assert pauses[0] < pauses[3] < pauses[6]
    assert RETRY_MS_MAX <= pauses[-1] <= RETRY_MS_MAX * 3 // 2


def test_who_shows_what_a_neighbour_shows_has_to_wait_until_that_one_is_gone() -> None:
    hello = b"meshmesh" + b"\1" * 8
    candidates = Candidates(b"meshmesh", Random(1))
    candidates.see(0, sighting("x", hello), True)
    assert candidates.next(0, NOBODY) == (None, FAMILIAR_MS)
    candidates.forget("y", b"meshmesh" + b"\2" * 8)
    assert len(candidates) == 1
    candidates.forget("y", hello)
    candidates.see(1, sighting("x", hello), False)
    assert candidates.next(1, NOBODY)[0] is not None
    candidates.see(0, sighting("z", b"meshmesh"), True)
    assert candidates.next(JITTER_MS, frozenset({"x"}))[0] is not None, "a hello that names nobody is nobody's"


def test_only_so_many_candidates_are_remembered() -> None:
    candidates = Candidates(b"a", Random(1))
    for number in range(CANDIDATES_MAX + 50):
        candidates.see(0, sighting(str(number), b"a"), False)
    assert len(candidates) == CANDIDATES_MAX


def test_a_node_looks_eagerly_after_a_start_or_a_loss_and_less_later() -> None:
    assert duty(0, 1, 0, 4) is BRISK
    assert duty(0, 1, 3, 4) is BRISK
    assert duty(1, 1, 0, 4) is LONELY
    assert duty(1, 1, 3, 4) is SETTLED
    assert duty(0, 1, 4, 4) is FULL
    shares = [each.scan_window_ms / each.scan_interval_ms for each in (BRISK, LONELY, SETTLED)]
    assert shares == sorted(shares, reverse=True)
