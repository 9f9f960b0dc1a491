"""Whether a repair comes on: whole sums count, a host's own rate is waited for, and neither for ever."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.services.objects.combining import SUM_BYTES_MAX
from offgrid_node.services.objects.headway import (
    GRACE_MS,
    PAUSE_MS_MAX,
    PAUSE_MS_MIN,
    SLOWEST_BYTES_PER_S,
    STUMBLES_MAX,
    Headway,
)

SHARD_BYTES = 20 * SUM_BYTES_MAX + 7


class Repair:
    """Shard 3 of an object at one host."""

    def __init__(self, reached: int = 0) -> None:
        self.now_ms, self.offset = 0, reached
        self.headway = Headway("host", {3: reached}, SHARD_BYTES, self.now_ms)

    def answer(self, more_bytes: int, *, retry_ms: int = 0, took_ms: int = 0) -> int:
        self.now_ms += took_ms
        self.offset = min(SHARD_BYTES, self.offset + more_bytes)
        return self.headway.on_answer({3: self.offset}, retry_ms, self.now_ms)


def test_one_that_brings_whole_sums_comes_to_its_end() -> None:
    repair, answers = Repair(), 0
    while repair.headway.missing:
        assert repair.answer(SUM_BYTES_MAX, took_ms=5_000) == 0
        answers += 1
    assert answers == 21
    assert repair.headway.reached == {3: SHARD_BYTES}


@pytest.mark.parametrize("more_bytes", [0, 1, SUM_BYTES_MAX - 1, -5])
def test_less_than_a_sum_is_nothing(more_bytes: int) -> None:
    repair = Repair(reached=10)
    for _ in range(STUMBLES_MAX):
        repair.answer(more_bytes)
    with pytest.raises(PeerFault) as told:
        repair.answer(more_bytes)
    assert told.value.reason == "NoProgress"


def test_a_sum_now_and_then_makes_up_for_stumbles() -> None:
    repair = Repair()
    for _ in range(3):
        for _ in range(STUMBLES_MAX):
            repair.answer(0)
        repair.answer(SUM_BYTES_MAX)


def test_the_rest_of_a_shard_is_as_good_as_a_sum() -> None:
    repair = Repair(reached=SHARD_BYTES - 3)
    for _ in range(STUMBLES_MAX):
        repair.answer(0)
    assert repair.answer(3) == 0
    assert not repair.headway.missing


@pytest.mark.parametrize("bytes_per_s", [SLOWEST_BYTES_PER_S, 5_000, 9_000])
def test_a_host_at_its_own_rate_is_waited_for_however_often_it_says_so(bytes_per_s: int) -> None:
    """It gives what its rate allows by then, as `repair_pace.py` does: the first sum at once."""
    repair, free_ms = Repair(), 0
    while repair.headway.missing:
        more_bytes = 0
        if free_ms <= repair.now_ms:
            more_bytes, free_ms = SUM_BYTES_MAX, max(free_ms, repair.now_ms) + SUM_BYTES_MAX * 1_000 // bytes_per_s
        wait_ms = repair.answer(more_bytes, retry_ms=free_ms - repair.now_ms, took_ms=0)
        assert PAUSE_MS_MIN <= wait_ms <= PAUSE_MS_MAX
        repair.now_ms += wait_ms
    assert repair.now_ms >= (SHARD_BYTES - 2 * SUM_BYTES_MAX) * 1_000 // bytes_per_s


@pytest.mark.parametrize("retry_ms", [1, 60_000, 2**31])
def test_one_that_says_so_and_never_comes_on_is_given_up(retry_ms: int) -> None:
    repair = Repair()

    def wait_for_it() -> None:
        while repair.now_ms <= 2 * GRACE_MS:
            repair.now_ms += repair.answer(1, retry_ms=retry_ms)

    with pytest.raises(PeerFault, match="comes no further"):
        wait_for_it()
    assert repair.now_ms <= GRACE_MS + PAUSE_MS_MAX


def test_so_is_one_that_is_slower_than_a_repair_is_worth() -> None:
    repair, took_ms = Repair(), 2 * SUM_BYTES_MAX * 1_000 // SLOWEST_BYTES_PER_S
    for _ in range(2):
        repair.answer(SUM_BYTES_MAX, retry_ms=1, took_ms=took_ms)
    with pytest.raises(PeerFault, match="comes no further"):
        repair.answer(SUM_BYTES_MAX, retry_ms=1, took_ms=took_ms)
    assert repair.offset < 4 * SUM_BYTES_MAX


@pytest.mark.parametrize("further", [{}, {2: 5}, {3: SHARD_BYTES + 1}, {3: 0, 4: 0}])
def test_it_tells_of_the_shards_that_are_missing_alone(further: dict[int, int]) -> None:
    with pytest.raises(PeerFault) as told:
        Repair().headway.on_answer(further, 0, 0)
    assert told.value.reason == "WrongShards"
