"""A coded object on a live mesh: any four of seven hosts give it back, and one that gives other bytes is found out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, log_of

from offgrid.client import OffgridError
from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

HOSTS = tuple(f"host-{number}" for number in range(7))
MIB = 1 << 20
DURABLE = objects_pb2.OBJECT_STATE_DURABLE


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[LocalMesh]:
    with LocalMesh(tmp_path, "t", {"owner": ["core"], **{host: ["host"] for host in HOSTS}}) as mesh:
        mesh.start()
        mesh.wait_alive()
        yield mesh
        mesh.stop()
        for node in mesh.nodes.values():
            log_of(node)


def shards_of(node: LocalNode, object_id: str) -> list[Path]:
    return sorted(node.folder.rglob(f"{object_id}.*"))


@pytest.mark.soak
def test_any_four_of_seven_give_it_back_and_a_liar_is_found(mesh: LocalMesh) -> None:
    owner, data = mesh["owner"], os.urandom(5 * MIB + 12_345)
    with owner.client() as client:
        made = client.objects.put(data, name="coded", code=(4, 7))
        eventually(lambda: not client.objects.get("coded").local, "every shard is acked, the own copy goes")
        assert client.objects.get("coded").state == DURABLE
        kept = {host: shards_of(mesh[host], made.object_id) for host in HOSTS}
        assert all(len(shards) == 1 for shards in kept.values()), "one shard at each"
        assert client.objects.read("coded") == data

        # One host's disk gives other bytes from now on, and two hosts die: the four that are left are enough.
        liar, *dead = sorted(HOSTS, key=lambda host: kept[host][0].suffix)[:3]
        shard = kept[liar][0]
        flipped = bytearray(shard.read_bytes())
        flipped[len(flipped) // 2] ^= 1
        shard.write_bytes(flipped)
        for host in dead:
            mesh[host].kill()
        assert client.objects.read("coded") == data

        # A third is one too many: the liar is needed now, is found out, and it is said which shards are missing.
        mesh[next(host for host in HOSTS if host not in (liar, *dead))].kill()
        with pytest.raises(OffgridError, match="4 are needed, 3 can be had") as caught:
            client.objects.read("coded", timeout_s=0)
        assert caught.value.reason == "NoReplica"
        found_out = rf"shard 0: {liar} \(\w+\) gave other bytes"
        assert re.search(found_out, str(caught.value)), caught.value
