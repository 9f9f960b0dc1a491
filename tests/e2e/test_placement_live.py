"""Placement on a live mesh: what an owner has found out about its hosts, and where it puts things by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid, promised

from offgrid_node.local_mesh import LocalMesh

HOSTS = ("host-a", "host-b", "host-c")
REPEATED = 5_000  # what is smaller than 16 KiB is no file at its hosts


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    nodes = {"owner": ["core", "broker"], **{host: ["host"] for host in HOSTS}}
    with mesh_of(tmp_path_factory.mktemp("placement"), nodes, metrics__listen="127.0.0.1:0") as mesh:
        yield mesh


def explained(mesh: LocalMesh, *argv: str) -> dict[str, dict[str, object]]:
    """By the hosts' names."""
    done = offgrid(mesh["owner"], "placement", "explain", *argv, "--json")
    assert done.code == 0, done.said
    return {host["name"]: host for host in json.loads(done.out)["hosts"]}


def test_an_owner_knows_its_hosts_and_says_what_each_would_get(mesh: LocalMesh) -> None:
    def measured() -> bool:
        said = explained(mesh, "--size", "1000")
        return all({"room_bytes", "round_trip_ms"} <= said.get(name, {}).keys() for name in HOSTS)

    eventually(measured, "every host has answered once")
    said = explained(mesh, "--size", "100000000", "--code", "4/7")
    assert sorted(shard for name in HOSTS for shard in said[name]["gets"]) == [*range(7)]  # type: ignore[attr-defined]
    assert said["owner"]["outcome"] == "PLACEMENT_OUTCOME_OWNER"
    too_much = explained(mesh, "--size", str(2**50))
    assert {too_much[name]["outcome"] for name in HOSTS} == {"PLACEMENT_OUTCOME_NO_ROOM"}


def acked(mesh: LocalMesh, name: str) -> set[str]:
    done = offgrid(mesh["owner"], "info", name, "--json")
    assert done.code == 0, done.said
    return {mesh.by_id(ack["node_id"]).name for ack in json.loads(done.out)["object"]["acks"]}


def put(mesh: LocalMesh, file: Path, *argv: str) -> None:
    file.write_bytes(file.name.encode() * REPEATED)
    done = offgrid(mesh["owner"], "put", file, "--required", "2.0", *argv)
    assert done.code == 0, done.said


def test_a_flipped_bit_is_found_by_an_audit_and_mended(mesh: LocalMesh, tmp_path: Path) -> None:
    put(mesh, tmp_path / "flipped", "--copies", "2")
    audited = offgrid(mesh["owner"], "audit", "flipped")
    assert audited.code == 0, audited.said
    assert "is verified" in audited.out
    object_id = json.loads(offgrid(mesh["owner"], "info", "flipped", "--json").out)["object"]["object_id"]
    liar = min(acked(mesh, "flipped"))
    blob = mesh[liar].folder / "data" / "chunks" / "kept" / object_id
    sealed = bytearray(blob.read_bytes())
    sealed[100] ^= 1
    blob.write_bytes(sealed)
    found = offgrid(mesh["owner"], "audit", "flipped", "--json")
    assert found.code == 1, found.said
    wrong = [host for host in json.loads(found.out)["hosts"] if host["outcome"] == "AUDIT_OUTCOME_WRONG"]
    assert [mesh.by_id(host["node_id"]).name for host in wrong] == [liar]
    eventually(lambda: blob.is_file() and blob.read_bytes() != sealed, "it is brought again")
    eventually(lambda: offgrid(mesh["owner"], "audit", "flipped").code == 0, "it is whole again")


def test_a_host_that_drains_hands_over_what_it_keeps_and_gets_nothing_new(mesh: LocalMesh, tmp_path: Path) -> None:
    """It may stop then. One that starts again is asked at once, and a drain outlives its process."""
    put(mesh, tmp_path / "before", "--copies", "2")
    name = min(acked(mesh, "before"))
    drained, others = mesh[name], {*HOSTS} - {name}
    done = offgrid(drained, "host", "drain", "--timeout", "60")
    assert done.code == 0, done.said
    assert json.loads(offgrid(drained, "host", "show", "--json").out)["host"]["kept"] == []
    assert acked(mesh, "before") == others
    drained.kill()
    assert offgrid(mesh["owner"], "get", "before", "-o", "-").out == "before" * REPEATED
    drained.run("run")
    drained.wait_ready()
    eventually(
        lambda: explained(mesh, "--size", "1")[name]["outcome"] == "PLACEMENT_OUTCOME_DRAINED",
        "its owner's wish is known to others",
        promised(30),  # far below the minute after which everybody is asked again
    )
    put(mesh, tmp_path / "kept")
    assert acked(mesh, "kept") == others
    held = explained(mesh, "kept")
    assert {host for host in HOSTS if held[host]["holds"]} == others
