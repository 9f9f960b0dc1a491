"""Objects on a live mesh: stored by quorum, read back whatever is killed, and nowhere readable on any disk."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, eventually, mesh_of, offgrid

from offgrid.client import OffgridError
from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

HOSTS = ("host-a", "host-b", "host-c")
MIB = 1 << 20
MARKER = b"the-marker-that-nobody-may-find"
DURABLE, ACCEPTED = objects_pb2.OBJECT_STATE_DURABLE, objects_pb2.OBJECT_STATE_ACCEPTED
COMPLETED = objects_pb2.OUTBOX_STATUS_COMPLETED


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """An owner and three hosts, which tests may kill and must start again; and a node that nobody kills, so that those
    who come back on another port are found."""
    nodes = {"stays": ["broker"], "owner": ["core"], **{host: ["host"] for host in HOSTS}}
    with mesh_of(tmp_path_factory.mktemp("objects"), nodes) as mesh:
        yield mesh


@pytest.fixture
def text() -> bytes:
    """Five stripes and a bit, full of the marker."""
    return (MARKER + os.urandom(MIB - len(MARKER))) * 5 + MARKER


def again(*nodes: LocalNode) -> None:
    for node in nodes:
        node.run("run")
    for node in nodes:
        node.wait_ready()


def info(owner: LocalNode, wanted: str) -> objects_pb2.Object:
    with owner.client() as client:
        return client.objects.get(wanted)


class TestAnObject:
    @pytest.mark.soak
    def test_is_read_back_from_the_others_when_a_host_that_acked_is_killed(
        self, mesh: LocalMesh, text: bytes, tmp_path: Path
    ) -> None:
        owner, source, copy = mesh["owner"], tmp_path / "text.bin", tmp_path / "copy.bin"
        source.write_bytes(text)
        done = offgrid(owner, "put", source, "--required", "2.0", "--json")
        assert done.code == 0, done.said
        made = json.loads(done.out)["object"]
        assert (made["state"], made["size_bytes"], made["name"]) == ("OBJECT_STATE_DURABLE", len(text), "text.bin")
        assert made["acked_milli"] >= made["required_milli"] == 2_000
        assert len({ack["node_id"] for ack in made["acks"]}) == len(made["acks"]) >= 2

        eventually(lambda: not info(owner, made["object_id"]).local, "the owner's own copy is dropped")
        killed = mesh.by_id(made["acks"][0]["node_id"])
        killed.kill()
        try:
            done = offgrid(owner, "get", "text.bin", "-o", copy)
            assert done.code == 0, done.said
            assert copy.read_bytes() == text
        finally:
            again(killed)

    def test_whose_hosts_have_all_stopped_names_them_in_time(self, mesh: LocalMesh, tmp_path: Path) -> None:
        owner, hosts, source = mesh["owner"], [mesh[host] for host in HOSTS], tmp_path / "alone.bin"
        source.write_bytes(b"alone")

        def put_on_all_hosts() -> str:
            """Its id. A host that fails at first, as one that has just restarted may, gets no copy once the quorum is
            reached without it; then the owner keeps its own, and another object is put."""
            made = json.loads(offgrid(owner, "put", source, "--json").out)["object"]["object_id"]
            deadline = time.monotonic() + 3
            while (local := info(owner, made).local) and time.monotonic() < deadline:
                time.sleep(0.05)
            return "" if local else made

        wanted = eventually(put_on_all_hosts, "the owner's own copy is dropped")
        for host in hosts:
            host.kill()
        try:
            done = offgrid(owner, "get", wanted, "-o", tmp_path / "copy", "--timeout", "8", timeout_s=GIVE_UP_S)
            assert done.code == 5, done.said
            named = [line for line in done.err.splitlines() if all(f"{host} (" in line for host in HOSTS)]
            assert len(named) >= 2, done.said  # while it waits, and at the end
            assert "--timeout" in done.err, done.said
            assert "ipv4" not in done.err, "no words of gRPC's own"
        finally:
            again(*hosts)

    def test_is_readable_on_no_disk(self, mesh: LocalMesh, text: bytes) -> None:
        owner = mesh["owner"]
        with owner.client() as client:
            made = client.objects.put(text, name="marked")
            client.objects.enqueue("marked", MARKER * 10, 12)
            here = list((owner.folder / "data" / "chunks").rglob("o-*"))
            assert found(MARKER, [owner.folder]) == []
            client.objects.wait_durable(made.object_id, timeout_s=GIVE_UP_S)
            assert client.objects.read("marked") == text
        kept = [path for host in HOSTS for path in mesh[host].folder.rglob(made.object_id)]
        assert len(kept) >= 2
        assert {path.stat().st_size for path in kept} == {len(text) + 6 * 16}, "what is kept is the sealed shard"
        assert found(MARKER, [mesh[name].folder for name in mesh.nodes]) == []
        assert here, "the owner had a copy of its own when it was searched"

    def test_survives_any_damage_to_one_copy(self, mesh: LocalMesh, text: bytes) -> None:
        owner = mesh["owner"]
        with owner.client() as client:
            made = client.objects.put(text, name="damaged", required_milli=3_000)
            made = client.objects.wait_durable(made.object_id, timeout_s=GIVE_UP_S)
            eventually(lambda: not client.objects.get(made.object_id).local, "the owner's own copy is dropped")
            first, second = (mesh.by_id(ack.node_id) for ack in made.acks[:2])
            for host, damage in ((first, b"\xff" * 100), (second, b"")):
                path = host.folder / "data" / "chunks" / "kept" / made.object_id
                sealed = path.read_bytes()
                path.write_bytes(damage + sealed[len(damage) :] if damage else sealed[: 2 * MIB])
            assert client.objects.read("damaged") == text


class TestTheOutbox:
    def test_delivers_what_was_put_while_no_host_was_there_though_the_owner_is_killed(
        self, mesh: LocalMesh, text: bytes, tmp_path: Path
    ) -> None:
        owner, hosts, source = mesh["owner"], [mesh[host] for host in HOSTS], tmp_path / "later.bin"
        source.write_bytes(text)
        for host in hosts:
            host.kill()
        done = offgrid(owner, "put", source, "--no-wait", "--json")
        assert done.code == 0, done.said
        object_id = json.loads(done.out)["object"]["object_id"]
        with owner.client() as client:
            entry = client.objects.enqueue("order-17", b"small", 15, 2_000)
        waiting = offgrid(owner, "outbox", "--open")
        assert "order-17" in waiting.out, waiting.said
        owner.kill()
        again(owner, *hosts)
        with owner.client() as client:
            assert client.objects.wait_durable(object_id, timeout_s=GIVE_UP_S).acked_milli >= 2_000
            eventually(lambda: not list(client.objects.outbox(open_only=True)), "the outbox is empty")
            (completed,) = [e for e in client.objects.outbox() if e.id == entry.id]
            assert (completed.status, completed.key) == (COMPLETED, "order-17")
            assert client.objects.read(object_id) == text
            assert client.objects.read(entry.object_id) == b"small"
            (event,) = client.events.list(subject="order-17")
            assert (event.etype, event.object.outbox_id) == (15, entry.id)

    def test_goes_on_when_its_owner_is_killed_in_the_middle(self, mesh: LocalMesh) -> None:
        owner, text = mesh["owner"], os.urandom(24 * MIB)
        with owner.client() as client:
            made = client.objects.put(text, name="cut off")
        owner.kill()  # pieces are under way now
        again(owner)
        with owner.client() as client:
            client.objects.wait_durable(made.object_id, timeout_s=GIVE_UP_S)
            assert client.objects.read("cut off") == text


class TestAPut:
    def test_is_done_once_for_one_request_id_even_across_a_restart(self, mesh: LocalMesh) -> None:
        owner = mesh["owner"]
        with owner.client() as client:
            first = client.objects.put(b"once", name="once", request_id="once-1")
            assert client.objects.put(b"once", name="once", request_id="once-1").object_id == first.object_id
        owner.kill()
        again(owner)
        with owner.client() as client:
            assert client.objects.put(b"once", name="once", request_id="once-1").object_id == first.object_id
            assert [o.name for o in client.objects.list()].count("once") == 1
            with pytest.raises(OffgridError) as caught:
                client.objects.put(b"once", name="another", request_id="once-1")
        assert caught.value.reason == "RequestIdReused"

    def test_reads_a_pipe_and_get_writes_one(self, mesh: LocalMesh) -> None:
        owner, data = mesh["owner"], os.urandom(3 * MIB + 1)
        put = [BIN / "offgrid", "--node-dir", owner.folder, "put", "-", "--name", "piped"]
        subprocess.run(put, input=data, check=True, capture_output=True, timeout=GIVE_UP_S)
        got = subprocess.run(
            [BIN / "offgrid", "--node-dir", owner.folder, "get", "piped", "-o", "-"],
            check=True, capture_output=True, timeout=GIVE_UP_S,
        )  # fmt: skip
        assert got.stdout == data

    def test_that_fails_leaves_the_file_that_was_there(self, mesh: LocalMesh, tmp_path: Path) -> None:
        kept = tmp_path / "kept.txt"
        kept.write_text("mine")
        done = offgrid(mesh["owner"], "get", "no such thing", "-o", kept)
        assert done.code == 3, done.said
        assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
        assert kept.read_text() == "mine"


def test_the_command_lists_and_shows_them(mesh: LocalMesh, tmp_path: Path) -> None:
    owner, source = mesh["owner"], tmp_path / "shown.txt"
    source.write_text("shown")
    put = offgrid(owner, "put", source)
    assert put.code == 0, put.said
    assert "durable" in put.out, put.said
    listed = offgrid(owner, "ls")
    assert "shown.txt" in listed.out, listed.said
    shown = offgrid(owner, "info", "shown.txt")
    assert "host-" in shown.out, shown.said
    assert "of 2.0" in shown.out, shown.said


def found(marker: bytes, folders: list[Path]) -> list[Path]:
    """Every file below that has the marker in it."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and marker in path.read_bytes()]
