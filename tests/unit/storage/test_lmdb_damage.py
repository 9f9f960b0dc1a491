"""Damaged bytes in the store's file: detected or harmless, never a wrong answer.

Each case is read in a process of its own, since LMDB may abort on a damaged page: a crash counts as detected.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault
from offgrid_node.protocol.sound import sound
from offgrid_node.storage import lmdb_verify
from offgrid_node.storage.journal import Tail, encode_packs, journal_key
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.lmdb_env import LAYOUT_VERSION, TAIL_KEY, UNWRITTEN_PAGES_MAX, tail_value
from offgrid_node.storage.rows import RowSeal
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024
ROWS = 300
FLIPS = 60


def value(number: int) -> bytes:
    return b"value %d " % number * (1 + number % 40)


def fill(folder: Path) -> int:
    """Returns how many bytes of the file are in use; behind them are zeros that nobody reads."""
    store = LmdbStore.open(folder, limit_bytes=256 * MIB)
    with contextlib.closing(store):
        for at in range(0, ROWS, 10):
            numbers = range(at, at + 10)
            store.commit(Batch([value(n) for n in numbers], {("jobs", b"job-%05d" % n): value(n) for n in numbers}))
        return store.size_bytes()


def wrong_answers(folder: Path) -> tuple[int, int]:
    """How many questions were answered wrongly, and how many were refused."""
    wrong = refused = 0
    try:
        store = LmdbStore.open(folder, limit_bytes=256 * MIB)
    except Fault:
        return 0, 1
    with contextlib.closing(store):
        for number in range(ROWS):
            try:
                wrong += store.get("jobs", b"job-%05d" % number) != value(number)
            except Fault:
                refused += 1
        for reverse in (False, True):
            expected = [(b"job-%05d" % n, value(n)) for n in range(ROWS)]
            events = [(n + 1, value(n)) for n in range(ROWS)]
            try:
                wrong += list(store.scan("jobs", prefix=b"job-", reverse=reverse)) != expected[:: -1 if reverse else 1]
            except Fault:
                refused += 1
            try:
                wrong += list(store.events(reverse=reverse)) != events[:: -1 if reverse else 1]
            except Fault:
                refused += 1
        refused += len(store.verify())
    return wrong, refused


def in_a_child(folder: Path) -> str:
    """`wrong`, `refused`, `harmless` or `crashed`."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            wrong, refused = wrong_answers(folder)
            code = 3 if wrong else 4 if refused else 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "harmless", 3: "wrong", 4: "refused", 9: "failed"}.get(status, "crashed")


def flip_bits(good: Path, bad: Path, size: int) -> None:
    """Writes out what comes of a flip, one by one, in copies of a store whose file has so many bytes in use."""
    for flip in range(FLIPS):
        shutil.copytree(good, bad)
        at = (flip * 2654435761 + 97) % size
        with (bad / "data.mdb").open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << flip % 8]))
        sys.stdout.write(f"bit {flip % 8} of byte {at}: {in_a_child(bad)}\n")
        shutil.rmtree(bad)


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts on Linux's page size")
def test_no_flipped_bit_becomes_a_wrong_answer(tmp_path: Path) -> None:
    """What forks is a small process: a copy of one that has run thousands of tests costs a second."""
    size = fill(tmp_path / "good")
    call = f"import test_lmdb_damage as it; it.flip_bits(it.Path('good'), it.Path('bad'), {size})"
    path = os.pathsep.join((str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])))
    ran = subprocess.run(
        [sys.executable, "-c", call],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = [line.rpartition(": ") for line in ran.stdout.splitlines()]
    assert [line for line in found if line[2] in ("wrong", "failed")] == []
    outcomes = Counter(outcome for _, _, outcome in found)
    assert outcomes.total() == FLIPS
    assert outcomes["refused"] > FLIPS // 4, outcomes


# ---- damage done on purpose, where it hurts


def edit(folder: Path, database: bytes, change: Callable[[lmdb.Transaction[bytes]], object]) -> None:
    """Changes the closed store behind its back."""
    with contextlib.closing(lmdb.open(str(folder), max_dbs=64, map_size=16 * MIB)) as env:
        db = env.open_db(database, create=False)
        with env.begin(db=db, write=True) as txn:
            change(txn)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "store")
    return tmp_path / "store"


def verdict(folder: Path) -> list[str]:
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        return list(store.verify())


def reason(folder: Path, use: Callable[[LmdbStore], object]) -> str:
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        with pytest.raises(Corrupt) as caught:
            use(store)
        return caught.value.reason


def absent(store: LmdbStore) -> object:
    return store.get("jobs", b"job-00123 and more")


def swap(folder: Path, old: bytes, new: bytes) -> None:
    """Rewrites bytes of the file itself, wherever they stand."""
    data = (folder / "data.mdb").read_bytes()
    assert old in data
    (folder / "data.mdb").write_bytes(data.replace(old, new))


def test_an_undamaged_store_has_nothing_to_report(folder: Path) -> None:
    assert verdict(folder) == []
    assert wrong_answers(folder) == (0, 0)


def test_a_changed_value_is_named_and_the_others_are_served(folder: Path) -> None:
    edit(folder, b"t/jobs", lambda txn: txn.put(b"job-00007", b"8 bytes!" + b"a lie"))
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        with pytest.raises(Corrupt, match="job-00007") as caught:
            store.get("jobs", b"job-00007")
        assert caught.value.metadata == {"table": "jobs", "key": b"job-00007".hex()}
        rows = store.scan("jobs")
        assert [next(rows)[0] for _ in range(7)] == [b"job-%05d" % n for n in range(7)]
        with pytest.raises(Corrupt, match="job-00007"):
            next(rows)
        assert store.get("jobs", b"job-00008") == value(8)
        assert [key for key, _ in store.scan("jobs", b"job-00009")] == [b"job-%05d" % n for n in range(9, ROWS)]
        assert any("job-00007" in finding for finding in store.verify())


def test_a_right_value_under_a_wrong_key_is_refused(folder: Path) -> None:
    edit(folder, b"t/jobs", lambda txn: txn.put(b"job-00007", txn.get(b"job-00008") or b""))
    assert reason(folder, lambda store: store.get("jobs", b"job-00007")) == "ChecksumMismatch"


@pytest.mark.parametrize("changed", [b"job-80123", b"Job-00123", b"job-00120", b"\xff\xff\xff-00123"])
def test_a_row_whose_key_was_damaged_is_not_reported_missing(folder: Path, changed: bytes) -> None:
    """LMDB no longer finds it: the search ends beside it, and what stands there is checked."""
    swap(folder, b"job-00123", changed)
    uses: list[Callable[[LmdbStore], object]] = [
        lambda store: store.get("jobs", b"job-00123"),
        lambda store: list(store.scan("jobs")),
        lambda store: list(store.scan("jobs", prefix=b"job-")),
        lambda store: list(store.scan("jobs", prefix=b"job-", reverse=True)),
        lambda store: list(store.scan("jobs", prefix=b"job-00123")),
        lambda store: list(store.scan("jobs", b"job-00123", prefix=b"job-0012")),
    ]
    for use in uses:
        assert reason(folder, use) in ("ChecksumMismatch", "OrderBroken")
    assert verdict(folder)


@pytest.mark.parametrize("bit", [1, 2, 4, 64])
def test_a_search_led_astray_by_a_damaged_separator_is_noticed(folder: Path, bit: int) -> None:
    """The keys in branch pages only guide searches: no row is damaged, and yet rows are not found."""
    page_bytes, flags_at, branch = 4096, 18, 1  # LMDB 1.0
    data = bytearray((folder / "data.mdb").read_bytes())
    changed = 0
    for page in range(0, len(data), page_bytes):
        if data[page + flags_at] != branch:
            continue
        for separator in re.finditer(rb"job-\d{5}", data[page : page + page_bytes]):
            data[page + separator.end() - 1] ^= bit
            changed += 1
    assert changed > 5
    (folder / "data.mdb").write_bytes(data)
    wrong, refused = wrong_answers(folder)
    assert wrong == 0
    assert refused > 0
    assert any("not found by its key" in finding for finding in verdict(folder))


def test_a_row_that_vanished_is_found_by_verify_and_by_whoever_reads_the_whole_table(folder: Path) -> None:
    edit(folder, b"t/jobs", lambda txn: txn.delete(b"job-00123"))
    assert reason(folder, lambda store: list(store.scan("jobs"))) == "RowsMissing"
    assert reason(folder, lambda store: list(store.scan("jobs", reverse=True))) == "RowsMissing"
    assert verdict(folder) == ["table jobs: 299 rows found, 300 committed: restore it from a backup"]


def test_a_table_that_lacks_a_row_does_not_say_that_there_is_none(folder: Path) -> None:
    """Not even of its neighbours is anything to be seen; the number of rows tells as soon as it is opened."""
    edit(folder, b"t/jobs", lambda txn: txn.delete(b"job-00123"))
    uses: list[Callable[[LmdbStore], object]] = [
        lambda store: store.get("jobs", b"job-00123"),
        lambda store: list(store.scan("jobs", prefix=b"job-0012")),
        lambda store: list(store.scan("jobs", prefix=b"job-0012", reverse=True)),
    ]
    for use in uses:
        assert reason(folder, use) == "RowsMissing"
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        assert store.get("jobs", b"job-00124") == value(124)
        assert store.get("others", b"job-00123") is None


def test_a_table_with_rows_of_the_past_is_trusted_until_somebody_has_looked(folder: Path) -> None:
    past = RowSeal("jobs").wrap(b"job-00123", b"what it once was")
    edit(folder, b"t/jobs", lambda txn: txn.put(b"job-00123", past))
    for verifies in (True, False):  # or reads all of it
        with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
            assert store.get("jobs", b"job-00123 and more") is None
            if verifies:
                store.verify()
            else:
                with pytest.raises(Corrupt):
                    list(store.scan("jobs"))
            for use in (lambda store: list(store.scan("jobs", prefix=b"job-0001")), absent):
                with pytest.raises(Corrupt) as caught:
                    use(store)
                assert caught.value.reason == "RowsMissing"


def test_a_sound_table_is_read_as_ever_while_it_is_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, rows = list[bytes | None](), list[int]()
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:

        class Reads(RowSeal):
            """Somebody does, at each row that is looked at."""

            def checksum(self, key: bytes, value: bytes) -> bytes:
                absent.append(store.get("jobs", b"nobody's"))
                rows.append(len(list(store.scan("jobs", prefix=b"job-0001"))))
                return super().checksum(key, value)

        with monkeypatch.context() as beside:
            beside.setattr(lmdb_verify, "RowSeal", Reads)
            assert store.verify() == []
    assert (set(absent), set(rows), len(rows)) == ({None}, {10}, ROWS)


def test_a_table_that_is_missing_is_not_an_empty_one(folder: Path) -> None:
    with lmdb.open(str(folder), max_dbs=16) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"t/jobs", txn=txn))
    assert reason(folder, lambda store: store.get("jobs", b"job-00001")) == "RowsMissing"
    assert reason(folder, lambda store: list(store.scan("jobs"))) == "RowsMissing"
    assert verdict(folder) == [f"table jobs: 0 rows found, {ROWS} committed: restore it from a backup"]


@pytest.mark.parametrize("at", [0, -1], ids=["its checksum", "its value"])
def test_a_damaged_row_is_no_reason_to_distrust_the_others(folder: Path, at: int) -> None:
    stored = bytearray(RowSeal("jobs").wrap(b"job-00007", value(7)))
    stored[at] ^= 1
    edit(folder, b"t/jobs", lambda txn: txn.put(b"job-00007", bytes(stored)))
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        store.verify()
        assert store.get("jobs", b"job-00008") == value(8)
        assert store.get("jobs", b"job-00009 and more") is None
        assert len(list(store.scan("jobs", b"job-00010"))) == ROWS - 10


def test_a_row_that_may_have_had_another_key_is_told_of_when_that_is_asked_for(folder: Path) -> None:
    """Also where rows came in between since, so that nothing beside the place is damaged."""
    swap(folder, b"job-00299", b"job-00999")
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        store.verify()
        store.commit(Batch(writes={("jobs", b"job-0030%d" % n): b"new" for n in range(3)}))
        with pytest.raises(Corrupt, match="job-00999"):
            store.get("jobs", b"job-00299")
        assert store.get("jobs", b"job-00200 and more") is None


READ_LARGE = """
import sys
from pathlib import Path
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.lmdb import LmdbStore
try:
    LmdbStore.open(Path(sys.argv[1]), limit_bytes=1 << 28).get("large", b"row")
except Corrupt as fault:
    print(fault.reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts on Linux's page size")
def test_a_file_that_lacks_its_last_pages_ends_nobody(folder: Path) -> None:
    """To read behind a file's end would: SIGBUS."""
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        store.commit(Batch(writes={("large", b"row"): b"x" * 4096 * 2 * UNWRITTEN_PAGES_MAX}))
        used = store.size_bytes()
    os.truncate(folder / "data.mdb", used - 4096 * UNWRITTEN_PAGES_MAX)
    ran = subprocess.run([sys.executable, "-c", READ_LARGE, folder], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"ChecksumMismatch\n"), ran.stderr


def test_a_row_from_the_past_is_found_by_verify(folder: Path) -> None:
    past = RowSeal("jobs").wrap(b"job-00123", b"what it once was")
    edit(folder, b"t/jobs", lambda txn: txn.put(b"job-00123", past))
    [finding] = verdict(folder)
    assert finding.startswith("table jobs: a row is not the one that was committed last")


def test_a_missing_pack_is_a_gap(folder: Path) -> None:
    edit(folder, b"journal", lambda txn: txn.delete(journal_key(11)))
    uses: list[Callable[[LmdbStore], object]] = [
        lambda store: list(store.events()),
        lambda store: list(store.events(10)),
        lambda store: list(store.events(reverse=True)),
        lambda store: list(store.events(15, reverse=True)),
    ]
    for use in uses:
        assert reason(folder, use) == "JournalGap"
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        assert len(list(store.events(20))) == ROWS - 20
    assert verdict(folder) == ["journal: events 11 to 20 are missing: restore the journal from a backup"]


def test_a_missing_first_pack_is_a_gap(folder: Path) -> None:
    edit(folder, b"journal", lambda txn: txn.delete(journal_key(1)))
    assert reason(folder, lambda store: list(store.events())) == "JournalGap"
    assert reason(folder, lambda store: list(store.events(reverse=True))) == "JournalGap"
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        assert len(list(store.events(10, reverse=True))) == ROWS - 10


def test_a_journal_that_loses_its_end_while_open_is_a_gap(folder: Path) -> None:
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        program = (
            "import lmdb, sys\n"
            "env = lmdb.open(sys.argv[1], max_dbs=64, map_size=16 << 20)\n"
            "with env.begin(db=env.open_db(b'journal'), write=True) as txn:\n"
            "    txn.delete(bytes.fromhex(sys.argv[2]))\n"
        )
        subprocess.run([sys.executable, "-c", program, folder, journal_key(ROWS - 9).hex()], check=True)
        for reverse in (False, True):
            with pytest.raises(Corrupt, match=f"events {ROWS - 9} to {ROWS} are missing"):
                list(store.events(reverse=reverse))


def test_an_exchanged_pack_breaks_the_chain(folder: Path) -> None:
    [(key, forged)], _ = encode_packs(Tail(10, bytes(16)), [b"a lie"] * 10)
    edit(folder, b"journal", lambda txn: txn.put(key, forged))
    assert reason(folder, lambda store: list(store.events())) == "JournalForked"
    assert len(verdict(folder)) == 2  # it does not follow, and the next does not follow it


def test_a_damaged_pack_is_named(folder: Path) -> None:
    swap(folder, b"value 15 value 15", b"value 15 value 16")
    assert reason(folder, lambda store: list(store.events())) == "JournalDamaged"
    assert "journal: the pack at event 11 fails its checksum" in verdict(folder)[0]


def refused_at_open(folder: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        LmdbStore.open(folder, limit_bytes=256 * MIB)
    assert not (folder / "owner.pid").exists(), "the folder was not given back"
    return caught.value


@pytest.mark.parametrize(
    ("database", "change", "expected"),
    [
        (b"journal", lambda txn: txn.delete(journal_key(ROWS - 9)), "JournalGap"),
        (b"journal", lambda txn: txn.put(journal_key(ROWS - 9), b"x" * 99), "JournalDamaged"),
        (b"meta", lambda txn: txn.put(TAIL_KEY, tail_value(Tail(ROWS, bytes(16)))), "JournalForked"),
        (b"meta", lambda txn: txn.put(TAIL_KEY, bytes(33)), "StoreDamaged"),
        (b"meta", lambda txn: txn.delete(TAIL_KEY), "StoreDamaged"),
    ],
    ids=["last-pack-lost", "last-pack-damaged", "another-tail", "summary-damaged", "summary-lost"],
)
def test_a_store_whose_end_does_not_fit_is_refused_at_open(
    folder: Path, database: bytes, change: Callable[[lmdb.Transaction[bytes]], object], expected: str
) -> None:
    edit(folder, database, change)
    assert refused_at_open(folder).reason == expected


def test_a_store_of_a_later_layout_is_refused_at_open(folder: Path) -> None:
    later = RowSeal("\0meta").wrap(TAIL_KEY, bytes([LAYOUT_VERSION + 1]) + bytes(24))
    edit(folder, b"meta", lambda txn: txn.put(TAIL_KEY, later))
    fault = refused_at_open(folder)
    assert (type(fault), fault.reason) == (FailedPrecondition, "WrongFormat")
    assert f"layout {LAYOUT_VERSION + 1}" in fault.message


def test_findings_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.storage.lmdb_verify.FINDINGS_MAX", 5)
    edit(folder, b"t/jobs", lambda txn: [txn.put(b"job-%05d" % n, b"x" * 20) for n in range(20)])
    findings = verdict(folder)
    assert len(findings) == 6
    assert "more" in findings[-1]


def test_a_walk_comes_behind_a_damaged_row(folder: Path) -> None:
    swap(folder, b"value 150 value 150", b"value 150 value 151")
    damaged = list[bytes]()
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        found = [key for key, _ in sound(store.scan, "jobs", on_damaged=damaged.append)]
        found_from = [key for key, _ in sound(store.scan, "jobs", b"job-00151", on_damaged=damaged.append)]
    assert {*damaged} == {b"job-00150"}
    assert found == [b"job-%05d" % n for n in range(ROWS) if n != 150]
    assert found_from == [key for key in found if key > b"job-00150"]


@pytest.mark.parametrize("number", [129, 140])
def test_a_walk_over_a_part_gives_all_of_it_where_a_row_beside_it_is_damaged(folder: Path, number: int) -> None:
    swap(folder, b"value %d value %d" % (number, number), b"value %d value 999" % number)
    damaged = list[bytes]()
    with contextlib.closing(LmdbStore.open(folder, limit_bytes=256 * MIB)) as store:
        found = [key for key, _ in sound(store.scan, "jobs", prefix=b"job-0013", on_damaged=damaged.append)]
    assert (found, damaged) == ([b"job-%05d" % n for n in range(130, 140)], [])
