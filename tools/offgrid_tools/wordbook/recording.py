"""Records what meshes of real nodes say: those of the demo, and one whose owner has many small things to do."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from offgrid.client import payloads
from offgrid_node.demo import NODES, PRICE_MICRO, read_input
from offgrid_node.demo.kept import SETTINGS, Kept, made_folder, nodes_of
from offgrid_node.demo.show import Show
from offgrid_node.demo.story import Story
from offgrid_node.local_mesh import LocalMesh

KEEPING_HOSTS = 6
BUSY = {"core": ["core", "broker"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
ROUNDS = 20
REST_S = 0.5


def record(folder: Path, meshes: int) -> None:
    """So many meshes of each kind, each with keys of its own, one folder each."""
    prices = {"host__price_micro": PRICE_MICRO, "jobs__price_max_micro": PRICE_MICRO}
    name, text = read_input(None)

    def story(mesh: LocalMesh, show: Show) -> bool:
        return Story(mesh, show).tell(name, text)

    def kept(mesh: LocalMesh, show: Show) -> bool:
        return Kept(mesh, show).tell(made_folder(mesh.founder.folder.parent / "folder", text))

    for number in range(1, meshes + 1):
        _record(folder / f"jobs-{number}", NODES, prices, story)
        _record(folder / f"kept-{number}", nodes_of(KEEPING_HOSTS), SETTINGS, kept)
        _record(folder / f"busy-{number}", BUSY, prices, _busy)


def _busy(mesh: LocalMesh, show: Show) -> bool:
    """A job, a payment and a note to keep, again and again, with time between: what a slow link is used for."""
    mesh.start()
    mesh.wait_alive()
    mesh.wait_offers(3)
    hosts = [node for node in mesh.nodes.values() if "host" in node.roles]
    with mesh.founder.client() as core:
        core.ledger.open()
        task_id = core.tasks.create(core.missions.create("watch the weather").mission_id, "read", "compute").task_id
        for number in range(ROUNDS):
            show.line(f"round {number}")
            core.jobs.run(payloads.builtin(input=b"reading %d" % number), task_id=task_id)
            core.ledger.transfer(hosts[number % len(hosts)].node_id, 1_000 * (number + 1), meta={"action": "read_file"})
            core.objects.put(b"%d degrees\n" % number, name=f"note {number}")
            time.sleep(REST_S)
    return True


def _record(
    folder: Path,
    nodes: Mapping[str, Sequence[str]],
    settings: Mapping[str, object],
    tell: Callable[[LocalMesh, Show], bool],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="offgrid-words-") as home,
        LocalMesh(Path(home), "words", nodes, **settings) as mesh,
    ):
        for node in mesh.nodes.values():
            node.runner = (sys.executable, "-m", "offgrid_tools.wordbook.tapped", str(folder))
        tell(mesh, Show())
