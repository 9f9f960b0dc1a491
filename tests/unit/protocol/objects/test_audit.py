"""An audit: one answer of sixteen bytes a shard; damage is found, told apart, and no honest shard is accused."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.objects import audit
from offgrid_node.protocol.objects.audit import ANSWER_BYTES, NONCE_BYTES, PIECE_BYTES, WINDOW_BYTES, answer_of, judge

CODER = Fallback()
K, N = 4, 7


def answer(shard: bytes, nonce: bytes) -> bytes:
    return answer_of(nonce, len(shard), lambda offset, length: shard[offset : offset + length], CODER.combine)


def shards_of(size: int, k: int = K, n: int = N) -> list[bytes]:
    rows = [hashlib.shake_128(bytes([row])).digest(size) for row in range(k)]
    return CODER.encode(k, n, rows, range(n))


def answers_of(shards: list[bytes], nonce: bytes = b"n" * 16) -> dict[int, bytes]:
    return {number: answer(shard, nonce) for number, shard in enumerate(shards)}


@pytest.mark.parametrize("size", [0, 1, 15, PIECE_BYTES, PIECE_BYTES + 1, WINDOW_BYTES + PIECE_BYTES + 3])
def test_whole_shards_answer_with_a_code_word(size):
    answers = answers_of(shards_of(size))
    assert judge(K, N, answers) == audit.Verdict(whole=True)
    assert all(len(each) == ANSWER_BYTES for each in answers.values())


def test_a_whole_object_of_twelve_of_twenty_is_asked_in_under_a_kilobyte():
    assert 20 * (NONCE_BYTES + ANSWER_BYTES) <= 1_000


def test_each_of_a_thousand_wrong_bytes_is_found_and_its_shard_named():
    size, rng = 40_000, random.Random(7)
    shards = shards_of(size)
    for _ in range(1_000):
        nonce, victim, place = rng.randbytes(16), rng.randrange(N), rng.randrange(size)
        # What the wrong byte adds to its shard's answer is the answer of a shard that is nothing else.
        error = bytearray(size)
        error[place] = rng.randrange(1, 256)
        false = answer(bytes(error), nonce)
        assert all(false), "no factor is 0, so each of the sixteen sums sees a single wrong byte"
    nonce = rng.randbytes(16)
    answers = answers_of(shards, nonce)
    for victim in range(N):
        wrong = bytearray(shards[victim])
        wrong[size - 1] ^= 0x40
        found = judge(K, N, {**answers, victim: answer(bytes(wrong), nonce)})
        assert found == audit.Verdict(whole=False, wrong=(victim,))


@settings(max_examples=30, deadline=None)
@given(
    st.binary(min_size=300, max_size=300), st.binary(min_size=300, max_size=300), st.binary(min_size=16, max_size=16)
)
def test_answers_are_linear_so_they_commute_with_any_code(left, right, nonce):
    both = bytes(a ^ b for a, b in zip(left, right, strict=True))
    summed = bytes(a ^ b for a, b in zip(answer(left, nonce), answer(right, nonce), strict=True))
    assert answer(both, nonce) == summed


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_wrong_answers_are_told_apart_while_they_are_fewer_than_the_spare_ones(data):
    k = data.draw(st.integers(1, 8))
    n = data.draw(st.integers(k + 2, 20))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    answers = dict(enumerate(CODER.encode(k, n, [rng.randbytes(16) for _ in range(k)], range(n))))
    silent = data.draw(st.sets(st.integers(0, n - 1), max_size=n - k - 2))
    answered = {shard: each for shard, each in answers.items() if shard not in silent}
    spare = len(answered) - k
    wrong = data.draw(st.sets(st.sampled_from(sorted(answered)), max_size=min(spare - 1, 14)))
    for shard in wrong:
        answered[shard] = rng.randbytes(16)
    found = judge(k, n, answered)
    assert found.whole == (not wrong)
    assert found.wrong == tuple(sorted(wrong))
    assert found.told_apart


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 255)), min_size=1, max_size=4, unique_by=lambda w: w[0]))
def test_liars_in_step_may_hide_but_no_honest_shard_is_accused_for_them(liars):
    answers = dict(enumerate(CODER.encode(4, 10, [bytes([row]) * 16 for row in range(4)], range(10))))
    for shard, factor in liars:
        answers[shard] = bytes(value ^ factor for value in answers[shard])
    found = judge(4, 10, answers)
    assert not found.whole
    assert set(found.wrong) <= {shard for shard, _ in liars}
    assert found.told_apart == (len(liars) == 1)


def test_copies_are_one_of_as_many_as_there_are():
    copy = b"sealed" * 50
    answers = {number: answer(copy, b"n" * 16) for number in range(3)}
    assert judge(1, 3, answers).whole
    assert judge(1, 3, {**answers, 1: bytes(16)}) == audit.Verdict(whole=False, wrong=(1,))


def test_of_two_copies_that_differ_nobody_can_tell_which_is_wrong():
    assert judge(1, 2, {0: b"a" * 16, 1: b"b" * 16}) == audit.Verdict(whole=False, wrong=(), told_apart=False)


def test_k_answers_prove_nothing():
    with pytest.raises(ValueError, match="4 answers: more than 4 of 7 are needed"):
        judge(K, N, dict.fromkeys(range(4), bytes(16)))


def test_an_answer_of_another_length_is_refused():
    with pytest.raises(ValueError, match="not of 16 bytes"):
        judge(1, 3, dict.fromkeys(range(3), b"short"))


def test_another_nonce_has_another_answer():
    shard = shards_of(500)[0]
    assert answer(shard, b"a" * 16) != answer(shard, b"b" * 16)
