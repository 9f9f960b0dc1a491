"""Every coder makes zfec's own shards, bit for bit, and gives back what was lost from any k of them."""

import hashlib
import itertools
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import PIECE_BYTES, Fallback
from offgrid_node.coding.isal import IsaL
from offgrid_node.coding.zfec_coder import Zfec
from offgrid_node.protocol.objects.code import combination, rows_for

FALLBACK = Fallback()

# zfec 1.6: k, n, row bytes → BLAKE2b-64 over all n shards of SHAKE-128("golden" and the row's number)
GOLDEN = {
    (1, 2, 16): "4aac562a1e896bdc",
    (1, 4, 100): "20d9107b6b8528f8",
    (3, 5, 1): "1c123ab32193de3f",
    (4, 7, 1000): "3f84ce7160294b26",
    (12, 20, 4096): "bf25c4fc56c5c48e",
    (100, 128, 257): "bb1b64930fd0e1b9",
    (12, 12, 33): "f6d0ae30aedfc034",
    (12, 20, 0): "e4a6a0577479b2b4",
}


def coders() -> list[Coder]:
    """Those that are here; the fall-back always is."""
    found: list[Coder] = [FALLBACK]
    for maker in (Zfec, IsaL):
        try:
            found.append(maker())
        except ImportError:
            continue
    return found


CODERS = coders()
each_coder = pytest.mark.parametrize("coder", CODERS, ids=lambda coder: coder.name)


def rows_of(k: int, length: int) -> list[bytes]:
    return [hashlib.shake_128(b"golden" + bytes([row])).digest(length) for row in range(k)]


@each_coder
@pytest.mark.parametrize("code", GOLDEN)
def test_makes_the_shards_that_zfec_once_made(coder, code):
    k, n, length = code
    shards = coder.encode(k, n, rows_of(k, length), range(n))
    assert hashlib.blake2b(b"".join(shards), digest_size=8).hexdigest() == GOLDEN[code]


@each_coder
def test_any_three_of_five_give_all_five(coder):
    shards = coder.encode(3, 5, rows_of(3, 50), range(5))
    for kept in itertools.permutations(range(5), 3):
        have = {row: shards[row] for row in kept}
        assert coder.rebuild(3, 5, have, range(5)) == shards
        assert list(have) == list(kept), "the caller's rows stay as they are"


@st.composite
def losses(draw):
    n = draw(st.integers(1, 24))
    k = draw(st.integers(1, n))
    rows = [draw(st.binary(min_size=9, max_size=9)) * draw(st.just(3)) for _ in range(k)]
    kept = draw(st.lists(st.integers(0, n - 1), min_size=k, max_size=n, unique=True))
    return k, n, rows, kept


@given(losses())
def test_all_coders_agree_on_any_code_and_any_loss(case):
    k, n, rows, kept = case
    shards = FALLBACK.encode(k, n, rows, range(n))
    for coder in CODERS:
        assert coder.encode(k, n, rows, range(n)) == shards
        assert coder.rebuild(k, n, {row: shards[row] for row in kept}, range(n)) == shards


@given(st.data(), st.integers(1, 20), st.integers(0, 40))
def test_all_coders_agree_on_any_sum(data, count, length):
    rows = [data.draw(st.binary(min_size=length, max_size=length)) for _ in range(count)]
    sums = data.draw(st.lists(st.binary(min_size=count, max_size=count), max_size=20))
    expected = [combination(coefficients, rows) for coefficients in sums]
    assert all(coder.combine(sums, rows) == expected for coder in CODERS)


@each_coder
@pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7])
def test_pieces_meet_without_a_seam(coder, length):
    rows = rows_of(4, length)
    parity = coder.encode(4, 6, rows, [4, 5])
    assert parity == CODERS[-1].encode(4, 6, rows, [4, 5])
    assert coder.rebuild(4, 6, {1: rows[1], 3: rows[3], 4: parity[0], 5: parity[1]}, [0, 2]) == [rows[0], rows[2]]


@each_coder
def test_takes_views_into_larger_bytes_and_gives_only_what_is_wanted_in_that_order(coder):
    whole = bytearray(random.Random(1).randbytes(400))
    rows = [memoryview(whole)[at : at + 100] for at in range(0, 400, 100)]
    made = coder.encode(4, 7, rows, [6, 1, 4])
    assert made == [coder.encode(4, 7, rows, [6])[0], bytes(rows[1]), coder.encode(4, 7, rows, [4])[0]]
    assert all(type(row) is bytes for row in made)
    assert coder.encode(4, 7, rows, []) == []


@each_coder
def test_a_shard_is_the_sum_of_others_that_the_code_says(coder):
    shards = coder.encode(4, 7, rows_of(4, 64), range(7))
    have = (6, 1, 5, 3)
    sums = rows_for(4, 7, have, (0, 4))
    assert coder.combine(sums, [shards[row] for row in have]) == [shards[0], shards[4]]


@each_coder
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.encode(3, 5, [b"a", b"b"], [0]), "2 rows, just 3 are needed"),
        (lambda c: c.encode(3, 5, [b"a", b"b", b"cd"], [4]), "rows of 1 and of 2 bytes: all rows have one length"),
        (lambda c: c.encode(3, 5, [b"a", b"b", b"c"], [5]), "row 5: a code of 5 has rows 0 to 4"),
        (lambda c: c.encode(3, 5, [b"a", b"b", b"c"], [-1]), "row -1: a code of 5 has rows 0 to 4"),
        (lambda c: c.encode(0, 5, [], [1]), "a code of 0 of 5"),
        (lambda c: c.encode(6, 5, [b"a"] * 6, [1]), "a code of 6 of 5"),
        (lambda c: c.encode(6, 256, [b"a"] * 6, [1]), "a code of 6 of 256"),
        (lambda c: c.rebuild(3, 5, {0: b"a", 4: b"b"}, [1]), "2 rows, 3 of 5 are needed"),
        (lambda c: c.rebuild(2, 5, {0: b"a", 7: b"b"}, [1]), "row 7: a code of 5 has rows 0 to 4"),
        (lambda c: c.rebuild(2, 5, {0: b"a", 4: b"bb"}, [1]), "rows of 1 and of 2 bytes"),
        (lambda c: c.combine([b""], []), "0 coefficients for 0 rows"),
        (lambda c: c.combine([b"ab", b"a"], [b"a", b"b"]), "1 coefficients for 2 rows"),
        (lambda c: c.combine([b"ab"], [b"a", b"bb"]), "rows of 1 and of 2 bytes"),
    ],
)
def test_refuses_what_cannot_be(coder, call, message):
    with pytest.raises(ValueError, match=message):
        call(coder)


@each_coder
def test_several_threads_may_use_one(coder):
    rows = rows_of(12, 30_000)
    expected = FALLBACK.encode(12, 20, rows, range(12, 20))
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            if coder.encode(12, 20, rows, range(12, 20)) != expected:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
