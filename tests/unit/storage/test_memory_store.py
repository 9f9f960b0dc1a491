"""What the memory store can do beyond the Store protocol: fail, be damaged, crash, be copied."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.errors import Corrupt, Unavailable
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

FAULT = Unavailable("the disk is gone", reason="DiskError", retry_ms=1)


def filled() -> MemoryStore:
    store = MemoryStore()
    store.commit(Batch([b"one"], {("jobs", b"a"): b"1", ("jobs", b"b"): b"2"}))
    return store


@pytest.mark.parametrize("applied", [False, True])
def test_an_injected_fault_strikes_one_commit(applied: bool) -> None:
    store = filled()
    store.fail_next(FAULT, applied=applied)
    assert store.commit(Batch()) == 1
    with pytest.raises(Unavailable) as caught:
        store.commit(Batch([b"two"], {("jobs", b"c"): b"3"}))
    assert caught.value is FAULT
    assert store.journal_seq == (2 if applied else 1)
    assert store.get("jobs", b"c") == (b"3" if applied else None)
    assert store.commit(Batch([b"three"])) == store.journal_seq


def test_a_damaged_row_is_never_served_until_it_is_written_again() -> None:
    store = filled()
    store.damage("jobs", b"b")
    assert store.get("jobs", b"a") == b"1"
    with pytest.raises(Corrupt):
        store.get("jobs", b"b")
    with pytest.raises(Corrupt):
        list(store.scan("jobs"))
    assert [finding[:10] for finding in store.verify()] == ["row jobs/'"]
    store.commit(Batch(writes={("jobs", b"b"): b"mended"}))
    assert dict(store.scan("jobs")) == {b"a": b"1", b"b": b"mended"}
    assert list(store.verify()) == []


def test_a_crash_keeps_what_was_committed_and_forgets_planned_faults() -> None:
    store = filled()
    store.fail_next(FAULT)
    store.close()
    store.crash()
    assert store.commit(Batch([b"two"])) == 2
    assert store.get("jobs", b"a") == b"1"


def test_a_copy_goes_its_own_way() -> None:
    store = filled()
    twin = store.copy()
    store.commit(Batch([b"two"], {("jobs", b"a"): None}))
    assert dict(twin.scan("jobs")) == {b"a": b"1", b"b": b"2"}
    assert list(twin.events()) == [(1, b"one")]
    twin.commit(Batch([b"other"], {("jobs", b"z"): b"9"}))
    assert store.get("jobs", b"z") is None
    assert list(store.events()) == [(1, b"one"), (2, b"two")]
