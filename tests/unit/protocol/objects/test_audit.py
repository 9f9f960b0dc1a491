"""An audit: one answer of seven bytes a shard; damage is found, told apart, and no honest shard is accused."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.objects import audit
from offgrid_node.protocol.objects.audit import ANSWER_BYTES, NONCE_BYTES, PIECE_BYTES, WINDOW_BYTES, answer_of, judge

CODER = Fallback()
K, N = 4, 7


def exactly(size):
    return st.binary(min_size=size, max_size=size)


def answer(shard: bytes, nonce: bytes) -> bytes:
    return answer_of(nonce, len(shard), lambda offset, length: shard[offset : offset + length], CODER.combine)


def shards_of(size: int, k: int = K, n: int = N) -> list[bytes]:
    rows = [hashlib.shake_128(bytes([row])).digest(size) for row in range(k)]
    return CODER.encode(k, n, rows, range(n))


def answers_of(shards: list[bytes], nonce: bytes = b"n" * NONCE_BYTES) -> dict[int, bytes]:
    return {number: answer(shard, nonce) for number, shard in enumerate(shards)}


@pytest.mark.parametrize("size", [0, 1, 15, PIECE_BYTES, PIECE_BYTES + 1, WINDOW_BYTES + PIECE_BYTES + 3])
def test_whole_shards_answer_with_a_code_word(size):
    answers = answers_of(shards_of(size))
    assert judge(K, N, answers) == audit.Verdict(whole=True)
    assert all(len(each) == ANSWER_BYTES for each in answers.values())


def test_a_whole_object_of_twelve_of_twenty_is_asked_in_a_few_bytes_each():
    assert 20 * (NONCE_BYTES + ANSWER_BYTES) <= 250, "beside what carries it"


def test_each_of_a_thousand_wrong_bytes_is_found_and_its_shard_named():
    size, rng = 40_000, random.Random(7)
    shards = shards_of(size)
    for _ in range(1_000):
        nonce, victim, place = rng.randbytes(NONCE_BYTES), rng.randrange(N), rng.randrange(size)
        # What the wrong byte adds to its shard's answer is the answer of a shard that is nothing else.
        error = bytearray(size)
        error[place] = rng.randrange(1, 256)
        false = answer(bytes(error), nonce)
        assert all(false), "no factor is 0, so each of the seven sums sees a single wrong byte"
    nonce = rng.randbytes(NONCE_BYTES)
    answers = answers_of(shards, nonce)
    for victim in range(N):
        wrong = bytearray(shards[victim])
        wrong[size - 1] ^= 0x40
        found = judge(K, N, {**answers, victim: answer(bytes(wrong), nonce)})
        assert found == audit.Verdict(whole=False, wrong=(victim,))


@settings(max_examples=30)
@given(exactly(300), exactly(300), exactly(NONCE_BYTES))
def test_answers_are_linear_so_they_commute_with_any_code(left, right, nonce):
    both = bytes(a ^ b for a, b in zip(left, right, strict=True))
    summed = bytes(a ^ b for a, b in zip(answer(left, nonce), answer(right, nonce), strict=True))
    assert answer(both, nonce) == summed


@given(st.data())
def test_wrong_answers_are_told_apart_while_they_are_fewer_than_the_spare_ones(data):
    k = data.draw(st.integers(1, 8))
    n = data.draw(st.integers(k + 2, 20))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    answers = dict(enumerate(CODER.encode(k, n, [rng.randbytes(ANSWER_BYTES) for _ in range(k)], range(n))))
    silent = data.draw(st.sets(st.integers(0, n - 1), max_size=n - k - 2))
    answered = {shard: each for shard, each in answers.items() if shard not in silent}
    spare = len(answered) - k
    wrong = data.draw(st.sets(st.sampled_from(sorted(answered)), max_size=min(spare - 1, ANSWER_BYTES - 2)))
    for shard in wrong:
        answered[shard] = rng.randbytes(ANSWER_BYTES)
    found = judge(k, n, answered)
    assert found.whole == (not wrong)
    assert found.wrong == tuple(sorted(wrong))
    assert found.told_apart


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 255)), min_size=1, max_size=4, unique_by=lambda w: w[0]))
def test_liars_in_step_may_hide_but_no_honest_shard_is_accused_for_them(liars):
    answers = dict(enumerate(CODER.encode(4, 10, [bytes([row]) * ANSWER_BYTES for row in range(4)], range(10))))
    for shard, factor in liars:
        answers[shard] = bytes(value ^ factor for value in answers[shard])
    found = judge(4, 10, answers)
    assert not found.whole
    assert set(found.wrong) <= {shard for shard, _ in liars}
    assert found.told_apart == (len(liars) == 1)


def test_copies_are_one_of_as_many_as_there_are():
    copy = b"sealed" * 50
    answers = {number: answer(copy, b"n" * NONCE_BYTES) for number in range(3)}
    assert judge(1, 3, answers).whole
    assert judge(1, 3, {**answers, 1: bytes(ANSWER_BYTES)}) == audit.Verdict(whole=False, wrong=(1,))


def test_of_two_copies_that_differ_nobody_can_tell_which_is_wrong():
    assert judge(1, 2, {0: b"a" * ANSWER_BYTES, 1: b"b" * ANSWER_BYTES}) == audit.Verdict(
        whole=False, wrong=(), told_apart=False
    )


def test_k_answers_prove_nothing():
    with pytest.raises(ValueError, match="4 answers: more than 4 of 7 are needed"):
        judge(K, N, dict.fromkeys(range(4), bytes(ANSWER_BYTES)))


def test_an_answer_of_another_length_is_refused():
    with pytest.raises(ValueError, match="not of 7 bytes"):
        judge(1, 3, dict.fromkeys(range(3), b"brief"))


def test_another_nonce_has_another_answer():
    shard = shards_of(500)[0]
    assert answer(shard, b"a" * NONCE_BYTES) != answer(shard, b"b" * NONCE_BYTES)


some_answers = st.dictionaries(st.integers(0, 127), exactly(ANSWER_BYTES), max_size=4)


@given(st.lists(some_answers, max_size=5), st.integers(0, 3))
def test_answers_travel_as_they_are_also_where_they_end_early(objects, more):
    asked = max(2, len(objects) + more)
    raw = audit.encode_answers(objects, asked)
    assert audit.decode_answers(raw, asked) == objects
    assert len(raw) == sum(1 + (1 + ANSWER_BYTES) * len(each) for each in objects)


@given(some_answers)
def test_those_of_one_object_alone_are_not_counted(answers):
    raw = audit.encode_answers([answers], 1)
    assert audit.decode_answers(raw, 1) == [answers]
    assert len(raw) == (1 + ANSWER_BYTES) * len(answers)


@given(st.binary(max_size=80), st.integers(1, 4))
def test_whatever_else_comes_is_refused(raw, asked):
    try:
        found = audit.decode_answers(raw, asked)
    except PeerFault:
        return
    assert audit.encode_answers(found, asked) == raw
    assert len(found) <= asked
