"""Placement on a live mesh: what an owner has found out about its hosts, and where it puts things by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid

from offgrid_node.local_mesh import LocalMesh

HOSTS = ("host-a", "host-b", "host-c")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    nodes = {"owner": ["core", "broker"], **{host: ["host"] for host in HOSTS}}
    with mesh_of(tmp_path_factory.mktemp("placement"), nodes) as mesh:
        yield mesh


def explained(mesh: LocalMesh, *argv: str) -> dict[str, dict[str, object]]:
    """By the hosts' names."""
    done = offgrid(mesh["owner"], "placement", "explain", *argv, "--json")
    assert done.code == 0, done.said
    return {host["name"]: host for host in json.loads(done.out)["hosts"]}


def test_an_owner_knows_its_hosts_and_says_what_each_would_get(mesh: LocalMesh) -> None:
    def measured() -> bool:
        said = explained(mesh, "--size", "1000")
        return all("room_bytes" in said[name] and "round_trip_ms" in said[name] for name in HOSTS)

    eventually(measured, 20, "every host has answered once")
    said = explained(mesh, "--size", "100000000", "--code", "4/7")
    assert sorted(shard for name in HOSTS for shard in said[name]["gets"]) == [*range(7)]  # type: ignore[attr-defined]
    assert said["owner"]["outcome"] == "PLACEMENT_OUTCOME_OWNER"
    too_much = explained(mesh, "--size", str(2**50))
    assert {too_much[name]["outcome"] for name in HOSTS} == {"PLACEMENT_OUTCOME_NO_ROOM"}


def test_a_host_that_drains_gets_nothing_new(mesh: LocalMesh, tmp_path: Path) -> None:
    """One that starts again is asked at once, and a drain outlives its process."""
    drained = mesh["host-a"]
    assert offgrid(drained, "host", "drain", "--timeout", "20").code == 0
    drained.kill()
    drained.run("run")
    drained.wait_ready()
    eventually(
        lambda: explained(mesh, "--size", "1")["host-a"]["outcome"] == "PLACEMENT_OUTCOME_DRAINED",
        30,  # far below the minute after which everybody is asked again
        "its owner's wish is known to others",
    )
    (tmp_path / "kept").write_bytes(b"kept")
    done = offgrid(mesh["owner"], "put", tmp_path / "kept", "--required", "2.0", "--json")
    assert done.code == 0, done.said
    acked = {mesh.by_id(ack["node_id"]).name for ack in json.loads(done.out)["object"]["acks"]}
    assert acked == {"host-b", "host-c"}
    held = explained(mesh, "kept")
    assert {name for name in HOSTS if held[name]["holds"]} == acked
