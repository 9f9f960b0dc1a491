"""What the simulator's monitor takes for being there: what a disk keeps, and what has come and is to be kept."""

from __future__ import annotations

import pytest

from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_tools.sim.monitor.evidence import Evidence

OBJECT_ID = "o-" + "a2" * 16


def names(blobs: MemoryBlobs) -> list[str]:
    evidence = Evidence(str)
    evidence.stores["host"], evidence.blobs["host"] = MemoryStore(), blobs
    return list(evidence.names("host"))


@pytest.mark.parametrize("name", [f"{OBJECT_ID}.11", OBJECT_ID])
@pytest.mark.parametrize("prefix", ["nodeabc.", "fetch-"])
def test_what_has_come_to_a_host_counts_before_it_is_kept(prefix: str, name: str) -> None:
    blobs = MemoryBlobs()
    blobs.append(prefix + name, 0, b"row")
    assert names(blobs) == [name]
    blobs.finish(prefix + name, name)
    assert names(blobs) == [name]


def test_what_nobody_can_name_yet_does_not() -> None:
    blobs = MemoryBlobs()
    blobs.append("upload-1", 0, b"row")
    assert names(blobs) == []
