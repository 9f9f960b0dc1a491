"""Joining and removal between live nodes, by the commands that people use."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from live import REMOVED_WITHIN_S, SAY_HI, eventually, log_of, mesh_of, offgrid, offgrid_node, promised

from offgrid.client import payloads
from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.keys import tls_name_of
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.mesh.token import InviteToken

LOOPBACK = ("--set", "mesh.listen=127.0.0.1:0", "--set", "mesh.door=127.0.0.1:0", "--set", "mesh.mdns=false")

NOBODYS = InviteToken(bytes(8), bytes(range(16)), ("127.0.0.1:1",))


def names(node: LocalNode, *, removed: bool = False) -> set[str]:
    with node.client() as client:
        return {peer.member.name for peer in client.mesh.peers(include_removed=removed)}


def is_removed(node: LocalNode) -> bool:
    with node.client() as client:
        return client.mesh.status().removed


def invite(mesh: LocalMesh) -> str:
    done = offgrid(mesh.founder, "mesh", "invite", "--json")
    assert done.code == 0, done.said
    return str(json.loads(done.out)["token"])


def alive(node: LocalNode) -> set[str]:
    """Whom it sees alive, itself included."""
    with node.client() as client:
        return {peer.member.node_id for peer in client.mesh.peers() if peer.liveness == common_pb2.LIVENESS_ALIVE}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """Of this file alone: its hosts are removed one after the other."""
    nodes = {"core": ["core", "broker"], "host-a": ["host"], "host-b": ["host"]}
    with mesh_of(tmp_path_factory.mktemp("few"), nodes) as mesh:
        mesh.wait_offers(2)
        yield mesh


@pytest.mark.soak
def test_nodes_that_all_died_at_once_find_each_other_though_they_listen_on_any_port(few: LocalMesh) -> None:
    """Nobody is left who could tell the ports of now: each takes its last one again."""
    nodes = list(few.nodes.values())
    everybody = {node.node_id for node in nodes}

    def together() -> bool:
        return all(alive(node) == everybody for node in nodes)

    eventually(together, "each sees each, and has their addresses")
    for node in nodes:
        node.kill()
    for node in nodes:
        node.run("run")
    for node in nodes:
        node.wait_ready()
    eventually(together, "each sees each again")
    few.wait_offers(2)
    assert all(log_of(node) for node in nodes)


class TestRemoval:
    def test_a_removed_member_is_out_within_five_seconds(self, few: LocalMesh) -> None:
        core, gone, stays = few["core"], few["host-a"], few["host-b"]
        within_s = promised(REMOVED_WITHIN_S)
        began = time.monotonic()
        done = offgrid(core, "mesh", "remove", "--yes", "host-a")
        assert done.code == 0, done.said

        def left() -> float:
            return within_s - (time.monotonic() - began)

        eventually(lambda: "host-a" not in names(core) | names(stays), "the others list it no more", left())
        eventually(lambda: is_removed(gone), "it says itself that it was removed", left())
        eventually(lambda: ping(gone, core) is not None, "core refuses it", left())
        eventually(lambda: ping(gone, stays) is not None, "a third node refuses it", left())
        eventually(lambda: self.hosts_in_book(core) == {stays.node_id}, "its offer is off the book", left())

        assert ping(stays, core) is None  # and only it
        assert "host-a" in names(core, removed=True)
        self.gets_no_jobs(few, gone)
        again = offgrid(core, "mesh", "remove", "--yes", "host-a")
        assert (again.code, "was removed already" in again.said) == (0, True), again.said  # repeating it is harmless
        assert not is_removed(stays)
        gone.stop()
        gone.run("run")
        gone.wait_ready()
        assert is_removed(gone)  # it remembers
        log_of(gone)

    def test_who_was_removed_while_it_was_away_is_told_what_that_looks_like(self, few: LocalMesh) -> None:
        core, gone = few["core"], few["host-b"]
        assert gone.stop() == 0
        assert offgrid(core, "mesh", "remove", "--yes", "host-b").code == 0
        gone.run("run")
        gone.wait_ready()
        with gone.client() as client:
            wanted = "no member accepts this node: was it removed?"
            eventually(lambda: wanted in client.mesh.status().notices, "it wonders")
        log_of(gone)

    def gets_no_jobs(self, mesh: LocalMesh, gone: LocalNode) -> None:
        with mesh["core"].client() as client:
            hosts = {client.jobs.run(payloads.wasm(SAY_HI), timeout_ms=20_000).host for _ in range(6)}
        assert hosts == {mesh["host-b"].node_id}
        assert gone.node_id not in hosts

    def hosts_in_book(self, broker: LocalNode) -> set[str]:
        with broker.client() as client:
            return {entry.profile.host for entry in client.market.offers().entries}


def ping(caller: LocalNode, target: LocalNode) -> grpc.RpcError | None:
    """One Ping over mutual TLS with the PEM files that the caller's daemon wrote; None when it is answered."""
    own, theirs = (node.folder / "data" / "tls" for node in (caller, target))
    port = re.findall(r"mesh +port (\d+)", log_of(target))[-1]
    credentials = grpc.ssl_channel_credentials(
        (theirs / "identity.pem").read_bytes(), (own / "leaf.key").read_bytes(), (own / "chain.pem").read_bytes()
    )
    options = (("grpc.ssl_target_name_override", tls_name_of(target.node_id)), ("grpc.enable_http_proxy", 0))
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call = channel.unary_unary(
            "/offgrid.v1.MeshService/Ping",
            request_serializer=mesh_pb2.PingRequest.SerializeToString,
            response_deserializer=mesh_pb2.PingResponse.FromString,
        )
        try:
            call(mesh_pb2.PingRequest(), timeout=2)
        except grpc.RpcError as error:
            return error
    return None


@pytest.mark.xdist_group("mesh")
class TestRefusedRemovals:
    def test_it_cannot_be_done_by_a_member_that_is_no_admin(self, mesh: LocalMesh) -> None:
        done = offgrid(mesh["host-a"], "mesh", "remove", "--yes", "host-b")
        assert done.code == 4, done.said
        assert "ask one of: core" in done.err, done.said

    def test_of_somebody_who_is_not_there(self, mesh: LocalMesh) -> None:
        done = offgrid(mesh["core"], "mesh", "remove", "--yes", "nobody")
        assert done.code == 3, done.said
        assert "nobody" in done.err, done.said


@pytest.mark.xdist_group("mesh")
class TestJoining:
    def test_a_token_serves_once(self, mesh: LocalMesh, tmp_path: Path) -> None:
        token = invite(mesh)
        first = offgrid_node("join", token, "--dir", tmp_path / "a", "--name", "guest", "--no-run", *LOOPBACK)
        assert first.code == 0, first.said
        replayed = offgrid_node("join", token, "--dir", tmp_path / "b", "--name", "thief", "--no-run", *LOOPBACK)
        assert replayed.code == 4, replayed.said
        assert "used" in replayed.err, replayed.said
        assert not (tmp_path / "b" / "offgrid.toml").exists()
        assert "thief" not in names(mesh["core"])
        offgrid(mesh["core"], "mesh", "remove", "--yes", "guest")

    def test_the_command_goes_on_as_the_node_that_has_joined(self, mesh: LocalMesh, tmp_path: Path) -> None:
        """In the same process, so that a signal to the command is one to the node."""
        guest = LocalNode("guest", ("core",), tmp_path / "guest")
        guest.run("join", invite(mesh), "--name", "guest", "--role", "core", *LOOPBACK)
        guest.wait_ready()
        assert "guest" in names(mesh["core"])
        assert guest.stop() == 0
        assert "joined mesh t as guest" in log_of(guest)
        offgrid(mesh["core"], "mesh", "remove", "--yes", "guest")

    def test_a_folder_holds_one_node(self, mesh: LocalMesh) -> None:
        folder = mesh["host-a"].folder
        before = (folder / "offgrid.toml").read_bytes(), (folder / "keys" / "node.key").read_bytes()
        done = offgrid_node("join", invite(mesh), "--dir", folder, "--name", "second", "--no-run", *LOOPBACK)
        assert done.code == 4, done.said
        assert "a node lives in this folder" in done.err, done.said
        assert ((folder / "offgrid.toml").read_bytes(), (folder / "keys" / "node.key").read_bytes()) == before

    def test_a_name_is_taken_once(self, mesh: LocalMesh, tmp_path: Path) -> None:
        token = invite(mesh)
        done = offgrid_node("join", token, "--dir", tmp_path / "a", "--name", "host-a", "--no-run", *LOOPBACK)
        assert done.code == 4, done.said
        assert "host-a" in done.err, done.said
        other = offgrid_node("join", token, "--dir", tmp_path / "a", "--name", "other", "--no-run", *LOOPBACK)
        assert other.code == 0, other.said  # the refusal has not used up the token, nor spoilt the folder
        offgrid(mesh["core"], "mesh", "remove", "--yes", "other")

    @pytest.mark.parametrize("damage", ["one letter", "cut", "no token", "empty"])
    def test_a_mistyped_token_is_found_out_without_asking_anyone(
        self, mesh: LocalMesh, tmp_path: Path, damage: str
    ) -> None:
        token = str(NOBODYS)
        other = "a" if token[20] != "a" else "b"
        bad = {"one letter": token[:20] + other + token[21:], "cut": token[:30], "no token": "hello", "empty": ""}
        done = offgrid_node("join", bad[damage], "--dir", tmp_path / "a", "--no-run")
        assert done.code == 2, done.said
        assert "token" in done.err, done.said
        assert not (tmp_path / "a" / "offgrid.toml").exists()

    def test_nobody_at_the_door(self, tmp_path: Path) -> None:
        done = offgrid_node("join", str(NOBODYS), "--dir", tmp_path / "a", "--no-run", "--timeout", "1", *LOOPBACK)
        assert done.code == 5, done.said
        assert "Is the inviter running" in done.err, done.said


class TestWhatALostPartSays:
    """Each message names a way out, and nothing new is made in the place of what is missing."""

    def lives(self, folder: Path) -> Path:
        done = offgrid_node("init", "--mesh", "home", "--dir", folder, *LOOPBACK)
        assert done.code == 0, done.said
        return folder

    def refused(self, *command: str | Path, code: int = 4) -> str:
        done = offgrid_node(*command)
        assert done.code == code, done.said
        return done.err

    def test_a_lost_store(self, tmp_path: Path) -> None:
        folder = self.lives(tmp_path / "n")
        shutil.rmtree(folder / "data" / "memory.db")
        said = self.refused("run", "--dir", folder)
        assert "Is its disk mounted?" in said
        assert "another folder" in said
        assert not (folder / "data" / "memory.db").exists()

    def test_lost_keys(self, tmp_path: Path) -> None:
        folder = self.lives(tmp_path / "n")
        shutil.rmtree(folder / "keys")
        said = self.refused("run", "--dir", folder, code=3)
        assert "Restore it from a backup or by its recovery words" in said
        assert not (folder / "keys").exists()

    @pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
    def test_a_config_that_others_may_write(self, tmp_path: Path) -> None:
        folder = self.lives(tmp_path / "n")
        (folder / "offgrid.toml").chmod(0o666)
        assert f"Type: chmod go-w {folder / 'offgrid.toml'}" in self.refused("run", "--dir", folder)

    def test_a_store_that_served_another_mesh(self, tmp_path: Path) -> None:
        folder = self.lives(tmp_path / "n")
        (folder / "offgrid.toml").unlink()
        shutil.rmtree(folder / "keys")
        assert "take another folder" in self.refused("init", "--mesh", "other", "--dir", folder, *LOOPBACK)
