"""What containers are started by: a mesh that founds itself and is joined, at the first start and at the next one; and
that the compose file, the Dockerfile and the script name the same things."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from live import BIN

TERMINATED = 128 + signal.SIGTERM  # before the node, or its handling of signals, was there
DOCKER = Path(__file__).resolve().parents[2] / "docker"
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform == "win32", reason="containers are Linux")]


@contextmanager
def started(folder: Path, invites: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "NODE_DIR": str(folder),
        "INVITES": str(invites),
        "PATIENCE_S": "60",
        "OFFGRID_MESH__LISTEN": "127.0.0.1:0",
        "OFFGRID_MESH__DOOR": "127.0.0.1:0",
        "OFFGRID_MESH__MDNS": "false",
        "OFFGRID_GATEWAY__LISTEN": "off",
    }
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        process = subprocess.Popen([str(DOCKER / "start.sh"), *words], env=environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert code in (0, TERMINATED), (folder.parent / f"{folder.name}.log").read_text()


def peers(folder: Path, count: int) -> bool:
    """Whether that many live, as soon as it is so."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        said = subprocess.run(
            [str(BIN / "offgrid"), "--node-dir", str(folder), "status"], capture_output=True, text=True, check=False
        )
        if re.search(rf"peers +{count} of {count} alive", said.stdout):
            return True
        time.sleep(0.3)
    return False


def test_a_mesh_founds_itself_is_joined_and_comes_back(tmp_path: Path) -> None:
    invites, founder, barn = tmp_path / "invites", tmp_path / "founder", tmp_path / "barn"
    invites.mkdir()
    with started(founder, invites, "found", "home", "barn"), started(barn, invites, "join", "barn"):
        assert peers(barn, 2), (tmp_path / "barn.log").read_text()
    with started(founder, invites, "found", "home", "barn"):
        time.sleep(0.5)  # it is ended in the middle of its start
    assert (tmp_path / "founder.log").read_text().count("founded") == 1
    assert [path.name for path in invites.iterdir()] == ["barn"]


def test_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([str(DOCKER / "start.sh"), "dance"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: offgrid-start found" in done.stderr) == (2, True)


def test_compose_has_five_nodes_and_an_invite_for_each_that_joins() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    assert len(services) == 5
    command, *words = services["founder"]["entrypoint"]
    joining = {name: service["entrypoint"] for name, service in services.items() if name != "founder"}
    assert joining == {name: [command, "join", name] for name in words[2:]}
    for name, service in services.items():
        assert service["volumes"] == [f"{name}:/data", "invites:/invites"]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert {*compose["volumes"]} == {*services, "invites"}
    assert services["founder"]["ports"] == ["127.0.0.1:8001:8001"], "the page is for this machine alone"
    assert services["founder"]["environment"]["OFFGRID_GATEWAY__TOKEN"].startswith("${OFFGRID_TOKEN:?")


def test_the_image_is_made_of_what_is_there_and_runs_as_nobody_special() -> None:
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    steps = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    copied = [word for step in steps if step[0] == "COPY" for word in step[1:-1] if not word.startswith("--")]
    ignored: Sequence[str] = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    for path in copied:
        assert (DOCKER.parent / path).exists(), path
        assert f"!{path.partition('/')[0]}" in ignored, path
    last = max(number for number, step in enumerate(steps) if step[0] == "FROM")
    assert ["USER", "offgrid"] in steps[last:]
    assert any(step[0] == "HEALTHCHECK" for step in steps[last:])
    assert "offgrid-start" in " ".join(" ".join(step) for step in steps[last:])
