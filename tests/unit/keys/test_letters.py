"""Letters: what is sealed for a reader opens for that reader and purpose, and for nobody and nothing else."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offgrid_node.keys import NodeKey
from offgrid_node.keys import letters as module
from offgrid_node.keys.letters import LETTER_OVERHEAD_BYTES, Letters
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

HOST, CORE, OTHER = NodeKey(b"h" * 32), NodeKey(b"c" * 32), NodeKey(b"o" * 32)


def letters(key: NodeKey, seed: int = 1) -> Letters:
    return Letters(key, Random(seed).randbytes)


@given(st.binary(max_size=1000), st.binary(max_size=100))
def test_the_reader_opens_what_was_sealed(plaintext: bytes, context: bytes) -> None:
    letter = letters(HOST).seal(CORE.public_key, context, plaintext)
    assert letters(CORE, 2).open(letter, context) == plaintext
    assert len(letter) == len(plaintext) + LETTER_OVERHEAD_BYTES
    assert plaintext not in letter or len(plaintext) < 3


def test_nobody_else_opens_it_nor_the_sender_itself() -> None:
    sender = letters(HOST)
    letter = sender.seal(CORE.public_key, b"job", b"result")
    for reader in (letters(OTHER), letters(HOST), sender):
        with pytest.raises(PermissionDenied, match="does not open"):
            reader.open(letter, b"job")


def test_it_is_for_one_purpose() -> None:
    letter = letters(HOST).seal(CORE.public_key, b"job 1", b"result")
    with pytest.raises(PermissionDenied):
        letters(CORE).open(letter, b"job 2")


@given(st.integers(0, LETTER_OVERHEAD_BYTES + 5), st.integers(1, 255))
@example(at=32, flip=0x80)  # the bit of a public key that X25519 itself ignores (RFC 7748, 5)
def test_any_change_is_refused(at: int, flip: int) -> None:
    letter = letters(HOST).seal(CORE.public_key, b"job", b"result")
    changed = letter[:at] + bytes([letter[at] ^ flip]) + letter[at + 1 :]
    for broken in (changed, letter[:at]):
        with pytest.raises(PermissionDenied):
            letters(CORE).open(broken, b"job")


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(PermissionDenied):
        letters(CORE).open(b"\x01" + junk, b"")


def test_letters_to_one_reader_share_a_key_for_a_while_and_no_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LETTERS_PER_KEY", 2)
    sender, reader = letters(HOST), letters(CORE)
    sealed = [sender.seal(CORE.public_key, b"", b"x") for _ in range(4)]
    assert [letter[1:33] == sealed[0][1:33] for letter in sealed] == [True, True, False, False]
    assert len({letter[1:37] for letter in sealed}) == 4
    assert {reader.open(letter, b"") for letter in sealed} == {b"x"}


def test_how_many_keys_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 2)
    sender, reader = letters(HOST), letters(CORE)
    for number in range(5):
        sender.seal(NodeKey(bytes([number]) * 32).public_key, b"", b"x")
        reader.open(letters(HOST, number).seal(CORE.public_key, b"", b"x"), b"")
    assert (len(sender._outgoing), len(reader._incoming)) == (2, 2)


@pytest.mark.parametrize("public_key", [b"", bytes(32), b"\x01" + bytes(31), b"x" * 31])
def test_a_key_that_is_none_is_named(public_key: bytes) -> None:
    with pytest.raises(InvalidRequest, match="public_key"):
        letters(HOST).seal(public_key, b"", b"x")
