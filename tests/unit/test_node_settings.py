"""What a node's config says, as its parts want it."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.coding.fallback import Fallback
from offgrid_node.config import load
from offgrid_node.node_settings import object_parts
from offgrid_node.protocol.objects.small import SMALL_BYTES_MAX
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_tools.sim.crypto import SimSigner, SimWraps


def parts_of(folder: Path, environ: dict[str, str]) -> ObjectParts:
    file = folder / "offgrid.toml"
    file.write_text('mesh.name = "home"\n')
    return object_parts(load(file, environ), MemoryBlobs(), Bulk(inline), SimWraps(SimSigner("owner")), Fallback())


@pytest.mark.parametrize(("said", "small"), [("100", 100), ("1048576", SMALL_BYTES_MAX), ("1", 1)])
def test_the_old_threshold_says_what_stays_in_the_store(tmp_path: Path, said: str, small: int) -> None:
    assert parts_of(tmp_path, {"OFFGRID_CHUNK_THRESHOLD": said}).small_bytes == small


def test_storage_that_is_off_keeps_nothing_for_others(tmp_path: Path) -> None:
    assert parts_of(tmp_path, {}).keeps_replicas
    assert not parts_of(tmp_path, {"OFFGRID_STORAGE_ENABLED": "false"}).keeps_replicas
