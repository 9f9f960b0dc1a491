"""Keys rotated on a live mesh: objects stay readable, members stay members, an old key opens no door."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import grpc
from conftest import MakeMesh
from live import GIVE_UP_S, eventually, log_of, offgrid, offgrid_node

from offgrid.client import OffgridError
from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.folder import ROOT_KEY
from offgrid_node.keys import NodeKey, tls_name_of
from offgrid_node.local_mesh import LocalNode

TEXT = b"what is kept through all of it" * 100


def alive(node: LocalNode) -> set[str]:
    with node.client() as client:
        return {peer.member.name for peer in client.mesh.peers() if peer.liveness == common_pb2.LIVENESS_ALIVE}


def reads(node: LocalNode) -> bool:
    with node.client() as client:
        try:
            return client.objects.read("notes") == TEXT
        except OffgridError:
            return False


def rewrapped(node: LocalNode, number: int) -> bool:
    with node.client() as client:
        keys = client.objects.data_keys()
        return keys.number == number and not keys.under_way


def rotate_root(node: LocalNode) -> bytes:
    """Of the mesh, at a node that stands still; the public key."""
    done = offgrid_node("rotate", "root", "--dir", node.folder)
    assert (done.code, "root key number 1" in done.out) == (0, True), done.said
    return NodeKey.load(node.folder / "keys", ROOT_KEY).public_key


def root_known_to(node: LocalNode) -> bytes:
    with node.client() as client:
        return client.ledger.genesis().root_key


def rotate_identities(*nodes: LocalNode) -> None:
    """Of nodes that stand still; they run again then."""
    for node in nodes:
        done = offgrid_node("rotate", "identity", "--dir", node.folder)
        assert done.code == 0, done.said
        assert node.node_id in done.out
        node.run("run")
    for node in nodes:
        node.wait_ready()


def is_let_in(identity: Path, target: LocalNode) -> bool:
    """Whether one Ping over mutual TLS is answered, with the PEM files that a daemon wrote when it had that key."""
    port = re.findall(r"mesh +port (\d+)", log_of(target))[-1]
    credentials = grpc.ssl_channel_credentials(
        (target.folder / "data" / "tls" / "identity.pem").read_bytes(),
        (identity / "leaf.key").read_bytes(),
        (identity / "chain.pem").read_bytes(),
    )
    options = (("grpc.ssl_target_name_override", tls_name_of(target.node_id)), ("grpc.enable_http_proxy", 0))
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call = channel.unary_unary(
            "/offgrid.v1.MeshService/Ping",
            request_serializer=mesh_pb2.PingRequest.SerializeToString,
            response_deserializer=mesh_pb2.PingResponse.FromString,
        )
        try:
            call(mesh_pb2.PingRequest(), timeout=GIVE_UP_S)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise  # a machine that is slow refuses nobody
            return False
    return True


def test_keys_are_rotated_under_an_object_that_two_nodes_read(make_mesh: MakeMesh, tmp_path: Path) -> None:
    mesh = make_mesh({"owner": ["core"], "reader": ["host"], "keeper": ["host"]})
    owner, reader, keeper = mesh["owner"], mesh["reader"], mesh["keeper"]
    everybody = {"owner", "reader", "keeper"}
    (tmp_path / "notes").write_bytes(TEXT)
    done = offgrid(owner, "put", tmp_path / "notes", "--required", "2.0", "--copies", "3", "--json")
    assert done.code == 0, done.said
    assert offgrid(owner, "share", "notes", "reader").code == 0
    eventually(lambda: reads(reader), "the reader reads it")

    # data keys; the owner is killed while it may be at it, and both come back with other identities: hers is an
    # admin's, whom the root's key of before named
    done = offgrid(reader, "keys", "rotate")
    assert (done.code, "number 1" in done.out) == (0, True), done.said
    with owner.client() as client:
        client.objects.rotate_keys()
    owner.kill()
    reader.stop()
    shutil.copytree(owner.folder / "data" / "tls", tmp_path / "stolen")
    eventually(lambda: is_let_in(tmp_path / "stolen", keeper), "until somebody has heard of the next key")
    done = offgrid_node("admin", "add", keeper.name, "--dir", owner.folder)
    assert (done.code, "is an admin now" in done.out) == (0, True), done.said
    root = rotate_root(owner)
    rotate_identities(owner, reader)
    for node in (owner, reader, keeper):
        eventually(lambda node=node: alive(node) == everybody, f"{node.name} sees everybody")  # type: ignore[misc]
    for node in (reader, keeper):
        eventually(lambda node=node: root_known_to(node) == root, f"{node.name} knows the root's next key")  # type: ignore[misc]
    eventually(lambda: not is_let_in(tmp_path / "stolen", keeper), "the old key opens no door")
    assert offgrid(keeper, "mesh", "invite").code == 0, "who the root has named admits, whatever the root's next key is"
    eventually(lambda: rewrapped(owner, 1), "the owner has gone through its objects")
    assert reads(owner)
    eventually(lambda: reads(reader), "the reader reads on")

    # the object itself under another key of its own, though the node is killed while it may be at it
    with owner.client() as client:
        before = client.objects.get("notes")
        assert client.objects.reencrypt().under_way
    owner.kill()
    owner.run("run")
    owner.wait_ready()
    done = offgrid(owner, "keys", "reencrypt", "--json")
    assert done.code == 0, done.said
    assert json.loads(done.out)["reencryption"].get("under_way", False) is False
    with owner.client() as client:
        made = client.objects.get("notes")
        assert (made.object_id != before.object_id, [*made.formerly]) == (True, [before.object_id])
        assert (made.copies, made.required_milli, made.created_us) == (3, 2_000, before.created_us)
        assert client.objects.read(before.object_id) == TEXT
    eventually(lambda: reads(reader), "the reader reads the next one")
