"""The redo log: what was appended is read again, in order, and nothing else ever is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offgrid_node.storage.redo_log import BLOCK_BYTES, LOG_BYTES, LOG_FILE, RECORD_BYTES_MAX, RedoLog, body_of
from offgrid_node.storage.store import Batch

ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["jobs", "t" * 64]), st.binary(min_size=1, max_size=511)),
    st.one_of(st.none(), st.binary(max_size=5_000)),
    max_size=6,
)
BATCHES = st.builds(Batch, st.lists(st.binary(max_size=5_000), max_size=4), ROWS)
SEAL = b"the end"


@contextlib.contextmanager
def opened(folder: Path, txn: int = 7, seal: bytes = SEAL) -> Iterator[RedoLog]:
    with contextlib.closing(RedoLog(folder)) as log:
        log.begin(txn, seal)
        yield log


def append(log: RedoLog, *batches: Batch) -> None:
    for batch in batches:
        log.append(batch, body_of(batch))


def held(folder: Path, txn: int = 7, seal: bytes = SEAL) -> list[Batch]:
    with opened(folder, txn, seal) as log:
        return list(log.read())


def numbered(number: int, size: int = 10) -> Batch:
    return Batch([b"event %d" % number], {("jobs", b"%d" % number): bytes(size), ("jobs", b"gone"): None})


def test_a_new_log_holds_nothing_and_has_its_whole_length(tmp_path: Path) -> None:
    assert held(tmp_path) == []
    assert (tmp_path / LOG_FILE).stat().st_size == LOG_BYTES
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o077 == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(BATCHES, max_size=6))
def test_what_was_appended_is_read_again(tmp_path_factory: pytest.TempPathFactory, batches: list[Batch]) -> None:
    folder = tmp_path_factory.mktemp("log")
    with opened(folder) as log:
        append(log, *batches)
    assert held(folder) == batches


def test_what_is_appended_to_what_was_read_comes_behind_it(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
    with opened(tmp_path) as log:
        assert len(list(log.read())) == 2
        append(log, numbered(3))
    assert held(tmp_path) == [numbered(1), numbered(2), numbered(3)]


def test_records_of_another_transaction_or_another_history_are_void(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1))
    assert held(tmp_path, txn=8) == []
    assert held(tmp_path, seal=b"another end") == []
    assert held(tmp_path) == [numbered(1)]


def test_the_rest_of_an_older_log_does_not_follow_a_newer_one(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2), numbered(3))
        log.begin(7, b"restored from a backup")  # the same number once more, with another past
        append(log, numbered(4))
    assert held(tmp_path, seal=b"restored from a backup") == [numbered(4)]


def test_a_record_of_which_any_byte_has_changed_ends_the_log(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2), numbered(3))
    path = tmp_path / LOG_FILE
    whole = path.read_bytes()
    record = len(whole[BLOCK_BYTES : 2 * BLOCK_BYTES].rstrip(b"\0"))
    for at in range(record):
        damaged = bytearray(whole)
        damaged[BLOCK_BYTES + at] ^= 0x10
        path.write_bytes(damaged)
        assert held(tmp_path) == [numbered(1)]


def test_a_record_that_was_cut_off_is_none_and_the_next_takes_its_place(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2, size=3 * BLOCK_BYTES))
    path = tmp_path / LOG_FILE
    data = bytearray(path.read_bytes())
    data[3 * BLOCK_BYTES :] = bytes(len(data) - 3 * BLOCK_BYTES)
    path.write_bytes(data)
    with opened(tmp_path) as log:
        assert list(log.read()) == [numbered(1)]
        append(log, numbered(3))
    assert held(tmp_path) == [numbered(1), numbered(3)]


def test_what_is_durable_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE
    with opened(tmp_path) as log:
        for number in range(20):
            before = path.read_bytes()
            used = len(before.rstrip(b"\0"))
            append(log, numbered(number, size=number * 700))
            blocks = used + -used % BLOCK_BYTES
            assert path.read_bytes()[:blocks] == before[:blocks]


def test_it_has_room_for_a_bounded_number_of_records(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        count = 0
        while log.has_room(body_of(numbered(0))):
            append(log, numbered(count))
            count += 1
        assert count == LOG_BYTES // BLOCK_BYTES
        log.begin(8, SEAL)
        assert log.has_room(bytes(RECORD_BYTES_MAX))
        assert list(log.read()) == []
    assert (tmp_path / LOG_FILE).stat().st_size == LOG_BYTES
    assert len(held(tmp_path)) == count  # as long as the store has not moved on they count


def test_a_log_that_is_too_short_is_made_whole_and_keeps_what_it_has(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1))
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes()[: 2 * BLOCK_BYTES])
    assert held(tmp_path) == [numbered(1)]
    assert path.stat().st_size == LOG_BYTES
