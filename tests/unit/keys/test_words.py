"""Recovery words: what is written down comes back, and what was written down wrongly is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from offgrid_node.keys.words import SEED_BYTES, WORDS, seed_of, words_of
from offgrid_node.protocol.errors import InvalidRequest

# BIP-39's own test vectors for 256 bits (github.com/trezor/python-mnemonic/vectors.json).
VECTORS = [
    (bytes(32), "abandon " * 23 + "art"),
    (
        b"\x7f" * 32,
        "legal winner thank year wave sausage worth useful " * 2 + "legal winner thank year wave sausage worth title",
    ),
    (b"\xff" * 32, "zoo " * 23 + "vote"),
]
SEEDS = st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES)


@pytest.mark.parametrize(("seed", "words"), VECTORS)
def test_the_standards_vectors(seed: bytes, words: str) -> None:
    assert words_of(seed) == words
    assert seed_of(words) == seed


@given(SEEDS)
def test_words_come_back_as_people_type_them(seed: bytes) -> None:
    words = words_of(seed)
    assert len(words.split()) == WORDS
    assert seed_of(words) == seed
    assert seed_of("\n ".join(word[:4].upper() for word in words.split())) == seed


@given(SEEDS, st.integers(0, WORDS - 1), st.integers(1, 2047))
def test_a_wrong_word_of_the_list_is_found_but_for_one_in_256(seed: bytes, place: int, shift: int) -> None:
    known, words = Mnemonic("english").wordlist, words_of(seed).split()
    words[place] = known[(known.index(words[place]) + shift) % len(known)]
    if Mnemonic("english").check(" ".join(words)):
        assert seed_of(" ".join(words)) != seed
        return
    with pytest.raises(InvalidRequest, match="checksum"):
        seed_of(" ".join(words))


@pytest.mark.parametrize("words", ["", "abandon", "abandon " * 23, "abandon " * 25])
def test_another_number_of_words_is_named(words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{len(words.split())} words, a key has 24"):
        seed_of(words)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("abandno", r"word 3 \('abandno'\).*did you mean 'abandon'"),
        ("zzzzzz", "word 3"),
        ("aba", "word 3"),
        ("ac", "word 3"),
    ],
)
def test_a_word_that_is_none_is_named_and_no_other(wrong: str, told: str) -> None:
    words = words_of(b"\x7f" * 32).split()
    with pytest.raises(InvalidRequest, match=told) as error:
        seed_of(" ".join([*words[:2], wrong, *words[3:]]))
    assert not any(f"'{word}'" in error.value.message for word in (words[0], words[1], *words[3:]))


def test_only_a_seed_has_words() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        words_of(bytes(16))
