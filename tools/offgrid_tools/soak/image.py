"""The image of docker/ built, and the five nodes of compose.yaml run from it, by buildah and podman-compose.

Held is: five members see each other; jobs, objects, quorums and events do well (`offgrid smoke`); an object outlives
containers that are killed, and everything outlives `down` and `up`; a node is not root and writes to its volumes alone.
The nodes are in a network namespace of their own, so that no port of this machine is taken.
PYTHON_IMAGE names another base than the Dockerfile's, where no registry is reached; BUILDAH_ISOLATION, CONTAINERS_CONF
and CONTAINERS_STORAGE_CONF are buildah's and podman's own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.namespaces import LACKING, namespaces

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("buildah", "podman", "podman-compose", "nsenter")
IMAGE = "localhost/offgrid-node"  # as compose.yaml calls it
JOINED_MAX_S = 180.0
BYTES = 3_000_000


def soak_image(rounds: int, say: Callable[[str], None]) -> list[str]:
    """What was violated; nothing where no image can be built, which is said."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking := LACKING or (f"needs {', '.join(missing)}" if missing else ""):
        say(f"image: not tried, {lacking}")
        return []
    try:
        _build(say)
        for _ in range(rounds):
            with namespaces("containers") as (space,):
                if broken := _Mesh(space, say).run():
                    return broken
    except Unavailable as fault:
        say(f"image: not tried, {fault.message}")
    return []


def _build(say: Callable[[str], None]) -> None:
    """Raises Unavailable where the base image or a package is not to be had."""
    began = time.monotonic()
    base = os.environ.get("PYTHON_IMAGE")
    command = ["buildah", "bud", "--format", "docker", "--ignorefile", "docker/Dockerfile.dockerignore", "-t", IMAGE]
    command += ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    done = _run([*command, "-f", "docker/Dockerfile", "."], 1800, {})
    if done.returncode:
        raise Unavailable(f"the image cannot be built: {done.stdout[-1500:]}", reason="NoImage")
    say(f"  built in {time.monotonic() - began:.0f} s")


class _Mesh:
    def __init__(self, space: str, say: Callable[[str], None]) -> None:
        self._say = say
        self._variables = {"OFFGRID_TOKEN": secrets.token_urlsafe()}
        self._enter = ["nsenter", f"--net=/run/netns/{space}"]
        compose = str(ROOT / "docker" / "compose.yaml")
        self._compose = [*self._enter, "podman-compose", "-p", f"soak{os.getpid()}", "-f", compose]

    def run(self) -> list[str]:
        try:
            return self._held()
        except (AssertionError, ValueError, subprocess.TimeoutExpired) as error:
            return [f"image: {error}"]
        finally:
            self._do("down", "-v", "-t", "20")

    def _held(self) -> list[str]:
        self._up("began")
        self._sees("id -u", lambda said: said.strip() == "10001", "a node runs as another user than 10001")
        self._sees("touch /x /usr/x; echo $?", lambda said: said.strip().endswith("1"), "the root can be written to")
        self._sees("offgrid smoke", lambda said: " 0 failed" in said, "smoke found a fault")
        digest = self._in(
            "founder", f"head -c {BYTES} /dev/urandom > /tmp/f && offgrid put /tmp/f && sha256sum < /tmp/f"
        )
        digest = digest.split()[-2]
        listed = json.loads(self._in("founder", "offgrid --json ls"))["objects"]
        name = next(each["object_id"] for each in listed)
        self._in("founder", f"offgrid share {name} barn")
        self._do("kill", "attic")
        self._do("kill", "founder")
        fetched = f"offgrid get {name} -o /tmp/back >&2 && sha256sum < /tmp/back"
        assert digest in self._in("barn", fetched), "an object did not outlive two containers"
        self._do("down", "-t", "20")
        self._up("came back")
        assert digest in self._in("founder", fetched), "an object did not outlive down and up"
        return []

    def _up(self, how: str) -> None:
        """Until each sees the four others."""
        began = time.monotonic()
        done = self._do("up", "-d", "--no-build")
        assert done.returncode == 0, f"compose up: {done.stdout[-1000:]}"
        while time.monotonic() - began < JOINED_MAX_S:
            said = [self._do("exec", "-T", name, "offgrid", "status").stdout for name in ("founder", "shed")]
            if all("5 of 5 alive" in each for each in said):
                self._say(f"  five nodes {how} in {time.monotonic() - began:.0f} s")
                return
            time.sleep(1)
        raise AssertionError(f"the five do not see each other after {JOINED_MAX_S:.0f} s: {said}")

    def _sees(self, command: str, right: Callable[[str], bool], wrong: str) -> None:
        said = self._in("founder", command)
        assert right(said), f"{wrong}: {said[-1000:]}"

    def _in(self, service: str, command: str) -> str:
        """What it says on standard output in that container."""
        return self._do("exec", "-T", service, "sh", "-c", command, apart=True).stdout

    def _do(self, *words: str, apart: bool = False) -> subprocess.CompletedProcess[str]:
        return _run([*self._compose, *words], 300, self._variables, apart=apart)


def _run(
    command: Sequence[str], timeout_s: float, variables: Mapping[str, str], *, apart: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if apart else subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        env={**os.environ, **variables},
    )
