"""What the doctor says of running nodes: nothing of healthy ones, and of each thing that is made wrong exactly that."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, eventually, log_of, offgrid, promised

from offgrid import qr_code
from offgrid.client import payloads
from offgrid_node.doctor import DEADLINE_S, Finding, State, diagnose
from offgrid_node.local_mesh import LOG_NAME, LocalMesh, LocalNode

AHEAD = """import time
import offgrid_node
offgrid_node.__version__ = "9.9.9"
ns, s = time.time_ns, time.time
time.time_ns, time.time = lambda: ns() + 3 * 3600 * 10**9, lambda: s() + 3 * 3600
"""


def wrong(node: LocalNode, deadline_s: float = GIVE_UP_S) -> dict[str, Finding]:
    """Everything that is not as it should be, by check, but for figures of a machine that is busy with other tests."""
    found = [each for each in diagnose(node.folder, deadline_s=deadline_s) if each.check not in ("alerts", "memory")]
    return {each.check: each for each in found if each.state in (State.FAULT, State.WARNING)}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A core, a broker and a host, healthy; each test leaves them so but the last, which kills the broker."""
    roles = {"core": ["core"], "broker": ["broker"], "host": ["host"]}
    with LocalMesh(tmp_path_factory.mktemp("d"), "t", roles) as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(1)
        yield mesh
        mesh.stop()
        assert all(log_of(node) for node in mesh.nodes.values())


def test_healthy_nodes_have_no_findings(town: LocalMesh) -> None:
    for node in town.nodes.values():
        eventually(lambda node=node: wrong(node) == {}, f"{node.name} has heard all of the others")


def test_the_operators_command_says_so_too_and_ends_with_0(town: LocalMesh) -> None:
    done = offgrid(town["core"], "doctor")
    assert done.code == 0, done.said
    assert "0 faults, " in done.out, done.said


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal is a pty")
def test_an_invite_is_a_qr_code_on_a_terminal_and_a_picture_for_its_owner_alone(
    town: LocalMesh, tmp_path: Path
) -> None:
    picture = tmp_path / "invite.svg"
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    argv = [BIN / "offgrid", "--node-dir", town["core"].folder, "mesh", "invite", "--qr", picture]
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL) as command:
        os.close(slave)
        said = bytearray()
        with suppress(OSError):  # how a terminal ends whose last writer has gone
            while piece := os.read(master, 4096):
                said += piece
    os.close(master)
    assert command.returncode == 0
    token, *code = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).split()
    assert token.startswith("og1:")
    assert "".join(code) == "".join("".join(qr_code.lines(token)).split())
    assert picture.read_bytes() == qr_code.svg(token)
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    plain = offgrid(town["core"], "mesh", "invite")
    assert plain.out.count("\n") == 1  # for scripts: the token alone


def test_a_job_that_no_host_can_do_and_objects_that_wait_for_hosts(town: LocalMesh) -> None:
    core = town["core"]
    with core.client() as client:
        job = client.jobs.submit(payloads.command("no-such-program", []), mode="offgrid")
        stored = client.objects.put(b"x" * 100, name="precious", required_milli=2_000, wait_s=0)
        eventually(lambda: set(wrong(core)) == {"jobs", "outbox"}, "both have waited for long enough")
        found = wrong(core)
        assert job.job_id in found["jobs"].sentence
        assert "does not offer process:no-such-program" in found["jobs"].sentence
        assert found["jobs"].command.endswith(f"job why {job.job_id}")
        assert "1 objects wait for hosts" in found["outbox"].sentence
        assert found["outbox"].command.endswith("outbox --open")
        client.jobs.cancel([job.job_id])
        client.objects.delete(stored.object_id)
    eventually(lambda: wrong(core) == {}, "both are gone")


def test_a_copy_of_a_nodes_folder_that_runs_elsewhere(town: LocalMesh, tmp_path: Path) -> None:
    host = town["host"]
    copy = LocalNode("copy", ("host",), tmp_path / "copy")
    shutil.copytree(host.folder, copy.folder, ignore=shutil.ignore_patterns(LOG_NAME, "*.sock*", "owner.*"))
    with host.client() as client:
        [address] = [peer.addresses[0] for peer in client.mesh.peers() if peer.self]
    (copy.folder / ".env").write_text(f"OFFGRID_MESH__PEERS={address}\n")
    (copy.folder / ".env").chmod(0o600)
    try:
        copy.run("run")
        copy.wait_ready()
        found = eventually(lambda: wrong(copy).get("identity"), "it is known where the other one is")
        assert "another process is this very node" in found.sentence
        assert found.command == "offgrid-node join TOKEN --dir ANOTHER-FOLDER"
        with copy.client() as client:
            assert f"another process is this very node, at {address}" in "\n".join(client.mesh.status().notices)
    finally:
        copy.stop()


def test_a_process_that_hangs_is_waited_for_no_longer_than_promised(town: LocalMesh) -> None:
    host = town["host"]
    assert host.process is not None
    host.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        found = wrong(host, DEADLINE_S)
        took_s = time.monotonic() - began
    finally:
        host.process.send_signal(signal.SIGCONT)
    assert set(found) == {"process"}
    assert f"process {host.process.pid} is the node, and somebody has stopped it" in found["process"].sentence
    assert found["process"].command == f"kill -CONT {host.process.pid}"
    assert took_s < promised(DEADLINE_S + 1.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_an_owners_socket_that_was_deleted_while_the_node_runs(town: LocalMesh) -> None:
    host, socket = town["host"], town["host"].folder / "data" / "offgrid.sock"
    assert host.process is not None
    socket.rename(socket.with_name("moved"))
    try:
        found = wrong(host)
    finally:
        socket.with_name("moved").rename(socket)
    assert set(found) == {"socket"}
    assert f"process {host.process.pid} is the node, and its owner's socket" in found["socket"].sentence
    assert f"kill {host.process.pid}" in found["socket"].command


def test_a_machine_whose_clock_is_three_hours_ahead_and_then_one_that_was_removed(
    town: LocalMesh, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AHEAD)
    core, late = town["core"], town.join("late", ["host"])
    late.terminate()
    late.wait_stopped()
    path = os.pathsep.join([str(tmp_path), *sys.path])
    late.runner = ("env", f"PYTHONPATH={path}")
    late.run("run")
    late.wait_ready()
    found = eventually(lambda: wrong(core).get("clocks"), "the members have met")
    assert "the clock of late is 3 h ahead of this machine's" in found.sentence
    assert "timedatectl" in found.command
    other = wrong(core)["versions"]
    assert other.state is State.WARNING
    assert "members run other versions than this node's" in other.sentence
    assert "late 9.9.9" in other.sentence
    here = eventually(lambda: wrong(late).get("clocks"), "the members have met")
    assert "this machine's clock is 3 h ahead of the members'" in here.sentence
    assert offgrid(core, "mesh", "remove", "--yes", "late").code == 0
    eventually(lambda: "membership" in wrong(late), "it has heard of it")
    gone = wrong(late)["membership"]
    assert gone.state is State.FAULT
    assert gone.command == "offgrid-node join TOKEN --dir ANOTHER-FOLDER"
    assert wrong(core) == {}
    late.stop()


def test_a_broker_that_died(town: LocalMesh) -> None:
    town["broker"].terminate()
    town["broker"].wait_stopped()
    found = eventually(lambda: wrong(town["core"]), "it is missed")
    assert set(found) == {"broker", "members"}
    assert "no broker is in reach: broker" in found["broker"].sentence
    assert "nobody listens there" in found["members"].sentence
    assert set(wrong(town["broker"])) == {"process"}
