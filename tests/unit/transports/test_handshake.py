"""Two frames of 160 bytes in all make a session; what is sent again, recorded or made up makes none."""

from __future__ import annotations

from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_transports.handshake import (
    ANSWERED_MAX,
    DICTIONARY_MAX,
    HELLO_BYTES,
    HELLOS_A_SECOND,
    HELLOS_AT_ONCE,
    STAMPS_MAX,
    WELCOME_BYTES,
    Door,
    Greeted,
    Hello,
    Own,
    hint_of,
)
from offgrid_transports.noise import HandshakeFailed
from offgrid_transports.sealing import Suite

PSK = b"m" * 32
A, B, C = (Own(X25519PrivateKey.from_private_bytes(bytes((n,)) * 32), PSK) for n in (1, 2, 3))


def public(own: Own) -> bytes:
    return own.static.public_key().public_bytes_raw()


def door(own: Own = B) -> Door:
    numbers = count(0x0B00)
    return Door(own, lambda: next(numbers))


def hello(
    stamp: int = 1, records: bytes = b"", *, own: Own = A, suite: Suite = Suite.AES_CCM_8, dictionary: int = 0
) -> Hello:
    return Hello(own, public(B), suite, 0x0A0A, stamp, records, dictionary=dictionary)


def assert_one_session(greeted: Greeted, said: Hello) -> None:
    theirs, keys = said.welcomed(greeted.frame)
    assert theirs == greeted.ours
    assert (keys.sending, keys.receiving) == (greeted.keys.receiving, greeted.keys.sending)
    assert keys.binding == greeted.keys.binding


@pytest.mark.parametrize("suite", list(Suite))
def test_a_hello_and_a_welcome_make_a_session_in_160_bytes(suite: Suite) -> None:
    said = hello(suite=suite)
    greeted = door().greet(0, said.frame)
    assert (len(said.frame), len(greeted.frame)) == (HELLO_BYTES, WELCOME_BYTES)
    assert HELLO_BYTES + WELCOME_BYTES == 160
    assert (greeted.public, greeted.suite) == (public(A), suite)
    assert (greeted.theirs, greeted.ours) == (0x0A0A, 0x0B00)
    assert_one_session(greeted, said)


def test_what_comes_with_a_hello_can_be_read_by_the_responder_alone() -> None:
    said = hello(records=b"records")
    assert b"records" not in said.frame
    greeted = door().greet(0, said.frame)
    assert (greeted.records, greeted.fresh) == (b"records", True)
    with pytest.raises(HandshakeFailed):
        door(C).greet(0, said.frame)


def test_the_hint_tells_whose_hello_it_is() -> None:
    frame = hello().frame
    assert door(B).is_meant(frame)
    assert not door(C).is_meant(frame)
    assert not door(B).is_meant(frame[:-1])
    assert not door(B).is_meant(b"")
    assert B.hint == hint_of(public(B)) != hint_of(public(C))


def test_a_hello_that_has_a_session_is_welcomed_again_by_the_same_bytes() -> None:
    at, said, other = door(), hello(), hello(2)
    greeted = at.greet(0, said.frame)
    assert at.answered(said.frame) is None, "it has none yet, and may get none"
    at.keep(said.frame, greeted)
    assert at.answered(said.frame) == (greeted.ours, greeted.frame)
    assert at.answered(other.frame) is None
    assert at.greet(0, other.frame).frame != greeted.frame


def test_a_hello_that_is_played_back_is_not_fresh_and_its_session_is_another_one() -> None:
    at = door()
    frames = [hello(stamp, b"pay").frame for stamp in range(1, ANSWERED_MAX + 2)]
    greeted = [at.greet(1000 * now, frame) for now, frame in enumerate(frames)]
    for frame, each in zip(frames, greeted, strict=True):
        at.keep(frame, each)
    assert at.answered(frames[0]) is None, "forgotten by now"
    again = at.greet(10**9, frames[0])
    assert not again.fresh
    assert again.keys.binding != greeted[0].keys.binding


@pytest.mark.parametrize(("stamp", "fresh"), [(4, False), (5, False), (6, True)])
def test_only_a_newer_stamp_of_the_same_sender_is_fresh(stamp: int, fresh: bool) -> None:
    at = door()
    assert at.greet(0, hello(5).frame).fresh
    assert at.greet(0, hello(stamp).frame).fresh is fresh
    assert at.greet(0, hello(1, own=C).frame).fresh
    assert not at.greet(0, hello(5).frame).fresh, "an older one in between takes nothing back"


def test_who_does_not_know_what_the_mesh_knows_gets_no_session() -> None:
    said = hello(own=Own(A.static, b"x" * 32))
    with pytest.raises(HandshakeFailed):
        said.welcomed(door().greet(0, said.frame).frame)


def test_every_byte_of_both_frames_counts() -> None:
    said = hello()
    greeted = door().greet(0, said.frame)
    for at in range(len(said.frame)):
        with pytest.raises(HandshakeFailed):
            door().greet(0, flipped(said.frame, at))
    for at in range(len(greeted.frame)):
        if at not in (1, 2):  # the number by which the hello is found
            with pytest.raises(HandshakeFailed):
                said.welcomed(flipped(greeted.frame, at))
    for bad in (b"", greeted.frame[:-1], greeted.frame + b"x", said.frame):
        with pytest.raises(HandshakeFailed):
            said.welcomed(bad)
    assert_one_session(greeted, said)


def flipped(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes((frame[at] ^ 1,)) + frame[at + 1 :]


@pytest.mark.parametrize("dictionary", [0, 1, DICTIONARY_MAX])
def test_a_hello_says_which_dictionaries_its_sender_has(dictionary: int) -> None:
    said = hello(dictionary=dictionary)
    greeted = door().greet(0, said.frame)
    assert (greeted.dictionary, greeted.suite) == (dictionary, Suite.AES_CCM_8)
    assert_one_session(greeted, said)


def test_of_more_than_it_has_room_for_it_says_the_last_it_has() -> None:
    assert door().greet(0, hello(dictionary=DICTIONARY_MAX + 1).frame).dictionary == DICTIONARY_MAX


@pytest.mark.parametrize("said", range(1, 16))
def test_nobody_on_the_way_changes_what_it_says(said: int) -> None:
    frame = hello().frame
    with pytest.raises(HandshakeFailed):
        door().greet(0, bytes((frame[0] ^ said,)) + frame[1:])


def test_so_many_hellos_a_second_are_read_and_no_more() -> None:
    at, garbage = door(), b"\x10" + B.hint + bytes(HELLO_BYTES - 3)

    def read(now_ms: float) -> int:
        """How many of a flood are."""
        found = 0
        for _ in range(3 * HELLOS_AT_ONCE):
            try:
                at.greet(now_ms, garbage)
            except HandshakeFailed as error:
                found += "too many" not in str(error)
        return found

    assert read(0) == HELLOS_AT_ONCE
    assert read(0) == 0
    assert read(1000) == HELLOS_A_SECOND
    assert read(10**9) == HELLOS_AT_ONCE, "a long silence earns no more than that"
    assert at.greet(2 * 10**9, hello().frame).fresh


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_transports.handshake.STAMPS_MAX", 2)
    monkeypatch.setattr("offgrid_transports.handshake.ANSWERED_MAX", 2)
    at, said = door(), [hello(7, own=own) for own in (A, C, A, B)]
    for each in said:
        at.keep(each.frame, at.greet(0, each.frame))
    assert [at.answered(each.frame) is None for each in said] == [True, True, False, False]
    assert len(at._stamps) == 2 < STAMPS_MAX


def test_a_node_that_says_hello_again_is_not_the_one_whose_stamp_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_transports.handshake.STAMPS_MAX", 2)
    at = door()
    for own, stamp in ((A, 1), (C, 1), (A, 2), (B, 1)):
        assert at.greet(0, hello(stamp, own=own).frame).fresh
    assert not at.greet(0, hello(2, own=A).frame).fresh
