"""What every store promises, run against each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Exhausted, Fault, Internal, Unavailable
from offgrid_node.storage.journal import PACK_BYTES
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.rows import (
    BATCH_BYTES_MAX,
    CHUNK_BYTES,
    CHUNK_ROWS,
    EVENT_BYTES_MAX,
    KEY_BYTES_MAX,
    TABLES_MAX,
    VALUE_BYTES_MAX,
)
from offgrid_node.storage.store import Batch, Store

MIB = 1024 * 1024


def make(kind: str, folder: Path, limit_bytes: int = 512 * MIB) -> Store:
    if kind == "lmdb":
        return LmdbStore.open(folder / "store", limit_bytes=limit_bytes)
    if kind == "logged":
        return LoggedStore.open(folder / "store", limit_bytes=limit_bytes)
    return MemoryStore(limit_bytes=limit_bytes)


@pytest.fixture(params=["lmdb", "logged", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[Store]:
    made = make(kind, tmp_path)
    yield made
    made.close()


def put(store: Store, table: str, *keys: bytes) -> None:
    store.commit(Batch(writes={(table, key): b"v" + key for key in keys}))


def keys(rows: Iterator[tuple[bytes, bytes]]) -> list[bytes]:
    return [key for key, _ in rows]


# ---- batches


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.journal_seq == 0
    assert store.get("jobs", b"k") is None
    assert list(store.scan("jobs")) == []
    assert list(store.events()) == []
    assert list(store.events(reverse=True)) == []
    assert list(store.verify()) == []


def test_a_batch_brings_its_rows_and_its_events(store: Store) -> None:
    assert store.commit(Batch([b"one", b"two"], {("jobs", b"k"): b"v", ("tasks", b"k"): b"w"})) == 2
    assert store.commit(Batch([b"three"])) == 3
    assert store.journal_seq == 3
    assert list(store.events()) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert (store.get("jobs", b"k"), store.get("tasks", b"k")) == (b"v", b"w")


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    store.commit(Batch([b"one"]))
    assert store.commit(Batch()) == 1
    assert list(store.events()) == [(1, b"one")]


def test_the_last_change_of_a_key_stands(store: Store) -> None:
    batch = Batch()
    batch.writes["jobs", b"a"] = b"first"
    batch.writes["jobs", b"a"] = b"second"
    batch.writes["jobs", b"b"] = b"there"
    batch.writes["jobs", b"b"] = None
    store.commit(batch)
    assert list(store.scan("jobs")) == [(b"a", b"second")]


def test_rows_are_overwritten_and_deleted(store: Store) -> None:
    put(store, "jobs", b"a", b"b")
    store.commit(Batch(writes={("jobs", b"a"): b"new", ("jobs", b"b"): None}))
    assert list(store.scan("jobs")) == [(b"a", b"new")]
    assert store.get("jobs", b"b") is None


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.commit(Batch([b"e"], {("nowhere", b"k"): None}))
    assert store.get("nowhere", b"k") is None
    assert list(store.verify()) == []


def test_tables_do_not_see_each_other(store: Store) -> None:
    put(store, "a", b"k")
    assert store.get("b", b"k") is None
    assert list(store.scan("b")) == []


def test_a_refused_batch_leaves_nothing(store: Store) -> None:
    put(store, "jobs", b"before")
    bad = Batch([b"e"], {("jobs", b"good"): b"v", ("jobs", b""): b"v"})
    with pytest.raises(Internal):
        store.commit(bad)
    assert keys(store.scan("jobs")) == [b"before"]
    assert store.journal_seq == 0


# ---- bounds


@pytest.mark.parametrize("length", [1, 2, 8, 255, 510, KEY_BYTES_MAX])
def test_keys_of_any_allowed_length(store: Store, length: int) -> None:
    for filler in (b"\x00", b"k", b"\xff"):
        key = filler * length
        put(store, "jobs", key)
        assert store.get("jobs", key) == b"v" + key
        assert keys(store.scan("jobs", prefix=key)) == [key]
        assert keys(store.scan("jobs", key)) == keys(store.scan("jobs"))[-len(keys(store.scan("jobs", key))) :]


@pytest.mark.parametrize("length", [0, KEY_BYTES_MAX + 1, 5000])
def test_other_keys_are_refused(store: Store, length: int) -> None:
    with pytest.raises(Internal, match="1 to 511"):
        put(store, "jobs", b"k" * length)
    with pytest.raises(Internal, match="1 to 511"):
        store.get("jobs", b"k" * length)
    if length:
        with pytest.raises(Internal, match="1 to 511"):
            store.scan("jobs", prefix=b"k" * length)


@pytest.mark.parametrize("size", [0, 1, 4096, 4 * MIB])
def test_values_and_events_of_any_size(store: Store, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    store.commit(Batch([value, b"next"], {("jobs", b"k"): value}))
    assert store.get("jobs", b"k") == value
    assert list(store.scan("jobs")) == [(b"k", value)]
    assert list(store.events()) == [(1, value), (2, b"next")]
    assert list(store.events(reverse=True)) == [(2, b"next"), (1, value)]
    assert list(store.verify()) == []


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (Batch([bytes(EVENT_BYTES_MAX + 1)]), "EventTooLarge"),
        (Batch(writes={("jobs", b"k"): bytes(VALUE_BYTES_MAX + 1)}), "RowTooLarge"),
        (Batch([bytes(EVENT_BYTES_MAX)] * (BATCH_BYTES_MAX // EVENT_BYTES_MAX + 1)), "BatchTooLarge"),
    ],
    ids=["event", "row", "batch"],
)
def test_too_many_bytes_are_refused(store: Store, batch: Batch, reason: str) -> None:
    with pytest.raises(Exhausted) as caught:
        store.commit(batch)
    assert caught.value.reason == reason
    assert store.journal_seq == 0


def test_tables_are_bounded(store: Store) -> None:
    for number in range(TABLES_MAX):
        put(store, f"table-{number}", b"k")
    with pytest.raises(Internal, match="tables"):
        put(store, "one-more", b"k")
    assert store.get("one-more", b"k") is None
    put(store, "table-0", b"another")
    assert keys(store.scan("table-0")) == [b"another", b"k"]


@pytest.mark.parametrize("table", ["", "n" * 65, "a\0", "jöbs"])
def test_table_names_are_plain(store: Store, table: str) -> None:
    with pytest.raises(Internal, match="table name"):
        put(store, table, b"k")


def fill(store: Store, size: int) -> tuple[list[bytes], Exhausted]:
    """Puts rows of `size` bytes until the store refuses."""
    held: list[bytes] = []
    while True:
        key = b"%d-%06d" % (size, len(held))
        try:
            store.commit(Batch([b"event"], {("jobs", key): bytes(size)}))
        except Exhausted as refusal:
            return held, refusal
        held.append(key)


def test_a_full_store_refuses_keeps_what_it_has_and_can_be_emptied(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path, limit_bytes=MIB)
    names, refusal = fill(store, 1_500)
    names += fill(store, 10)[0]  # until not one page is left
    assert refusal.reason == "StoreFull"
    assert refusal.retry_ms
    assert 200 < len(names) < 900
    assert store.journal_seq == len(names)
    assert keys(store.scan("jobs")) == sorted(names)
    assert store.size_bytes() <= store.limit_bytes() == MIB
    for at in range(4):  # rows far apart, so that one batch copies many pages
        store.commit(Batch(writes={("jobs", key): None for key in names[at::4]}))
    store.commit(Batch([b"again"], {("jobs", b"k"): bytes(30_000)}))
    assert keys(store.scan("jobs")) == [b"k"]
    assert list(store.verify()) == []
    assert len(fill(store, 30_000)[0]) > 10
    store.close()


# ---- scans

NAMES = [b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"ab", b"b", b"ba", b"\xff", b"\xff\xff", b"\xff\xffz"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("end", sorted(NAMES))
def test_a_scan_ends_below_its_end(store: Store, end: bytes, reverse: bool) -> None:
    put(store, "jobs", *NAMES)
    for prefix in (b"", end[:1]):
        expected = sorted((k for k in NAMES if k.startswith(prefix) and k < end), reverse=reverse)
        assert keys(store.scan("jobs", prefix=prefix, end=end, reverse=reverse)) == expected


@pytest.mark.parametrize("prefix", [b"", b"a", b"a\xff", b"b", b"c", b"\xff", b"\xff\xff", b"\x00"])
@pytest.mark.parametrize("start", [b"", b"a", b"aa", b"a\xff", b"b", b"z", b"\xff\xff\xff"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_what_sorting_says(store: Store, prefix: bytes, start: bytes, reverse: bool) -> None:
    put(store, "jobs", *NAMES)
    expected = sorted((k for k in NAMES if k.startswith(prefix) and k >= start), reverse=reverse)
    assert keys(store.scan("jobs", start, prefix=prefix, reverse=reverse)) == expected


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("count", [CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
def test_scans_pass_chunk_borders(store: Store, count: int, reverse: bool) -> None:
    names = [b"%06d" % number for number in range(count)]
    put(store, "jobs", *names)
    put(store, "jobs", b"!", b"~")
    rows = list(store.scan("jobs", prefix=b"0", reverse=reverse))
    assert rows == [(name, b"v" + name) for name in sorted(names, reverse=reverse)]


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_of_large_values_pass_chunk_borders(store: Store, reverse: bool) -> None:
    store.commit(Batch(writes={("jobs", b"%d" % n): bytes([n]) * (CHUNK_BYTES * 2 // 3) for n in range(7)}))
    rows = list(store.scan("jobs", reverse=reverse))
    assert [(key, value[0]) for key, value in rows] == [
        (b"%d" % n, n) for n in (range(6, -1, -1) if reverse else range(7))
    ]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_survives_commits_in_between(store: Store, reverse: bool) -> None:
    count = 4 * CHUNK_ROWS
    put(store, "jobs", *(b"%06d" % number for number in range(count)))
    order = list(range(count - 1, -1, -1) if reverse else range(count))
    rows = store.scan("jobs", reverse=reverse)
    seen = [next(rows)[0]]
    # the row just read, one just ahead and one far ahead go; a far one comes
    far, new = order[-10], order[-20]
    gone = {order[0], order[1], far}
    store.commit(Batch(writes={("jobs", b"%06d" % number): None for number in gone}))
    put(store, "jobs", b"%06d+" % new)
    seen += keys(rows)
    assert seen == sorted(set(seen), reverse=reverse)
    must = {b"%06d" % number for number in order} - {b"%06d" % number for number in gone}
    assert must <= set(seen)
    assert b"%06d" % far not in seen
    assert b"%06d+" % new in seen


def test_a_scan_that_is_dropped_halfway_blocks_nothing(store: Store) -> None:
    put(store, "jobs", *(b"%06d" % number for number in range(3 * CHUNK_ROWS)))
    dropped = [store.scan("jobs") for _ in range(200)]
    for rows in dropped:
        next(rows)
    put(store, "jobs", b"later")
    assert store.get("jobs", b"later") == b"vlater"


# ---- the journal


@pytest.mark.parametrize("after", [0, 1, 2, 5, 6, 7, 99, 100, 101, 10_000])
def test_events_start_and_end_anywhere(store: Store, after: int) -> None:
    number = 0
    for size in (1, 5, 1, 93):
        store.commit(Batch([b"event %d" % (number + n + 1) for n in range(size)]))
        number += size
    expected = [(n, b"event %d" % n) for n in range(after + 1, 101)]
    assert list(store.events(after)) == expected
    assert list(store.events(after, reverse=True)) == expected[::-1]


def test_a_batch_larger_than_a_pack_is_still_one_batch(store: Store) -> None:
    events = [bytes([n]) * (PACK_BYTES // 3) for n in range(10)]
    store.commit(Batch([b"before"]))
    assert store.commit(Batch(events)) == 11
    assert [event for _, event in store.events(1)] == events
    assert [event for _, event in store.events(1, reverse=True)] == events[::-1]
    assert list(store.verify()) == []


def test_following_the_journal_sees_what_is_committed_meanwhile(store: Store) -> None:
    store.commit(Batch([b"1"]))
    events = store.events()
    assert next(events) == (1, b"1")
    for number in range(2, 2 * CHUNK_ROWS):
        store.commit(Batch([b"%d" % number]))
    rest = list(events)
    assert rest == [(n, b"%d" % n) for n in range(2, 2 + len(rest))]
    assert list(store.events(1 + len(rest)))[-1:] in ([], [(2 * CHUNK_ROWS - 1, b"%d" % (2 * CHUNK_ROWS - 1))])


def test_empty_events_count(store: Store) -> None:
    assert store.commit(Batch([b"", b"", b""])) == 3
    assert list(store.events(1)) == [(2, b""), (3, b"")]


# ---- events that go


def journal(store: Store, count: int) -> None:
    """Events that share no pack: to verify is to write down what a log holds."""
    for number in range(1, count + 1):
        store.commit(Batch([b"e%d" % number]))
        store.verify()


def test_the_oldest_events_go_and_numbers_stay(store: Store) -> None:
    journal(store, 10)

    assert store.commit(Batch(floor=4)) == 10

    assert store.journal_floor == 4
    assert list(store.events()) == list(store.events(2)) == [(seq, b"e%d" % seq) for seq in range(5, 11)]
    assert list(store.events(reverse=True)) == [(seq, b"e%d" % seq) for seq in range(10, 4, -1)]
    assert list(store.events(7)) == [(seq, b"e%d" % seq) for seq in range(8, 11)]
    assert store.verify() == []
    assert store.commit(Batch([b"e11"])) == 11
    assert [seq for seq, _ in store.events(9)] == [10, 11]


def test_what_went_is_not_said_to_come_back(store: Store) -> None:
    journal(store, 4)
    store.commit(Batch(floor=3))

    store.commit(Batch(floor=1))

    assert store.journal_floor == 3


def test_events_go_with_rows_and_others_in_one_batch(store: Store) -> None:
    store.commit(Batch([b"one"], {("t", b"one"): b"1"}))
    store.verify()
    store.commit(Batch([b"two"]))

    store.commit(Batch([b"three"], {("t", b"one"): None, ("t", b"three"): b"3"}, floor=1))

    assert list(store.events()) == [(2, b"two"), (3, b"three")]
    assert keys(store.scan("t")) == [b"three"]


@pytest.mark.parametrize("floor", [3, 4, 1_000])
def test_all_may_go_and_the_journal_goes_on_behind_that(store: Store, floor: int) -> None:
    journal(store, 3)

    assert store.commit(Batch(floor=floor)) == floor
    assert list(store.events()) == []
    assert store.commit(Batch([b"next"])) == floor + 1

    assert list(store.events()) == [(floor + 1, b"next")]
    assert store.verify() == []


def test_a_journal_may_begin_anywhere(store: Store) -> None:
    assert store.commit(Batch([b"first"], floor=41)) == 42

    assert list(store.events()) == [(42, b"first")]
    assert store.verify() == []


@pytest.mark.parametrize("kind", ["lmdb", "memory"])
def test_whoever_reads_what_goes_meanwhile_goes_on_with_what_is_there(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path)
    for number in range(1, 3 * CHUNK_ROWS):
        store.commit(Batch([b"e%d" % number]))
    up, down = store.events(), store.events(reverse=True)
    assert next(up) == (1, b"e1")
    assert next(down)[0] == 3 * CHUNK_ROWS - 1

    store.commit(Batch(floor=2 * CHUNK_ROWS))

    rest = [seq for seq, _ in up]
    assert rest[-CHUNK_ROWS + 1 :] == list(range(2 * CHUNK_ROWS + 1, 3 * CHUNK_ROWS))
    assert rest == sorted({*rest})
    assert [seq for seq, _ in down][: CHUNK_ROWS - 2] == list(range(3 * CHUNK_ROWS - 2, 2 * CHUNK_ROWS, -1))


@pytest.mark.parametrize("kind", ["lmdb", "logged"])
def test_what_went_stays_gone_when_the_store_is_opened_again(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path)
    store.commit(Batch([b"a", b"b"]))
    store.verify()
    store.commit(Batch([b"c"]))
    store.commit(Batch(floor=2))
    store.close()

    again = make(kind, tmp_path)

    assert (again.journal_floor, again.journal_seq, list(again.events())) == (2, 3, [(3, b"c")])
    again.commit(Batch(floor=9))
    again.close()
    empty = make(kind, tmp_path)
    assert (empty.journal_floor, empty.journal_seq, list(empty.events()), empty.verify()) == (9, 9, [], [])
    empty.close()


@pytest.mark.parametrize("kind", ["lmdb", "logged"])
def test_events_of_one_batch_stay_until_the_last_of_them_goes(kind: str, tmp_path: Path) -> None:
    store = make(kind, tmp_path)
    store.commit(Batch([b"a", b"b", b"c"]))
    store.verify()
    store.commit(Batch([b"d"]))

    store.commit(Batch(floor=2))
    assert (store.journal_floor, [seq for seq, _ in store.events()]) == (0, [1, 2, 3, 4])

    store.commit(Batch(floor=3))
    assert (store.journal_floor, [seq for seq, _ in store.events()]) == (3, [4])
    store.close()


@given(
    on_disk=st.sampled_from(["lmdb", "logged"]),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=10),
)
def test_the_journal_on_disk_has_what_one_in_memory_has(
    tmp_path_factory: pytest.TempPathFactory, on_disk: str, steps: list[tuple[int, int, bool]]
) -> None:
    """And of what went some more, that came in one batch with the first that stays."""
    folder, model = tmp_path_factory.mktemp("floor"), MemoryStore()
    store = make(on_disk, folder)
    for count, gone, reopened in steps:
        batch = Batch([b"x" * n for n in range(count)], floor=model.journal_floor + gone)
        assert store.commit(batch) == model.commit(batch)
        if reopened:
            store.close()
            store = make(on_disk, folder)
        else:
            store.verify()
        kept, wanted = list(store.events()), list(model.events())
        assert kept[len(kept) - len(wanted) :] == wanted
        assert kept[::-1] == list(store.events(reverse=True))
        assert [seq for seq, _ in kept] == list(range(store.journal_floor + 1, store.journal_seq + 1))
        assert len(kept) - len(wanted) < 4
        assert store.verify() == []
    store.close()


# ---- the end


def test_a_closed_store_says_so(store: Store) -> None:
    put(store, "jobs", b"k")
    rows = store.scan("jobs")
    store.close()
    store.close()
    for use in (lambda: store.get("jobs", b"k"), lambda: next(rows), lambda: store.commit(Batch([b"e"]))):
        with pytest.raises(Unavailable) as caught:
            use()
        assert caught.value.reason == "StoreClosed"


# ---- the two are one

KEYS = st.one_of(
    st.binary(min_size=1, max_size=3), st.sampled_from([b"a" * KEY_BYTES_MAX, b"\xff" * KEY_BYTES_MAX, b""])
)
WRITES = st.dictionaries(
    st.tuples(st.sampled_from(["t", "u"]), KEYS), st.one_of(st.none(), st.binary(max_size=5)), max_size=8
)
BATCHES = st.builds(Batch, st.lists(st.binary(max_size=5), max_size=4), WRITES)
READS = st.tuples(KEYS, st.binary(max_size=2), st.booleans(), st.integers(0, 30))


def outcome(store: Store, batch: Batch) -> object:
    try:
        return store.commit(batch)
    except Fault as fault:
        return type(fault), fault.reason


@given(on_disk=st.sampled_from(["lmdb", "logged"]), steps=st.lists(st.tuples(BATCHES, READS), max_size=8))
def test_stores_on_disk_and_in_memory_answer_alike(
    tmp_path_factory: pytest.TempPathFactory, on_disk: str, steps: list[tuple[Batch, tuple[bytes, bytes, bool, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("twins")
    left, right = make(on_disk, folder), make("memory", folder)
    try:
        for batch, (key, start, reverse, seq) in steps:
            assert outcome(left, batch) == outcome(right, batch)
            assert left.journal_seq == right.journal_seq
            assert list(left.events(seq, reverse=reverse)) == list(right.events(seq, reverse=reverse))
            for table in ("t", "u"):
                if key:
                    assert left.get(table, key) == right.get(table, key)
                for prefix in (b"", key):
                    assert list(left.scan(table, start, prefix=prefix, reverse=reverse)) == list(
                        right.scan(table, start, prefix=prefix, reverse=reverse)
                    )
        assert list(left.verify()) == []
        left.close()
        left = make(on_disk, folder)
        assert list(left.events()) == list(right.events())
        for table in ("t", "u"):
            assert list(left.scan(table)) == list(right.scan(table))
    finally:
        left.close()
