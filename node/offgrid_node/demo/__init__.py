"""`offgrid-node demo`: everything at work on this machine, in one command and under a minute.

One core, one broker and three hosts, each a process of its own. Jobs count a real text and are paid; the host that won
one is killed (kill -9) in the middle and another finishes it; a large result is read back from other machines after the
host that made it was killed. Then the demo says where everything went and stops. `story.py` tells it. With `--storage`
`kept.py` tells of a folder that is kept while hosts die. `show.py` prints.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from offgrid.client import OffgridError
from offgrid_node.demo.kept import SETTINGS, Kept, files_of, made_folder, nodes_of
from offgrid_node.demo.show import Show
from offgrid_node.demo.story import Story
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.own_processes import TERMINATED
from offgrid_node.protocol.errors import InvalidRequest, Unavailable
from offgrid_node.protocol.jobs.needs import INPUT_BYTES_MAX

NODES = {"core": ["core"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
PRICE_MICRO = 50_000_000  # of a million tokens: the text costs a fraction of a credit, which shows


def demonstrate(file: Path | None, *, keep: bool, folder: Path | None) -> int:
    """Returns the exit code: 0 when everything went as it should. Raises a Fault for a file that cannot be used."""
    name, text = read_input(file)
    prices = {"host__price_micro": PRICE_MICRO, "jobs__price_max_micro": PRICE_MICRO}
    return _shown(NODES, prices, lambda mesh, show: Story(mesh, show).tell(name, text), keep=keep, folder=folder)


def demonstrate_storage(given: Path | None, hosts: int, *, keep: bool, folder: Path | None) -> int:
    """As `demonstrate`; `given` is the folder to put."""
    if given is not None:
        files_of(given)  # before anything starts

    def tell(mesh: LocalMesh, show: Show) -> bool:
        put = given or made_folder(mesh.founder.folder.parent / "folder", read_input(None)[1])
        return Kept(mesh, show).tell(put)

    return _shown(nodes_of(hosts), SETTINGS, tell, keep=keep, folder=folder)


def _shown(
    nodes: Mapping[str, Sequence[str]],
    settings: Mapping[str, object],
    tell: Callable[[LocalMesh, Show], bool],
    *,
    keep: bool,
    folder: Path | None,
) -> int:
    """A mesh of these nodes, what there is to tell of it, and its end."""
    home = folder or Path(tempfile.mkdtemp(prefix="offgrid-demo-"))
    show = Show()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # through the `with`: nodes are stopped first
    well = False
    try:
        with LocalMesh(home, "demo", nodes, **settings) as mesh:
            try:
                well = tell(mesh, show)
            except (Unavailable, OffgridError, TimeoutError) as error:
                show.line(str(error))
            if keep and well:
                folder = None
                _keep(mesh, show, home)
                return 0
            well = _stopped(mesh, show) and well
    finally:
        if not well or folder is not None:
            show.line(f"everything is in {home}")
        elif not keep:
            shutil.rmtree(home, ignore_errors=True)
    show.line("done." if well else "the demo did NOT go as it should; the nodes' logs say why.")
    return 0 if well else 1


def read_input(file: Path | None) -> tuple[str, bytes]:
    """Name and content of the file, or of the text that ships with the node."""
    if file is None:
        return "demo_text.txt", (resources.files("offgrid_node") / "demo_text.txt").read_bytes()
    try:
        with file.open("rb") as source:
            text = source.read(INPUT_BYTES_MAX + 1)  # a device or pipe does not say how much it holds
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error
    if len(text) > INPUT_BYTES_MAX:
        raise InvalidRequest(f"{file}: too large; a job's input may have {INPUT_BYTES_MAX} bytes")
    return file.name, text


def _stopped(mesh: LocalMesh, show: Show) -> bool:
    with show.step("stopping the nodes"):
        codes = mesh.stop()
    late = [node for node, code in codes.items() if code is None]
    if late:
        show.line(f"had to be killed: {', '.join(late)}")
    return not late


def _keep(mesh: LocalMesh, show: Show, home: Path) -> None:
    """Leaves the mesh running, with lines to copy."""
    core = mesh.founder
    pids = [str(node.process.pid) for node in mesh.nodes.values() if node.process is not None and node.alive]
    socket = core.socket.removeprefix("unix:")
    show.title("the mesh stays up; try")
    for line in (
        f"offgrid --socket {socket} status",
        f"offgrid --socket {socket} peers",
        f"offgrid --socket {socket} job list",
        f"offgrid --socket {socket} ls",
        f"offgrid --socket {socket} balance --all",
        f"grpcurl -plaintext -unix {socket} list",
        f"grpcurl -plaintext -unix {socket} offgrid.v1.JobService/ListJobs",
    ):
        show.line(f"    {line}")
    show.line(f"everything is in {home}")
    show.line(f"stop it with: kill {' '.join(pids)}")
    for node in mesh.nodes.values():
        node.process = None  # theirs now: leaving the `with` block must not stop them
