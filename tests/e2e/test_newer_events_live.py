"""An event of a type that only a newer node knows, in the journal of this one: kept byte for byte, and shown by its
number wherever events are."""

from __future__ import annotations

import json
from pathlib import Path

from live import eventually, mesh_of, offgrid, offgrid_node

from offgrid.v1 import state_pb2
from offgrid_node.config import CONFIG_NAME, load
from offgrid_node.folder import open_store
from offgrid_node.local_mesh import LocalNode
from offgrid_node.storage.store import Batch

UNKNOWN_DATA = b"\x9a\x06\x05later"  # field 99 of an event, as a text
NEWER = state_pb2.Event(etype=99, type="ñ" * 70, subject="from later", timestamp_us=1_790_000_000_000_000)
RAW = NEWER.SerializeToString() + UNKNOWN_DATA


def in_journal(folder: Path, seq: int) -> bytes:
    """Of a node that does not run."""
    store = open_store(load(folder / CONFIG_NAME, {}), create=False)
    try:
        return next(raw for found, raw in store.events(seq - 1) if found == seq)
    finally:
        store.close()


def plant(node: LocalNode) -> int:
    """Into the journal of a node that does not run; its number."""
    store = open_store(load(node.folder / CONFIG_NAME, {}), create=False)
    try:
        store.commit(Batch([RAW]))
        return store.journal_seq
    finally:
        store.close()


def test_it_is_kept_and_shown_by_its_number(tmp_path: Path) -> None:
    with mesh_of(tmp_path / "mesh", {"lone": ["core"]}, storage__compaction_interval=1) as mesh:
        lone = mesh["lone"]
        assert lone.stop() == 0
        seq = plant(lone)
        lone.run("run")
        lone.wait_ready()
        with lone.client() as client:
            for wanted in ([], ["99"], [99, "JOB_CREATED"]):
                (found,) = [each for each in client.events.list(types=wanted) if each.etype == 99]
                assert (found.seq, found.subject, found.type) == (seq, NEWER.subject, NEWER.type)
                found.ClearField("seq")
                assert state_pb2.Event.FromString(found.SerializeToString()) == state_pb2.Event.FromString(RAW)
                assert UNKNOWN_DATA in found.SerializeToString()
            assert next(client.events.watch(types=[99])).seq == seq
            assert next(client.events.watch(after_seq=seq - 1)).etype == 99
            assert [*client.events.list(types=[98])] == []

        shown = offgrid(lone, "events", "--type", "99").out.splitlines()
        assert [line.split()[0] for line in shown[1:]] == [str(seq)]
        assert " 99 " in shown[1]
        assert "from later" in shown[1]
        as_json = json.loads(offgrid(lone, "events", "--type", "99", "--json").out)["events"]
        assert [(each["etype"], each["subject"]) for each in as_json] == [(99, "from later")]

        def remembered() -> list[str]:
            done = offgrid(lone, "memory", "windows", "--json")
            return [line for line in done.out.splitlines() if '"99"' in line]

        asked = json.loads(offgrid(lone, "memory", "ask", "--count", "99", "--json").out.splitlines()[0])
        assert int(asked["at_least"]) == 1, asked
        eventually(remembered, "it is in a summary")

        backup = offgrid(lone, "state", "backup", tmp_path / "backup.zip")
        assert backup.code == 0, backup.said
        key, other = lone.folder / "keys" / "node.key", tmp_path / "other"
        restored = offgrid_node("restore", "--backup", tmp_path / "backup.zip", "--key", key, "--dir", other)
        assert restored.code == 0, restored.said
    assert in_journal(other, seq) == in_journal(lone.folder, seq) == RAW
