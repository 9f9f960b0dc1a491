"""A mesh on this machine that stands while nobody looks: `offgrid-node up`, `down` and `restart`.

One folder holds it. `mesh.json` there says which nodes belong to it and where each listens; each node has a folder of
its own, and in it `node.pid` names its process, by number and birth. Every step may be broken off and done again: what
is there already stays as it is, and only a process that is surely ours is ever ended.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from offgrid.client import OffgridError
from offgrid_node.config import CONFIG_NAME
from offgrid_node.folder import MESH_PLAN
from offgrid_node.local_mesh import READY_TIMEOUT_S, STOP_TIMEOUT_S, LocalNode
from offgrid_node.own_processes import ask_to_end, birth_of, kill, uninterrupted, wait_gone
from offgrid_node.protocol.errors import FailedPrecondition, NotFound, Unavailable
from offgrid_node.protocol.ids import NAME
from offgrid_node.standing_ports import HOST, free_port, is_free, moved, tell

LOCK_NAME, PID_NAME = "mesh.lock", "node.pid"
NODES_UNLESS_SAID = 5
PEEK_S, POLL_S = 1.0, 0.05

Say = Callable[[str], None]


class Planned(msgspec.Struct, frozen=True):
    """One node of the mesh as mesh.json has it."""

    name: str
    roles: tuple[str, ...]
    port: int
    door_port: int
    page_port: int = 0  # 0 in a mesh.json of before there was one: the node takes the next that is free


class Standing(msgspec.Struct, frozen=True):
    """How a node stands: its process (0: none runs), and where its page is, or why it has none ("": it is down)."""

    planned: Planned
    folder: Path
    pid: int
    page: str


def names_of(count: int) -> Mapping[str, tuple[str, ...]]:
    """The nodes of a mesh of so many, the founder first, and their roles: what one does alone, several divide."""
    if count == 1:
        return {"core": ("core", "broker", "host")}
    if count == 2:
        return {"core": ("core", "broker"), "host-a": ("host",)}
    if count == 3:  # two hosts: what a core keeps in the mesh wants that many, unless it says otherwise
        return {"core": ("core", "broker"), "host-a": ("host",), "host-b": ("host",)}
    hosts = [f"host-{chr(ord('a') + index)}" for index in range(count - 2)]
    return {"core": ("core",), "broker": ("broker",), **dict.fromkeys(hosts, ("host",))}


class StandingMesh:
    """The mesh in a folder. Use it in a `with` block: one command at a time may change it."""

    def __init__(self, folder: Path, say: Say = lambda line: None) -> None:
        self.folder, self._say = folder.absolute(), say
        self._lock: FileLock | None = None
        self.mesh, self.nodes = "", dict[str, Planned]()
        self._begun = list[LocalNode]()  # whose processes were started here
        self._read()

    def __enter__(self) -> StandingMesh:
        """Raises FailedPrecondition (MeshBusy)."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK_NAME)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            text = f"another `offgrid-node up`, `down` or `restart` is at work in {self.folder}: wait for it"
            raise FailedPrecondition(text, reason="MeshBusy") from None
        self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Broken off (Ctrl-C, SIGTERM), it ends what it has started: whoever gave up wants nothing of it to go on."""
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit) and self._begun:
            self._say(f"broken off: stopping {', '.join(node.name for node in self._begun)}")
            for node in self._begun:
                node.terminate()
            for node in self._begun:
                node.wait_stopped()
                (node.folder / PID_NAME).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    # ---- up

    def up(self, count: int | None, mesh: str, settings: Mapping[str, object]) -> None:
        """Has `count` nodes run (None: those that there are, else five); if there are more, all of them.
        `settings` are for nodes that are made now. Raises a Fault, naming the node and the end of its log."""
        outer = next((each for each in self.folder.parents if _holds_a_mesh(each)), None)
        if not self.nodes and outer is not None:
            text = f"{outer} holds a mesh, and none is made inside it: offgrid-node up --dir {shlex.quote(str(outer))}"
            raise FailedPrecondition(text, reason="InsideAMesh")
        if count and count < len(self.nodes):
            spare = shlex.join([*[*self.nodes][count:], "--dir", str(self.folder)])
            self._say(
                f"there are {len(self.nodes)} nodes here, and all start. To have {count}: offgrid-node down {spare}"
            )
        count = count or len(self.nodes) or NODES_UNLESS_SAID
        for name, roles in names_of(count).items():
            if name not in self.nodes and len(self.nodes) < count:
                self._plan(name, roles, mesh)
        self.start((), settings)

    def start(self, names: Sequence[str], settings: Mapping[str, object]) -> None:
        """Has the nodes of these names run (none: all), the founder before the others, who may have to join by it."""
        founder, *others = (each for each in self.nodes.values() if not names or each.name in names)
        self._start([founder], settings)
        self._start(others, settings)

    def _start(self, some: Sequence[Planned], settings: Mapping[str, object]) -> None:
        started = [node for planned in some if (node := self._started(planned, settings)) is not None]
        for node in started:
            node.wait_ready(READY_TIMEOUT_S)

    def _started(self, planned: Planned, settings: Mapping[str, object]) -> LocalNode | None:
        """None of a node that runs already."""
        node = self._local(planned)
        if pid := self._pid_of(planned.name):
            self._say(f"{planned.name} runs already (process {pid})")
            return None
        if (node.folder / CONFIG_NAME).exists():
            self._say(f"starting {planned.name}")
            self._move(planned, node.folder / CONFIG_NAME)
        else:
            self._make(self._placed(planned), node, settings)
        with uninterrupted():  # a process that nobody has noted would run on
            node.run("run")
            assert node.process is not None
            self._begun.append(node)
            kept = {"pid": node.process.pid, "birth": birth_of(node.process.pid)}
            _put(node.folder / PID_NAME, json.dumps(kept))
        return node

    def _make(self, planned: Planned, node: LocalNode, settings: Mapping[str, object]) -> None:
        """Founds the mesh with its first node, and has any other join it."""
        listening = {"mesh.listen": f"{HOST}:{planned.port}", "mesh.door": f"{HOST}:{planned.door_port}"}
        if planned.page_port:
            listening["gateway.listen"] = f"{HOST}:{planned.page_port}"
        values = {**listening, "mesh.mdns": False, **settings}
        first = next(iter(self.nodes.values()))
        if planned == first:
            from offgrid_node.founding import found

            self._say(f"founding mesh {self.mesh} with {planned.name} ({' '.join(planned.roles)})")
            found(node.folder, self.mesh, planned.name, planned.roles, values)
            return
        from offgrid_node.joining import join

        self._say(f"{planned.name} ({' '.join(planned.roles)}) joins")
        with self._local(first).client() as client:
            token = client.mesh.invite().token
        join(node.folder, token, planned.name, planned.roles, values, READY_TIMEOUT_S)

    def _plan(self, name: str, roles: tuple[str, ...], mesh: str) -> None:
        self.mesh = self.mesh or mesh
        self.nodes[name] = Planned(name, roles, *self._free_ports(name))
        self._write()

    def _placed(self, planned: Planned) -> Planned:
        """On ports of its own choice again, where somebody has taken one of them since: nothing is made of it yet."""
        if not all(map(is_free, (planned.port, planned.door_port, planned.page_port))):
            planned = self.nodes[planned.name] = Planned(planned.name, planned.roles, *self._free_ports(planned.name))
            self._write()
        return planned

    def _move(self, planned: Planned, config: Path) -> None:
        """To other ports, in place of those that another program has taken while the node was down."""
        ports = {key: getattr(planned, key) for key in ("port", "door_port", "page_port")}
        every = {port for each in self.nodes.values() for port in (each.port, each.door_port, each.page_port)}
        if not (found := moved(config, ports.values(), every)):
            return
        for old, new in found.items():
            self._say(f"another program has port {old}: {planned.name} takes {new}")
        others = {key: found.get(port, port) for key, port in ports.items()}
        self.nodes[planned.name] = msgspec.structs.replace(planned, **others)
        self._write()
        made = {name: self.folder / name for name in self.nodes if (self.folder / name / CONFIG_NAME).exists()}
        tell(made.values(), {name: self.nodes[name].port for name in made})

    def _free_ports(self, name: str) -> tuple[int, int, int]:
        """Of mesh, door and page, which no other node here has."""
        others = [each for each in self.nodes.values() if each.name != name]
        taken = {port for each in others for port in (each.port, each.door_port, each.page_port)}
        port = free_port(taken)
        door_port = free_port({*taken, port})
        return port, door_port, free_port({*taken, port, door_port})

    def _write(self) -> None:
        document = {"mesh": self.mesh, "nodes": [msgspec.structs.asdict(each) for each in self.nodes.values()]}
        _put(self.folder / MESH_PLAN, json.dumps(document, indent=2))

    # ---- down

    def down(self, names: Sequence[str] = ()) -> Mapping[str, str]:
        """Ends the nodes of these names (none: all) in order, those that do not go within 30 s without; what came of
        each, by name. Raises NotFound."""
        for name in names:
            self.planned(name)
        running = {name: pid for name in self.nodes if (not names or name in names) and (pid := self._pid_of(name))}
        births = {name: birth_of(pid) for name, pid in running.items()}
        told = {name: self._ask_to_end(name, pid) for name, pid in running.items()}
        said = dict.fromkeys(names or self.nodes, "did not run")
        for name, pid in running.items():
            said[name] = "stopped"
            if not wait_gone(pid, births[name], STOP_TIMEOUT_S):
                kill(pid)
                wait_gone(pid, births[name], STOP_TIMEOUT_S)
                late = f"did not stop within {STOP_TIMEOUT_S:g} s" if told[name] else "could not be told to stop"
                said[name] = f"{late} and was killed"
            (self.folder / name / PID_NAME).unlink(missing_ok=True)
        return said

    def _ask_to_end(self, name: str, pid: int) -> bool:
        """By a call, which works on every system; one that answers none (it hangs, or is of before that call) by a
        signal, where there are any. Whether it was told."""
        try:
            with self._local(self.nodes[name]).client(PEEK_S) as client:
                client.mesh.stop()
                return True
        except OffgridError:
            return ask_to_end(pid)

    def purge(self) -> None:
        """Removes what `up` has made, none of which may run, and the folder if nothing else is in it. What is no node's
        folder, or a link to one elsewhere, stays."""
        for name in self.nodes:
            if pid := self._pid_of(name):
                raise FailedPrecondition(f"{name} still runs (process {pid})", reason="NodeRuns")
        for folder in (self.folder / name for name in self.nodes):
            if (folder / CONFIG_NAME).exists() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        (self.folder / MESH_PLAN).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
        (self.folder / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
        self.nodes = {}

    # ---- questions

    def planned(self, name: str) -> Planned:
        """Raises NotFound."""
        if name not in self.nodes:
            raise NotFound(f"there is no node {name} in {self.folder}; there are {', '.join(self.nodes) or 'none'}")
        return self.nodes[name]

    def standing(self) -> list[Standing]:
        return [
            Standing(each, self.folder / each.name, pid := self._pid_of(each.name), self._page(each) if pid else "")
            for each in self.nodes.values()
        ]

    def wait_alive(self, names: Sequence[str] = (), timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the founder sees every node that runs alive; those of `names` (none: all) have to run. Raises
        Unavailable, with the end of the log of one that does not."""
        deadline, wanted = time.monotonic() + timeout_s, names or tuple(self.nodes)
        self._check_living(wanted)
        running = {name for name in self.nodes if self._pid_of(name)}
        first = next(iter(self.nodes.values()))
        try:
            with self._local(first).client() as client:
                while time.monotonic() < deadline:
                    alive = {peer.member.name for peer in client.mesh.peers() if peer.liveness == 1}
                    self._check_living(wanted)
                    if running <= alive:
                        return
                    time.sleep(POLL_S)
        except OffgridError:
            self._check_living(wanted)
            raise
        missing = ", ".join(sorted(running - alive))
        raise Unavailable(f"{first.name} does not see {missing} alive after {timeout_s:g} s", reason="NotConverged")

    def _check_living(self, names: Sequence[str]) -> None:
        for name in names:
            if not self._pid_of(name):
                said = self._local(self.nodes[name]).log_tail()
                raise Unavailable(f"node {name} has ended after it started:\n{said}", reason="NodeEnded")

    def _page(self, planned: Planned) -> str:
        with suppress(OffgridError), self._local(planned).client(PEEK_S) as client:
            status = client.mesh.status()
            return status.gateway or next((said for said in status.notices if "the gateway" in said), "off")
        return "does not answer"

    def _local(self, planned: Planned) -> LocalNode:
        return LocalNode(planned.name, planned.roles, self.folder / planned.name)

    def _pid_of(self, name: str) -> int:
        """Of the node's process, if it runs and is the one that was started here; else 0."""
        try:
            kept = json.loads((self.folder / name / PID_NAME).read_text(encoding="ascii"))
            pid, birth = int(kept["pid"]), str(kept["birth"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return pid if birth and birth_of(pid) == birth else 0

    def _read(self) -> None:
        """Raises FailedPrecondition (NoPlan) for a mesh.json that is none."""
        path = self.folder / MESH_PLAN
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            nodes = [
                Planned(
                    str(each["name"]),
                    tuple(each["roles"]),
                    int(each["port"]),
                    int(each["door_port"]),
                    int(each.get("page_port", 0)),
                )
                for each in document["nodes"]
            ]
            if wrong := [each.name for each in nodes if not NAME.fullmatch(each.name)]:
                raise ValueError(f"{wrong[0]!r} is no name of a node")
            self.mesh, self.nodes = str(document["mesh"]), {each.name: each for each in nodes}
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"{path} is not what `offgrid-node up` writes ({error}); move it away, or say another --dir"
            raise FailedPrecondition(text, reason="NoPlan") from None


def _holds_a_mesh(folder: Path) -> bool:
    return (folder / MESH_PLAN).is_file() and (folder / LOCK_NAME).exists()


def _put(path: Path, text: str) -> None:
    """So that whoever reads it has all of it, or what was there before."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)
