"""A host that lost its disk, on a live mesh: found and filled again, and nobody reads an object for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import GIVE_UP_S, eventually, mesh_of

from offgrid_node.local_mesh import LocalMesh

OBJECTS, SIZE = 4, 20_000  # too large for rows


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[LocalMesh]:
    """An owner with two hosts: short of a third copy, it keeps its own."""
    nodes = {"owner": ["core", "broker"], "host-a": ["host"], "host-b": ["host"]}
    with mesh_of(tmp_path, nodes) as mesh:
        yield mesh


def test_a_host_whose_blobs_are_gone_is_filled_again(mesh: LocalMesh) -> None:
    owner, emptied, other = mesh["owner"], mesh["host-a"], mesh["host-b"]
    with owner.client() as client:
        made = [client.objects.put(os.urandom(SIZE), required_milli=2_000).object_id for _ in range(OBJECTS)]
        for object_id in made:
            client.objects.wait_durable(object_id, timeout_s=GIVE_UP_S)
    kept = [host.folder / "data" / "chunks" / "kept" for host in (emptied, other)]
    emptied.kill()
    shutil.rmtree(kept[0].parent)
    emptied.run("run")
    emptied.wait_ready()

    def same() -> bool:
        return all((kept[0] / name).is_file() for name in made)

    eventually(same, "what the host lost lies there again")
    for name in made:
        assert (kept[0] / name).read_bytes() == (kept[1] / name).read_bytes()
    with owner.client() as client:

        def acked() -> bool:
            return all(len(client.objects.get(object_id).acks) == 2 for object_id in made)

        eventually(acked, "its acks count again")
