"""A host of a live mesh is lost for good: its shard is made anew elsewhere, by its new host, from the others'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from live import eventually, mesh_of
from test_metrics_live import samples

from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalNode

HOSTS = tuple(f"host-{number}" for number in range(8))
MIB = 1 << 20
DURABLE = objects_pb2.OBJECT_STATE_DURABLE
PULLED = "offgrid_repair_bytes_total", "pulled"


def shards_of(node: LocalNode, object_id: str) -> list[Path]:
    return sorted(node.folder.rglob(f"{object_id}.*"))


@pytest.mark.soak
def test_one_shard_comes_into_its_new_host_and_nothing_into_the_owner(tmp_path: Path) -> None:
    nodes = {"owner": ["core"], **{host: ["host"] for host in HOSTS}}
    data = os.urandom(5 * MIB + 12_345)
    with mesh_of(tmp_path, nodes, storage__repair_after_ms=3_000, metrics__listen="127.0.0.1:0") as mesh:
        owner = mesh["owner"]
        with owner.client() as client:
            made = client.objects.put(data, name="coded", code=(4, 7))
            eventually(lambda: not client.objects.get("coded").local, "every shard is acked, the own copy goes")
            victim = next(host for host in HOSTS if shards_of(mesh[host], made.object_id))
            lost = shards_of(mesh[victim], made.object_id)[0]
            number, before = int(lost.suffix[1:]), lost.read_bytes()
            mesh[victim].kill()

            def holder() -> str:
                acks = [ack for ack in client.objects.get("coded").acks if number in ack.shards]
                return next((name for ack in acks if (name := mesh.by_id(ack.node_id).name) != victim), "")

            host = mesh[eventually(holder, "another host has acked the shard")]
            kept = shards_of(host, made.object_id)
            assert next(shard for shard in kept if shard.name == lost.name).read_bytes() == before
            assert len(before) <= samples(host)[PULLED] <= 1.05 * len(before) * len(kept)
            assert samples(owner)[PULLED] == 0
            assert client.objects.get("coded").state == DURABLE
            assert client.objects.read("coded") == data
