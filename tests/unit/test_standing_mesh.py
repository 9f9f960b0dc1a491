"""`offgrid-node up` and `down`, but for the nodes themselves: plans, ports, and whose process a number is."""

from __future__ import annotations

import json
import ntpath
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from offgrid.client import OffgridError
from offgrid_node import mesh_commands
from offgrid_node.discovery.hosts_file import HostsFile
from offgrid_node.local_mesh import LocalNode
from offgrid_node.own_processes import ask_to_end, birth_of, kill, wait_gone
from offgrid_node.protocol.errors import FailedPrecondition, NotFound, Unavailable
from offgrid_node.standing_mesh import StandingMesh, names_of
from offgrid_node.standing_ports import PORTS, free_port, moved, tell

PLAN: dict[str, Any] = {"mesh": "lab", "nodes": [{"name": "core", "roles": ["core"], "port": 7601, "door_port": 7602}]}
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def planned(folder: Path, pid_file: object = None) -> StandingMesh:
    (folder / "core").mkdir()
    (folder / "mesh.json").write_text(json.dumps(PLAN))
    if pid_file is not None:
        (folder / "core" / "node.pid").write_text(pid_file if isinstance(pid_file, str) else json.dumps(pid_file))
    return StandingMesh(folder)


class TestBirths:
    def test_a_process_is_known_by_number_and_birth_until_it_has_gone(self) -> None:
        with subprocess.Popen(SLEEP) as process:
            birth = birth_of(process.pid)
            assert birth
            assert birth_of(process.pid) == birth
            assert not wait_gone(process.pid, birth, 0.05)
            ask_to_end(process.pid)
            assert wait_gone(process.pid, birth, 10)  # though nobody has waited for it yet
        assert birth_of(process.pid) == ""

    def test_two_processes_have_two_births(self) -> None:
        with subprocess.Popen(SLEEP) as younger:  # by many ticks of the clock that births are told by
            assert birth_of(younger.pid)
            assert (os.getpid(), birth_of(os.getpid())) != (younger.pid, birth_of(younger.pid))
            younger.kill()

    def test_killing_what_is_not_there_is_no_error(self) -> None:
        with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
            process.wait()
        kill(process.pid)
        ask_to_end(process.pid)


class Told:
    """Stands in for a node's client and its process' signals: whether there is an answer, whether there are any."""

    def __init__(self, process: subprocess.Popen[bytes], answers: bool, signals: bool) -> None:
        self.process, self.answers, self.signals, self.by = process, answers, signals, list[str]()
        self.mesh = self

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stop(self) -> None:
        if not self.answers:
            raise OffgridError("UNIMPLEMENTED", "UnknownMethod", "an older node")
        self.by.append("call")
        self.process.kill()

    def signal(self, pid: int) -> bool:
        if self.signals:
            self.by.append("signal")
            self.process.kill()
        return self.signals


class TestEnding:
    @pytest.mark.parametrize(
        ("answers", "signals", "by", "said"),
        [
            (True, True, ["call"], "stopped"),
            (True, False, ["call"], "stopped"),
            (False, True, ["signal"], "stopped"),
            (False, False, [], "could not be told to stop and was killed"),
        ],
    )
    def test_a_node_is_told_by_a_call_and_by_a_signal_where_none_answers(
        self, tmp_path: Path, answers: bool, signals: bool, by: list[str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with subprocess.Popen(SLEEP) as process:
            told = Told(process, answers, signals)
            monkeypatch.setattr(LocalNode, "client", lambda node, timeout_s: told)
            monkeypatch.setattr("offgrid_node.standing_mesh.ask_to_end", told.signal)
            monkeypatch.setattr("offgrid_node.standing_mesh.STOP_TIMEOUT_S", 0.2 if not by else 10.0)
            with planned(tmp_path, {"pid": process.pid, "birth": birth_of(process.pid)}) as mesh:
                assert mesh.down() == {"core": said}
        assert told.by == by


class TestPlans:
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
    def test_every_size_has_all_roles_and_a_core_that_founds(self, count: int) -> None:
        names = names_of(count)
        assert len(names) == count
        assert {role for roles in names.values() for role in roles} == {"core", "broker", "host"}
        assert next(iter(names)) == "core"

    def test_ports_are_free_and_none_is_given_twice(self) -> None:
        first = free_port(set())
        assert first >= PORTS[0]
        assert free_port({first}) != first
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first))
            assert free_port(set()) != first

    def test_three_are_enough_for_objects_that_want_two_hosts(self) -> None:
        assert sum("host" in roles for roles in names_of(3).values()) == 2

    def test_other_ports_may_be_wanted(self) -> None:
        first = free_port(set(), range(8001, 8022))
        assert first in range(8001, 8022)
        assert free_port(set(range(8001, 8022)), (*range(8001, 8022), *PORTS)) in PORTS

    def test_a_port_that_somebody_has_taken_since_the_plan_is_given_up(self, tmp_path: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            taken = other.getsockname()[1]
            node = {"name": "core", "roles": ["core"], "port": taken, "door_port": free_port(set()), "page_port": 0}
            (tmp_path / "mesh.json").write_text(json.dumps({"mesh": "x", "nodes": [node]}))
            mesh = StandingMesh(tmp_path)
            placed = mesh._placed(mesh.nodes["core"])
        assert taken not in (placed.port, placed.door_port, placed.page_port)
        assert StandingMesh(tmp_path).nodes == mesh.nodes == {"core": placed}

    def test_a_node_that_is_down_moves_from_ports_that_another_program_has(self, tmp_path: Path) -> None:
        config = tmp_path / "offgrid.toml"
        with socket.socket() as other, socket.socket() as idle:
            for each in (other, idle):
                each.bind(("127.0.0.1", 0))
            other.listen()
            taken, free = other.getsockname()[1], idle.getsockname()[1]
            idle.close()
            text = f'[mesh]\nlisten = "127.0.0.1:{taken}"\ndoor = "127.0.0.1:{free}"\n'
            config.write_text(text)
            found = moved(config, (taken, free, 0), {PORTS[0]})
        assert list(found) == [taken]
        assert found[taken] not in (taken, PORTS[0])
        assert config.read_text() == text.replace(str(taken), str(found[taken]))
        assert moved(config, (taken, free), set()) == {}, "what its owner has written is the owner's"

    @pytest.mark.skipif(sys.platform == "win32", reason="nothing lingers there")
    def test_what_lingers_of_the_node_itself_does_not_move_it(self, tmp_path: Path) -> None:
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a node has it
            door.bind(("127.0.0.1", 0))
            door.listen()
            port = door.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as caller:
                door.accept()[0].close()  # first, so that this side waits
                assert caller.recv(1) == b""
        (tmp_path / "offgrid.toml").write_text(f'listen = "127.0.0.1:{port}"\n')
        assert moved(tmp_path / "offgrid.toml", (port,), set()) == {}

    def test_all_that_have_moved_find_each_other_in_their_hosts_files(self, tmp_path: Path) -> None:
        for name in ("core", "barn"):
            (tmp_path / name).mkdir()
        hosts = tmp_path / "barn" / "discovery" / "mesh_hosts.json"
        folders = [tmp_path / "core", tmp_path / "barn"]
        for port in (1, 2):
            tell(folders, {"core": port, "barn": 3})
            entries = HostsFile(hosts).entries()
            assert [(each.name, each.address) for each in entries] == [
                ("core", f"127.0.0.1:{port}"), ("barn", "127.0.0.1:3"),
            ]  # fmt: skip
        hosts.write_text('["192.0.2.7:7440"]')
        tell(folders, {"core": 4, "barn": 3})
        assert hosts.read_text() == '["192.0.2.7:7440"]', "somebody keeps it"

    def test_a_plan_of_before_pages_had_ports_is_read(self, tmp_path: Path) -> None:
        assert planned(tmp_path).planned("core").page_port == 0

    def test_who_wants_fewer_nodes_than_there_are_hears_what_stops_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nodes = [{**PLAN["nodes"][0], "name": name} for name in ("core", "host-a", "host-b")]
        (tmp_path / "mesh.json").write_text(json.dumps({**PLAN, "nodes": nodes}))
        said = list[str]()
        mesh = StandingMesh(tmp_path, said.append)
        monkeypatch.setattr(mesh, "start", lambda names, settings: None)
        for count in (3, None, 1):
            mesh.up(count, "lab", {})
        assert said == [
            f"there are 3 nodes here, and all start. To have 1: offgrid-node down host-a host-b --dir {tmp_path}"
        ]

    def test_no_mesh_is_made_inside_another(self, tmp_path: Path) -> None:
        with planned(tmp_path), StandingMesh(tmp_path / "core" / "offgrid-mesh") as inner:
            with pytest.raises(FailedPrecondition, match=f"holds a mesh.*up --dir {tmp_path}$"):
                inner.up(1, "lab", {})
            assert not inner.nodes

    @pytest.mark.parametrize("text", ["", "[]", '{"mesh": "lab"}', '{"mesh": "lab", "nodes": [{"name": "core"}]}'])
    def test_a_plan_that_is_none_is_refused_and_left_alone(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "mesh.json").write_text(text)
        with pytest.raises(FailedPrecondition, match=r"mesh\.json is not what `offgrid-node up` writes"):
            StandingMesh(tmp_path)
        assert (tmp_path / "mesh.json").read_text() == text

    @pytest.mark.parametrize("name", ["../victim", "/srv/attic", ".", "..", "", "core/deep", "Core"])
    def test_a_node_lies_in_the_meshs_folder_whatever_the_plan_says(self, tmp_path: Path, name: str) -> None:
        plan = {**PLAN, "nodes": [{**PLAN["nodes"][0], "name": name}]}
        (tmp_path / "mesh.json").write_text(json.dumps(plan))
        with pytest.raises(FailedPrecondition, match="is no name of a node"):
            StandingMesh(tmp_path)

    def test_two_commands_do_not_work_in_one_folder_at_once(self, tmp_path: Path) -> None:
        with planned(tmp_path), pytest.raises(FailedPrecondition, match="at work in"), StandingMesh(tmp_path):
            pass

    def test_an_unknown_node_is_named_together_with_those_that_there_are(self, tmp_path: Path) -> None:
        with planned(tmp_path) as standing, pytest.raises(NotFound, match=r"no node attic in .*; there are core"):
            standing.down(["attic"])


class TestUp:
    def test_a_node_that_has_ended_is_said_with_the_end_of_its_log(self, tmp_path: Path) -> None:
        standing = planned(tmp_path)
        (tmp_path / "core" / "node.log").write_text("starting\nerror: cannot listen on 127.0.0.1:8199\n")
        with pytest.raises(
            Unavailable, match=r"node core has ended .*\n(.*\n)*error: cannot listen on 127\.0\.0\.1:8199"
        ):
            standing.wait_alive()


class TestDown:
    @pytest.mark.parametrize("pid_file", ["", "{", "7", {"pid": 1}, {"pid": "x", "birth": "y"}])
    def test_nobody_is_ended_by_a_file_that_says_nothing(self, tmp_path: Path, pid_file: object) -> None:
        assert planned(tmp_path, pid_file).standing()[0].pid == 0

    def test_a_process_with_the_number_of_ours_but_another_birth_is_left_alone(self, tmp_path: Path) -> None:
        with subprocess.Popen(SLEEP) as stranger:
            with planned(tmp_path, {"pid": stranger.pid, "birth": "long ago"}) as standing:
                assert standing.down() == {"core": "did not run"}
            assert stranger.poll() is None
            stranger.kill()

    def test_ours_is_stopped(self, tmp_path: Path) -> None:
        with subprocess.Popen(SLEEP) as ours:
            with planned(tmp_path, {"pid": ours.pid, "birth": birth_of(ours.pid)}) as standing:
                assert standing.down() == {"core": "stopped"}
            assert not (tmp_path / "core" / "node.pid").exists()

    def test_a_purge_takes_what_up_has_made_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with planned(tmp_path) as standing:
            (tmp_path / "core" / "offgrid.toml").touch()
            standing.purge()
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
    def test_a_folder_that_is_no_nodes_or_lies_elsewhere_is_left(self, tmp_path: Path) -> None:
        mesh, attic = tmp_path / "mesh", tmp_path / "attic"
        mesh.mkdir(), attic.mkdir()
        (attic / "offgrid.toml").touch()
        with planned(mesh) as standing:
            (mesh / "core" / "thesis.txt").write_text("mine")
            standing.purge()
        assert (mesh / "core" / "thesis.txt").exists()
        (mesh / "core" / "thesis.txt").unlink()
        (mesh / "core").rmdir()
        (mesh / "core").symlink_to(attic)
        (mesh / "mesh.json").write_text(json.dumps(PLAN))
        with StandingMesh(mesh) as standing:
            standing.purge()
        assert (attic / "offgrid.toml").exists()

    def test_nothing_is_purged_under_a_node_that_runs(self, tmp_path: Path) -> None:
        with subprocess.Popen(SLEEP) as ours:
            running = planned(tmp_path, {"pid": ours.pid, "birth": birth_of(ours.pid)})
            with running as standing, pytest.raises(FailedPrecondition, match="core still runs"):
                standing.purge()
            assert (tmp_path / "core").is_dir()
            ours.kill()


def test_where_to_talk_to_it_is_said_in_full_from_another_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os.path, "relpath", lambda path: ntpath.relpath("D:\\mesh", "C:\\"))
    mesh_commands._show(planned(tmp_path))
    assert f"offgrid --node-dir {tmp_path / 'core'} status" in capsys.readouterr().out
