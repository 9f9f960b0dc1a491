"""Rows as they will stand: what a batch wrote comes before what the disk says, and is forgotten with the batch."""

from __future__ import annotations

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Delete, Put
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch


def draft_over(**rows: bytes) -> tuple[Draft, MemoryStore]:
    store, draft = MemoryStore(), Draft()
    store.commit(Batch(writes={("t", key.encode()): value for key, value in rows.items()}))
    draft.load(store)
    draft.begin(Now(1, 1))
    return draft, store


def test_what_was_written_is_read_in_every_step_of_the_batch() -> None:
    draft, _ = draft_over(a=b"old", b=b"old")
    draft.put_bytes("t", b"a", b"new")
    draft.delete("t", b"b")
    assert draft.take() == [Put("t", b"a", b"new"), Delete("t", b"b")]
    draft.begin(Now(1, 1))
    assert (draft.get("t", b"a"), draft.get("t", b"b"), draft.get("u", b"a")) == (b"new", None, None)
    assert [key for key, _ in draft.committed("t", b"")] == [b"a", b"b"], "the disk is behind"


def test_the_next_batch_reads_the_disk() -> None:
    """By then the disk holds what the last one wrote, and perhaps what others wrote since."""
    draft, store = draft_over(a=b"old")
    draft.put_bytes("t", b"a", b"new")
    store.commit(Batch(writes={("t", b"a"): b"newer"}))
    draft.begin(Now(1, 2))
    assert draft.get("t", b"a") == b"newer"


def test_rows_are_messages() -> None:
    draft, _ = draft_over()
    assert draft.row("t", b"a", quorum_pb2.QuorumFence) is None
    draft.put("t", b"a", quorum_pb2.QuorumFence(epoch=7))
    assert draft.row("t", b"a", quorum_pb2.QuorumFence) == quorum_pb2.QuorumFence(epoch=7)
