"""The redo log: what was appended is read again, in order, and nothing else ever is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.redo_log import (
    BLOCK_BYTES,
    LOG_BYTES,
    LOG_FILE,
    RECORD_BYTES_MAX,
    RECORDS_BYTES,
    RedoLog,
    body_of,
)
from offgrid_node.storage.store import Batch

ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["jobs", "t" * 64]), st.binary(min_size=1, max_size=511)),
    st.one_of(st.none(), st.binary(max_size=5_000)),
    max_size=6,
)
BATCHES = st.builds(Batch, st.lists(st.binary(max_size=5_000), max_size=4), ROWS)
SEAL = b"the end"
LOG_ID = b"sixteen bytes id"
MARK_AT, MARK_BYTES = LOG_BYTES - BLOCK_BYTES, 36


@contextlib.contextmanager
def opened(folder: Path, txn: int = 7, seal: bytes = SEAL) -> Iterator[RedoLog]:
    made = (folder / LOG_FILE).exists()
    with contextlib.closing(RedoLog.open(folder, LOG_ID) if made else RedoLog.make(folder, LOG_ID)) as log:
        log.begin(txn, seal)
        yield log


def append(log: RedoLog, *batches: Batch) -> None:
    for batch in batches:
        log.append(batch, body_of(batch))


def held(folder: Path, txn: int = 7, seal: bytes = SEAL) -> list[Batch]:
    with opened(folder, txn, seal) as log:
        return log.read()


def without_mark(data: bytes) -> bytes:
    """As a power cut may leave the file: the mark is in nobody's way, and is not waited for."""
    return data[:MARK_AT] + bytes(MARK_BYTES) + data[MARK_AT + MARK_BYTES :]


def numbered(number: int, size: int = 10) -> Batch:
    return Batch([b"event %d" % number], {("jobs", b"%d" % number): bytes(size), ("jobs", b"gone"): None})


def test_a_new_log_holds_nothing_and_has_its_whole_length(tmp_path: Path) -> None:
    assert held(tmp_path) == []
    assert (tmp_path / LOG_FILE).stat().st_size == LOG_BYTES
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o077 == 0


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
        assert len(log.read()) == 2
        append(log, numbered(3))
    assert held(tmp_path) == [numbered(1), numbered(2), numbered(3)]


def test_records_of_an_earlier_transaction_are_void(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
    assert held(tmp_path, txn=8) == []
    assert held(tmp_path) == [numbered(1), numbered(2)]


def refusal(folder: Path, txn: int = 7, seal: bytes = SEAL) -> Corrupt:
    with pytest.raises(Corrupt, match=r"backup") as caught:
        held(folder, txn, seal)
    assert str(folder / LOG_FILE) in caught.value.message
    return caught.value


def test_a_store_that_is_older_than_its_log_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1))
        log.begin(9, SEAL)
        append(log, numbered(2))
    fault = refusal(tmp_path)
    assert fault.reason == "StoreDamaged"
    assert "transaction 9 of a store that is at 7" in fault.message


def test_records_behind_another_history_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
    assert refusal(tmp_path, seal=b"another end").reason == "StoreDamaged"


@pytest.mark.parametrize("damaged_block", [1, 2])
def test_a_record_of_which_any_byte_has_changed_is_refused_where_others_follow(
    tmp_path: Path, damaged_block: int
) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2), numbered(3))
        path = tmp_path / LOG_FILE
        whole = path.read_bytes()
        start = damaged_block * BLOCK_BYTES
        for at in range(len(whole[start : start + BLOCK_BYTES].rstrip(b"\0"))):
            damaged = bytearray(whole)
            damaged[start + at] ^= 0x10
            path.write_bytes(damaged)
            assert f"record {damaged_block - 1}," in refusal(tmp_path).message
            with pytest.raises(Corrupt, match=f"record {damaged_block - 1},"):
                log.check()
        path.write_bytes(whole)
        log.check()


def test_a_damaged_last_record_is_missed_by_its_mark_and_by_who_wrote_it_and_counts_as_not_finished_without(
    tmp_path: Path,
) -> None:
    """The mark tells also after the death of the process, for it is in the system's memory by then."""
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
        path = tmp_path / LOG_FILE
        whole = path.read_bytes()
        for at in range(2 * BLOCK_BYTES, len(whole[:MARK_AT].rstrip(b"\0"))):
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            path.write_bytes(damaged)
            assert "at its record 1, which was durable" in refusal(tmp_path).message
            path.write_bytes(without_mark(damaged))
            assert held(tmp_path) == [numbered(1)]
            with pytest.raises(Corrupt, match="record 1,"):
                log.check()


def test_a_mark_that_is_damaged_tells_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
    path = tmp_path / LOG_FILE
    whole = path.read_bytes()
    for at in range(MARK_AT, MARK_AT + MARK_BYTES):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        assert held(tmp_path) == [numbered(1), numbered(2)]


def test_a_store_that_has_lost_its_newest_transaction_has_it_again_from_the_records_that_went_into_it(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
        log.begin(8, SEAL)
        log.note_moved(2)
    assert held(tmp_path, txn=8) == []
    assert held(tmp_path) == [numbered(1), numbered(2)]
    assert held(tmp_path, txn=9) == [], "somebody has gone on with the store, without its log"


def test_a_store_whose_transaction_ended_otherwise_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.note_moved(None)
    assert held(tmp_path) == []
    assert "knows another end of transaction 7" in refusal(tmp_path, seal=b"another end").message


@pytest.mark.parametrize("before", [None, 1, 3])
def test_one_whose_newest_transaction_was_of_other_things_is_refused(tmp_path: Path, before: int | None) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
        log.begin(8, SEAL)
        log.note_moved(before)
    assert "knows of transaction 8, and the store is at 7" in refusal(tmp_path).message


def test_what_somebody_stores_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """The blocks of a large value look just like records, of another log."""
    (tmp_path / "other").mkdir()
    with contextlib.closing(RedoLog.make(tmp_path / "other", bytes(16))) as other:
        other.begin(7, SEAL)
        append(other, numbered(1), numbered(2), numbered(3))
    blocks = (tmp_path / "other" / LOG_FILE).read_bytes()[BLOCK_BYTES : 4 * BLOCK_BYTES]
    sly = Batch([bytes(BLOCK_BYTES - 60 - n) + blocks for n in range(8)])
    with opened(tmp_path) as log:
        append(log, sly)
    path = tmp_path / LOG_FILE
    data = bytearray(path.read_bytes())
    data[BLOCK_BYTES : BLOCK_BYTES + 512] = bytes(512)  # its header was not written in time
    path.write_bytes(without_mark(data))
    assert held(tmp_path) == []


@pytest.mark.parametrize("block", [bytes(BLOCK_BYTES), b"\xa5" * BLOCK_BYTES])
def test_whatever_a_power_cut_leaves_in_the_block_of_the_mark_is_in_nobodys_way(tmp_path: Path, block: bytes) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2))
    path = tmp_path / LOG_FILE
    data = path.read_bytes()
    path.write_bytes(data[:MARK_AT] + block)
    assert held(tmp_path) == [numbered(1), numbered(2)]


@pytest.mark.parametrize("at", [0, 4, 20, 35, 512, BLOCK_BYTES - 1])
def test_a_damaged_head_is_refused(tmp_path: Path, at: int) -> None:
    assert held(tmp_path) == []
    path = tmp_path / LOG_FILE
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert "another store's" in refusal(tmp_path).message


def test_a_log_of_before_gets_a_block_for_its_mark(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1))
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes()[:MARK_AT])
    assert held(tmp_path) == [numbered(1)]
    assert path.stat().st_size == LOG_BYTES


def test_a_log_that_is_not_there_whole_is_refused(tmp_path: Path) -> None:
    assert held(tmp_path) == []
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert f"has {LOG_BYTES - 1} of its {LOG_BYTES} bytes" in refusal(tmp_path).message
    path.unlink()
    with pytest.raises(Corrupt, match="is missing") as caught:
        RedoLog.open(tmp_path, LOG_ID)
    assert caught.value.reason == "StoreMissing"


def test_a_log_that_was_taken_away_while_in_use_is_said(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.check()
        (tmp_path / LOG_FILE).rename(tmp_path / "away")
        with pytest.raises(Corrupt, match="taken away"):
            log.check()
        (tmp_path / LOG_FILE).write_bytes((tmp_path / "away").read_bytes())
        with pytest.raises(Corrupt, match="taken away"):
            log.check()


def test_making_a_log_goes_over_one_that_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_bytes(bytes(5_000))
    with contextlib.closing(RedoLog.make(tmp_path, LOG_ID)) as log:
        log.begin(7, SEAL)
        append(log, numbered(1))
    assert held(tmp_path) == [numbered(1)]


def test_a_record_that_was_cut_off_is_none_and_the_next_takes_its_place(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        append(log, numbered(1), numbered(2, size=3 * BLOCK_BYTES))
    path = tmp_path / LOG_FILE
    data = bytearray(path.read_bytes())
    data[4 * BLOCK_BYTES :] = bytes(len(data) - 4 * BLOCK_BYTES)
    path.write_bytes(without_mark(data))
    with opened(tmp_path) as log:
        assert log.read() == [numbered(1)]
        append(log, numbered(3))
    assert held(tmp_path) == [numbered(1), numbered(3)]


def test_what_is_durable_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE
    with opened(tmp_path) as log:
        for number in range(20):
            before = without_mark(path.read_bytes())
            used = len(before.rstrip(b"\0"))
            append(log, numbered(number, size=number * 700))
            blocks = used + -used % BLOCK_BYTES
            assert without_mark(path.read_bytes())[:blocks] == before[:blocks]


def test_it_has_room_for_a_bounded_number_of_records(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        count = 0
        while log.has_room(body_of(numbered(0))):
            append(log, numbered(count))
            count += 1
        assert count == RECORDS_BYTES // BLOCK_BYTES
        log.begin(8, SEAL)
        assert log.has_room(bytes(RECORD_BYTES_MAX))
        assert log.read() == []
    assert (tmp_path / LOG_FILE).stat().st_size == LOG_BYTES
    assert len(held(tmp_path)) == count  # as long as the store has not moved on they count
