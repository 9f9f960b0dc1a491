"""Which documents are walked, and on which stage: `plain` ones by the tests, all by `soak docs`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random

from offgrid.client import connect
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_tools.walks.checking import WalkFailed
from offgrid_tools.walks.stage import Machine, Stage, module
from offgrid_tools.walks.walking import COMMAND_S, Say, Walk

PLAIN = {"README.md": ("attic", "barn"), "docs/guide/first-mesh.md": ("attic", "barn")}
"""Pages that begin with nothing, and the machines that they speak of."""
HOME = ("attic", "barn", "cellar", "shed", "loft", "mill")
AT_HOME = (*(f"docs/guide/{name}.md" for name in (
               "jobs", "backup-box", "home-lab", "llm-farm", "ai-agents", "sessions", "mail", "money", "programs",
               "from-the-prototype")),
           "docs/client.md", "docs/cli.md", "docs/doctor.md", "docs/guide/community-network.md")  # fmt: skip
"""Pages on a mesh that is there, in an order in which each may follow the one before; the last removes a member."""
GATEWAYS = {"127.0.0.1:8001": "attic", "127.0.0.1:9000": "barn"}
WITH_GATEWAY: Mapping[str, Mapping[str, object]] = {
    "attic": {},
    "barn": {"gateway.auth_key": "a secret that all share"},
}
LOST_DISK, LOST = "docs/guide/lost-disk.md", ("attic", "barn", "cellar", "spare", "paper")
OPERATIONS, OPERATED = "docs/operations.md", ("attic", "barn", "cellar", "spare")
AS_SET_UP: Mapping[str, object] = {"storage__journal_interval_ms": 2_000}  # which other local meshes have off
RADIO, RADIOED = ("docs/guide/radio-mesh.md", "docs/links.md"), ("hut", "mill")
DEMOS = "docs/guide/demos.md"
WALKED = (*PLAIN, *AT_HOME, LOST_DISK, OPERATIONS, *RADIO, DEMOS)
BY_TESTS = {
    "docs/api.md": "tests/e2e/test_gateway_live.py",
    "docs/http.md": "tests/e2e/test_old_paths.py",
    "docs/example-transport/README.md": "tests/unit/transports/test_example_transport.py",
}
"""Pages whose commands a test of their own types."""
REPORT = b"The mill turns while the wind is fair.\n"
LARGE_BYTES = 12_000_000


def machines_of(name: str) -> frozenset[str]:
    """The machines that a page may name."""
    more = {LOST_DISK: LOST, OPERATIONS: OPERATED, **dict.fromkeys(RADIO, RADIOED)}
    return frozenset(PLAIN.get(name) or more.get(name, HOME))


def walk_plain(name: str, folder: Path, say: Say, *, soak: bool) -> int:
    """A page that begins with nothing. Raises WalkFailed."""
    with Stage(folder) as stage:
        for machine in PLAIN[name]:
            stage.add_bare(machine)
        stage.give(stage.first, {"report.txt": REPORT, "textstats.wat": module("textstats")})
        return Walk(name, stage, say, soak=soak).go()


def walk_lost_disk(folder: Path, say: Say) -> int:
    """Machines that are lost, and come back on others."""
    with Stage(folder) as stage:
        for name in LOST:
            stage.add_bare(name, {"192.168.1.20:7440": lambda: _address(stage.machines["barn"])}, **AS_SET_UP)
        return Walk(LOST_DISK, stage, say, soak=True).go()


def walk_operations(folder: Path, say: Say) -> int:
    """Three machines that are one mesh already, and a fourth to come back on."""
    with Stage(folder) as stage:
        for name in OPERATED:
            stage.add_bare(name, None, **AS_SET_UP)
        first = stage.first
        stage.run(first, "offgrid-node init --mesh home", COMMAND_S)
        stage.leave_running(first, "offgrid-node run")
        for name in OPERATED[1:-1]:
            token = json.loads(stage.run(first, "offgrid --json mesh invite", COMMAND_S))["token"]
            stage.leave_running(stage.machines[name], f"offgrid-node join {token}")
        return Walk(OPERATIONS, stage, say, soak=True).go()


def _address(machine: Machine) -> str:
    """Where members reach its node."""
    with connect(str(machine.folder)) as client:
        return next(peer.addresses[0] for peer in client.mesh.peers() if peer.self)


def walk_demos(folder: Path, say: Say) -> int:
    with Stage(folder) as stage:
        stage.add_bare("attic")
        return Walk(DEMOS, stage, say, soak=True).go()


def walk_radio(folder: Path, say: Say) -> Iterator[tuple[str, Callable[[], int]]]:
    """Two machines and a LoRa channel between them; no IP leads from one to the other."""
    with Stage(folder) as stage, _modems(folder) as ports:
        for name, port in zip(RADIOED, ports, strict=True):
            away = {"mesh__advertise": ["192.0.2.1:7440"], "mesh__door": ""}
            stage.add_bare(name, {"/dev/ttyUSB0": port}, **away)
        for name in RADIO:
            yield name, Walk(name, stage, say, soak=True).go


@contextmanager
def at_home(folder: Path) -> Iterator[Callable[[str, Say], int]]:
    """A mesh of six, with files, programs and a language model; walks pages of AT_HOME."""
    with ExitStack() as stack:
        model = _free_port()
        nodes = {name: ["core", "broker", "host"] for name in HOME}
        settings = {
            "host__process__commands": {"wc": "/usr/bin/wc"},
            "host__python__enabled": True,
            "host__llm__endpoint": f"http://127.0.0.1:{model}/v1",
            "mail__jobs_from": ["attic"],
        }
        mesh = stack.enter_context(LocalMesh(folder / "mesh", "home", nodes, **settings))
        for name, more in WITH_GATEWAY.items():
            mesh[name].settings = {**mesh[name].settings, "gateway.listen": "127.0.0.1:0", **more}
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(len(HOME))
        stage = stack.enter_context(Stage(folder / "stage"))
        means = {"11434": str(model)} | {place: _gateway(mesh[name]) for place, name in GATEWAYS.items()}
        for name in HOME:
            stage.add_running(name, mesh[name].folder, means)
        photos = {"photos/a.txt": REPORT, "photos/2024/big.jpg": Random(1).randbytes(LARGE_BYTES)}  # noqa: S311 - no secret
        stage.give(
            stage.first,
            {
                "report.txt": REPORT,
                "notes.txt": REPORT,
                "upper.wat": module("upper"),
                "textstats.wat": module("textstats"),
                **photos,
            },
        )
        yield lambda name, say: Walk(name, stage, say, soak=True).go()


def _gateway(node: LocalNode) -> str:
    """Where its gateway listens, host:port."""
    with node.client() as client:
        return client.mesh.status().gateway.removeprefix("http://")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _modems(folder: Path) -> Iterator[tuple[str, str]]:
    """Two emulated RNodes on one channel."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = (str(folder / "radio-hut"), str(folder / "radio-mill"))
    command = [sys.executable, "-m", "offgrid_tools.emulators", "lora", "rnode", *ports]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline().split()[:1] != ["ready"]:
                raise RuntimeError("the emulated radios did not start")
            yield ports
        finally:
            process.kill()


def soak_docs(rounds: int, say: Say) -> list[str]:
    """Every page, `rounds` times; what was not as a page says."""
    found: list[str] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="offgrid-docs-") as folder:
            found += _every_page(Path(folder), say)
    return found


def _every_page(folder: Path, say: Say) -> list[str]:
    found: list[str] = []

    def walked(name: str, walk: Callable[[], int]) -> None:
        try:
            say(f"{name}: {walk()} commands")
        except WalkFailed as failed:
            found.append(str(failed))

    for name in PLAIN:
        walked(name, partial(walk_plain, name, folder / Path(name).stem, say, soak=True))
    with at_home(folder / "home") as walk:
        for name in AT_HOME:
            walked(name, partial(walk, name, say))
    walked(LOST_DISK, partial(walk_lost_disk, folder / "lost", say))
    walked(OPERATIONS, partial(walk_operations, folder / "operations", say))
    for name, go in walk_radio(folder / "radio", say):
        walked(name, go)
    walked(DEMOS, partial(walk_demos, folder / "demos", say))
    return found
