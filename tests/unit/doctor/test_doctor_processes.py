"""How the doctor calls another's process: by its program, since what it was given may be a password. And how a node
is started anew that systemd runs."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from offgrid_node.doctor import restarting
from offgrid_node.doctor.ports import why_not
from offgrid_node.doctor.processes import program_of
from offgrid_node.doctor.subject import Subject, holder_of_store
from offgrid_node.storage.disk import LOCK_FILE, PID_FILE, FolderOwner

CALLED = {
    "mysqld": ("/usr/sbin/mysqld", "--password", "hunter2"),
    "nginx": ("nginx: master process /usr/sbin/nginx -g secret",),
    "serve.py": ("/usr/bin/python3", "/srv/serve.py", "--token", "x"),
    "python3.11 -m http.server": ("python3.11", "-m", "http.server", "8001"),
    "python3": ("python3", "-c", "password = 1"),
    "python3.12": ("python3.12", "-P", "-m", "x"),
}


@pytest.mark.parametrize("name", CALLED)
def test_a_process_is_called_by_its_program_alone(name: str) -> None:
    assert program_of(CALLED[name]) == name


OF_SYSTEM = "0::/system.slice/offgrid-node.service"
OF_USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/offgrid-node.service"
RESTARTS = {
    "the system's, to its user": (OF_SYSTEM, 1000, "sudo systemctl restart offgrid-node.service"),
    "the system's, to root": (OF_SYSTEM, 0, "systemctl restart offgrid-node.service"),
    "of old control groups": (f"5:cpu:/\n1:name=systemd:{OF_SYSTEM[3:]}", 0, "systemctl restart offgrid-node.service"),
    "a user's, to itself": (OF_USER, 1000, "systemctl --user restart offgrid-node.service"),
    "a user's, to root": (
        OF_USER,
        0,
        "sudo -u '#1000' XDG_RUNTIME_DIR=/run/user/1000 systemctl --user restart offgrid-node.service",
    ),
    "nobody's": ("0::/user.slice/user-1000.slice/session-3.scope", 1000, "kill 77; while "),
    "another program's": ("0::/system.slice/ssh.service", 1000, "kill 77; while "),
}


@pytest.mark.skipif(sys.platform == "win32", reason="systemd is Linux'")
@pytest.mark.parametrize(("cgroup", "uid", "said"), RESTARTS.values(), ids=RESTARTS)
def test_a_unit_is_restarted_by_the_manager_that_has_it(
    cgroup: str, uid: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "cgroup").write_text(f"{cgroup}\n")
    monkeypatch.setattr(restarting, "PROC", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    subject = Subject(tmp_path / "attic")
    subject.__dict__["pid"] = 77
    assert restarting.restarted(subject).startswith(said)


def test_a_node_takes_its_folder_while_the_doctor_looks_whether_anybody_has(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(f"{os.getpid()}\n")
    looking = FileLock(tmp_path / LOCK_FILE, timeout=0, thread_local=False)
    looking.acquire()
    threading.Timer(0.03, looking.release).start()
    owner = FolderOwner(tmp_path)
    assert holder_of_store(tmp_path) == os.getpid()
    owner.release()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two may not bind at once")
def test_a_node_gets_its_ports_while_the_doctor_looks_whether_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
        assert why_not(*address) is not None
    begun = list[bool]()

    class Probe(socket.socket):
        def __exit__(self, *why: object) -> None:
            socket.create_server(address).close()  # a node that starts just then
            begun.append(True)
            super().__exit__(*why)

    monkeypatch.setattr(socket, "socket", Probe)
    assert why_not(*address) is None
    assert begun
