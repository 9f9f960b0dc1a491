"""Recovery words: a key's 32-byte seed as 24 English words that a person can write down (BIP-39).

The words are BIP-39's entropy itself, not its PBKDF2 seed: the same seed gives the same words and back again, eight
bits of SHA-256 telling a wrong word. Its list is so made that four letters name a word.
"""

from __future__ import annotations

import difflib
import unicodedata
from functools import cache

from mnemonic import Mnemonic

from offgrid_node.protocol.errors import InvalidRequest

WORDS = 24
SEED_BYTES = 32
LETTERS_MIN = 4  # that tell a word of the list from every other


def words_of(seed: bytes) -> str:
    """The 24 words of a seed of 32 secret bytes, in small letters, one space between."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
    return _list().to_mnemonic(seed)


def seed_of(words: str) -> bytes:
    """The inverse of `words_of`, as people type it: any case and spacing, a word's first four letters are enough.

    Raises InvalidRequest (field `words`), which never repeats more than the one word that is wrong.
    """
    typed = unicodedata.normalize("NFKD", words).casefold().split()
    if len(typed) != WORDS:
        raise InvalidRequest.field("words", f"{len(typed)} words, a key has {WORDS}")
    whole = [_whole(number, word) for number, word in enumerate(typed, start=1)]
    try:
        return bytes(_list().to_entropy(whole))
    except ValueError:
        raise InvalidRequest.field(
            "words", "each is in the list, but not all of them are right or in their order (their checksum differs)"
        ) from None


def _whole(number: int, typed: str) -> str:
    known = _list().wordlist
    found = [typed] if typed in known else [word for word in known if word.startswith(typed)]
    if len(found) == 1 and len(typed) >= min(LETTERS_MIN, len(found[0])):
        return found[0]
    near = difflib.get_close_matches(typed, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidRequest.field("words", f"word {number} ({typed[:12]!r}) is not in BIP-39's English list{hint}")


@cache
def _list() -> Mnemonic:
    return Mnemonic("english")
