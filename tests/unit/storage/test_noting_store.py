"""What has changed is noted in the very transaction of the change, until it is too much for a list."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.errors import Exhausted, Unavailable
from offgrid_node.protocol.state.tables import CHANGES, JOURNAL, NOTING_KEY
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.noting import NotingStore, end_noting
from offgrid_node.storage.store import Batch


def noting(below: MemoryStore, keys_max: int = 100, bytes_max: int = 1 << 20) -> NotingStore:
    store = NotingStore(below, keys_max=keys_max, bytes_max=bytes_max)
    store.find_notes()
    if not store.noting:
        store.begin()
        store.commit(Batch(writes={(JOURNAL, NOTING_KEY): b"\1"}))
    return store


def change(store: NotingStore, *keys: bytes, value: bytes | None = b"v") -> None:
    store.commit(Batch(writes={("jobs", key): value for key in keys}))


def test_changes_are_found_again_by_the_next_process() -> None:
    below = MemoryStore()
    store = noting(below)
    change(store, b"a", b"b")
    change(store, b"b", b"c")
    again = noting(below)
    names, notes = again.take()
    assert names == [("jobs", b"a"), ("jobs", b"b"), ("jobs", b"c")]
    assert len(notes) == 2
    assert again.take() == ([], [])


def test_a_number_is_not_given_twice_while_its_note_is_there() -> None:
    below = MemoryStore()
    change(noting(below), b"a")
    again = noting(below)
    change(again, b"b")
    assert len(list(below.scan(CHANGES))) == 2


def test_a_commit_that_fails_leaves_no_note() -> None:
    below = MemoryStore()
    store = noting(below)
    below.fail_next(Unavailable("the disk is gone", reason="DiskError"), applied=False)
    with pytest.raises(Unavailable):
        change(store, b"a")
    store.find_notes()
    assert store.take() == ([], [])


@pytest.mark.parametrize("bounds", [{"keys_max": 3}, {"bytes_max": 3}])
def test_too_many_changes_end_it_durably(bounds: dict[str, int]) -> None:
    below = MemoryStore()
    store = noting(below, **bounds)
    change(store, b"a", b"b")
    change(store, b"c", b"d")
    assert not store.noting
    assert below.get(JOURNAL, NOTING_KEY) is None
    change(store, b"e")
    assert len(list(below.scan(CHANGES))) <= 1
    store.begin()
    assert store.take()[1] == [1]  # what ended is made good with the next segment


def test_its_own_tables_and_what_is_kept_for_others_are_no_change() -> None:
    below = MemoryStore()
    store = noting(below)
    store.commit(Batch(writes={("small_blobs", b"x"): b"v", ("replicas", b"y"): b"v", (JOURNAL, b"state"): b"v"}))
    assert store.take() == ([], [])


def test_a_full_store_still_takes_deletions() -> None:
    below = MemoryStore(limit_bytes=400)
    store = noting(below)
    change(store, b"a", value=b"v" * 100)
    with pytest.raises(Exhausted):
        change(store, b"b", value=b"v" * 400)
    store.find_notes()
    while True:
        try:
            change(store, b"c" * 20, value=b"")
        except Exhausted:
            break
    change(store, b"a", value=None)
    assert below.get("jobs", b"a") is None


def test_whoever_goes_on_without_noting_says_so_durably() -> None:
    below = MemoryStore()
    store = noting(below)
    change(store, b"a")
    end_noting(below)
    below.commit(Batch(writes={("jobs", b"b"): b"unnoted"}))
    again = NotingStore(below)
    again.find_notes()
    assert not again.noting
    seq = below.journal_seq
    end_noting(below)
    assert below.journal_seq == seq
