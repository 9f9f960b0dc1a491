"""Faults that keep a node from starting: each is really there, and the doctor names it, it alone, and what to type."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from offgrid.starting import Starting
from offgrid_node.doctor import Check, Finding, State
from offgrid_node.doctor.checks import CHECKS
from offgrid_node.doctor.findings import Needs, Said
from offgrid_node.doctor.ports import why_not
from offgrid_node.doctor.running import examine
from offgrid_node.doctor.subject import Subject
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey, check_identity_certificate, verify
from offgrid_node.protocol.mesh.founding import all_rows, held_directory, issue_member
from offgrid_node.protocol.state.tables import JOURNAL, NEWER_KEY, Newer
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the faults are POSIX'")
MIB = 1024 * 1024
MOUNT, UMOUNT = shutil.which("mount") or "", shutil.which("umount") or ""
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def free_port() -> int:
    """Not among those that the system gives to whoever asks for any."""
    return next(port for port in random.sample(range(20_000, 30_000), 100) if why_not("127.0.0.1", port) is None)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy node that does not run; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("doctor") / "node"
    values = {
        "mesh.listen": f"127.0.0.1:{free_port()}",
        "mesh.door": f"127.0.0.1:{free_port()}",
        "mesh.mdns": False,
        "storage.limit_mb": 16,
    }
    found(folder, "home", "attic", ("core", "broker", "host"), values)
    return folder


class Ward:
    """A copy of a healthy node in which a test makes one thing wrong."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.environ: dict[str, str] = {}
        self.utc_us: int | None = None
        self.config_path, self.keys = folder / "offgrid.toml", folder / "keys"
        self.store = folder / "data" / "memory.db"

    def set(self, key: str, value: object) -> None:
        section, name = key.split(".", 1)
        self.environ[f"OFFGRID_{section.upper()}__{name.upper().replace('.', '__')}"] = str(value)

    def findings(self) -> tuple[Finding, ...]:
        clock = {} if self.utc_us is None else {"utc_us": lambda: self.utc_us}
        subject = Subject(self.folder, self.environ, **clock)  # type: ignore[arg-type]
        try:
            return examine(subject, CHECKS, 60.0)
        finally:
            subject.close()


@pytest.fixture
def ward(founded: Path, tmp_path: Path) -> Iterator[Ward]:
    folder = tmp_path / "node"
    shutil.copytree(founded, folder)
    with ExitStack() as stack:
        yield Ward(folder, stack)


def listening(ward: Ward, key: str) -> None:
    """Somebody else has the port of that key."""
    taken = ward.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    ward.set(key, f"127.0.0.1:{taken.getsockname()[1]}")


def serial_port(ward: Ward) -> Path:
    """A pseudo-terminal for a modem, in the node's config."""
    master, slave = os.openpty()
    tty.setraw(slave)
    device = Path(os.ttyname(slave))
    for fd in (master, slave):
        ward.stack.callback(os.close, fd)
    ward.set("links.open", f"lora:{device}?region=EU868")
    return device


def in_use(ward: Ward) -> None:
    device = serial_port(ward)
    code = f"import sys, time; f = open({str(device)!r}); print('open', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    ward.stack.callback(other.wait)
    ward.stack.callback(other.kill)
    assert other.stdout is not None
    ward.stack.callback(other.stdout.close)
    assert other.stdout.readline() == b"open\n"


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A disk of its own under what is there, with a copy of it."""
    spare = place.with_name("spare")
    place.rename(spare)
    place.mkdir()
    subprocess.run([MOUNT, "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(spare, place, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run([UMOUNT, str(place)], check=True)


def on_small_disk(ward: Ward, options: str, *, read_only: bool = False) -> None:
    data = ward.folder / "data"
    ward.stack.enter_context(small_disk(data, options))
    if read_only:
        subprocess.run([MOUNT, "-o", "remount,ro", str(data)], check=True)


def without_inodes(ward: Ward) -> None:
    on_small_disk(ward, "size=2g,nr_inodes=600")
    for number in range(300):
        (ward.folder / "data" / f"f{number}").touch()


def other_nodes_store(ward: Ward) -> None:
    other = ward.folder.parent / "other"
    found(other, "barn", "cellar", ("core",), {})
    shutil.rmtree(ward.store)
    shutil.copytree(other / "data" / "memory.db", ward.store)


def exposed(ward: Ward) -> None:
    env = ward.folder / ".env"
    env.write_text("OFFGRID_GATEWAY__TOKEN=a-token-of-more-than-sixteen\n")
    env.chmod(0o644)


def without_mesh(ward: Ward) -> None:
    shutil.rmtree(ward.store)
    LoggedStore.open(ward.store, limit_bytes=16 * MIB).close()


def outdated(ward: Ward) -> None:
    """As the last start left it, which a host had shown something newer."""
    store = LoggedStore.open(ward.store, limit_bytes=16 * MIB)
    store.commit(Batch(writes={(JOURNAL, NEWER_KEY): Newer(3, 7).encode()}))
    store.close()


def removed(ward: Ward) -> None:
    """As the mesh's root says."""
    root, node = NodeKey.load(ward.keys, "mesh_root"), NodeKey.load(ward.keys)
    store = LoggedStore.open(ward.store, limit_bytes=16 * MIB)
    directory = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
    assert directory is not None
    record = directory.member(node.node_id)
    assert record is not None
    directory.accept_member(issue_member(directory.genesis, record.tombstone(""), b"", root))
    store.commit(Batch(writes=all_rows(directory)))
    store.close()


def nearly_full(ward: Ward) -> None:
    store = LoggedStore.open(ward.store, limit_bytes=64 * MIB)
    for number in range(28):
        store.commit(Batch(writes={("jobs", b"%d" % number): bytes(MIB // 2)}))
    store.close()


def held_by_another(ward: Ward) -> None:
    lock = (ward.store / "owner.lock").open("w")
    ward.stack.callback(lock.close)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (ward.store / "owner.pid").write_text(f"{os.getpid()}\n")


def dead_socket(ward: Ward) -> None:
    with chdir(ward.folder / "data"), socket.socket(socket.AF_UNIX) as left:  # its whole path may be too long
        left.bind("offgrid.sock")


def damage(path: Path) -> None:
    """One letter becomes another of base32."""
    text = bytearray(path.read_bytes())
    text[25] = ord("b" if text[25] == ord("a") else "a")
    path.write_bytes(text)


@dataclass(frozen=True)
class Injected:
    """What is done to a healthy node, the check that finds it, what it says, and what is to be typed."""

    inject: Callable[[Ward], object]
    check: str
    says: str
    types: str
    state: State = State.FAULT
    root: bool = False


FAULTS = {
    "not running": Injected(lambda w: None, "process", "the node does not run", "offgrid-node run --dir"),
    "still starting": Injected(
        lambda w: w.stack.enter_context(Starting(w.folder)), "process", "the node is starting", "status", State.WARNING
    ),
    "no node there": Injected(
        lambda w: (w.config_path.unlink(), shutil.rmtree(w.keys)), "config", "no node lives in", "join TOKEN --dir"
    ),
    "a folder too high up": Injected(
        lambda w: (
            shutil.rmtree(w.keys), (w.folder / "attic").mkdir(), w.config_path.rename(w.folder / "attic/offgrid.toml")
        ),
        "config", "Below it are attic", "offgrid-node doctor --dir",
    ),
    "join broken off": Injected(
        lambda w: w.config_path.rename(w.folder / "offgrid.toml.draft"),
        "config",
        "was broken off",
        "offgrid-node join TOKEN",
    ),
    "config made by hand after a join that was broken off": Injected(
        without_mesh, "store", "belongs to no mesh", "offgrid.toml.old && offgrid-node join TOKEN"
    ),
    "store of before": Injected(outdated, "store", "not this node's newest store", "offgrid-node restore"),
    "config renamed": Injected(
        lambda w: w.config_path.rename(w.folder / "offgrid.toml.bak"), "config", "was the file renamed?", "mv "
    ),
    "a folder that is spelt otherwise": Injected(
        lambda w: (w.folder.with_name("attic").symlink_to(w.folder), setattr(w, "folder", w.folder.with_name("attik"))),
        "config", "there is no folder", "/attic",
    ),
    "folder of keys renamed": Injected(
        lambda w: w.keys.rename(w.folder / "keys.old"), "keys", "and the keys lie in", "mv "
    ),
    "store elsewhere than the environment says": Injected(
        lambda w: w.environ.update(OFFGRID_MEMORY_DB=str(w.folder / "nowhere")), "store", "OFFGRID_MEMORY_DB says",
        "unset OFFGRID_MEMORY_DB",
    ),
    "typing error in the config": Injected(
        lambda w: w.config_path.write_text(w.config_path.read_text() + "\n[nod]\n"),
        "config",
        "unknown section",
        "offgrid-node config check",
    ),
    "bad value in the environment": Injected(
        lambda w: w.set("host.slots", "many"), "config", "OFFGRID_HOST__SLOTS", "offgrid-node config check"
    ),
    "key readable by others": Injected(
        lambda w: (w.keys / "node.key").chmod(0o644), "keys", "may be used by others (mode 0644)", "chmod 600"
    ),
    "root key readable by others": Injected(
        lambda w: (w.keys / "mesh_root.key").chmod(0o640), "keys", "mesh_root.key may be used by others", "chmod 600"
    ),
    "key missing": Injected(
        lambda w: (w.keys / "node.key").unlink(), "keys", "node.key is missing", "offgrid-node words --enter"
    ),
    "key damaged": Injected(
        lambda w: damage(w.keys / "node.key"), "keys", "do not belong together", "offgrid-node words --enter"
    ),
    "folder writable by others": Injected(
        lambda w: w.folder.chmod(0o777), "folder", "can be written by others (mode 0777)", "chmod go-w"
    ),
    "read-only disk": Injected(
        lambda w: on_small_disk(w, "size=2g", read_only=True), "folder", "mounted read-only", "remount,rw", root=True
    ),
    "store gone": Injected(
        lambda w: (w.store / "data.mdb").unlink(), "store", "store is not there", "offgrid-node restore --key"
    ),
    "store damaged": Injected(
        lambda w: (w.store / "data.mdb").write_bytes(b"\xff" * 9_999), "store", "store is damaged", "--via HOST:PORT"
    ),
    "a file where the folder of data was": Injected(
        lambda w: (shutil.rmtree(w.folder / "data"), (w.folder / "data").touch()), "store", "is a file, and", "mv "
    ),
    "key of another member": Injected(
        lambda w: w.set("node.name", "barn"), "store", "is that of attic, and offgrid.toml says",
        "grep", State.WARNING
    ),
    "disk of backups not mounted": Injected(
        lambda w: w.set("state.backup_dir", "/media/no-such-disk/backups"), "backup-disk", "is its disk mounted?",
        "findmnt", State.WARNING,
    ),
    "store of another node": Injected(other_nodes_store, "store", "is another node's store, of mesh barn", "ls -l"),
    "store of another mesh than the config says": Injected(
        lambda w: w.set("mesh.name", "barn"), "store", 'is of mesh home, and offgrid.toml says mesh.name = "barn"',
        "OFFGRID_MESH__NAME=home offgrid-node run",
    ),
    "removed while it stood still": Injected(removed, "store", "was removed from its mesh", "offgrid mesh invite"),
    "store held by another process": Injected(
        held_by_another, "process", f"process {os.getpid()} holds the node's store and does not answer", "kill "
    ),
    "keys that others may replace": Injected(
        lambda w: w.keys.chmod(0o777), "folder", "keys can be written by others", "chmod go-w"
    ),
    "secrets that others may read": Injected(exposed, "folder", ".env has secrets in it", "chmod 600", State.WARNING),
    "name without an address": Injected(
        lambda w: w.set("mesh.peers", "barn.invalid:7440"), "names", "barn.invalid has no address", "getent hosts"
    ),
    "no program to tell of alerts": Injected(
        lambda w: w.set("health.command", "/opt/missing/tell"), "hooks", "/opt/missing/tell is no program", "ls -l"
    ),
    "nobody at the webhook": Injected(
        lambda w: w.set("health.webhook", "http://127.0.0.1:1/told"),
        "hooks",
        "127.0.0.1:1: Connection refused",
        "curl",
        State.WARNING,
    ),
    "start refused": Injected(
        lambda w: (w.folder / "offgrid.refused").write_text("the redo log is gone"),
        "process",
        "its last start was refused: the redo log is gone",
        "offgrid-node run",
    ),
    "store nearly full": Injected(
        nearly_full, "store-file", "of the 16 MiB that storage.limit_mb allows", "OFFGRID_STORAGE__LIMIT_MB=32",
        State.WARNING,
    ),
    "socket left behind": Injected(
        dead_socket, "socket", "left by a process that died", "offgrid-node run", State.WARNING
    ),
    "no socket at its place": Injected(
        lambda w: (w.folder / "data" / "offgrid.sock").mkdir(), "socket", "is no socket", "mv "
    ),
    "disk full": Injected(
        lambda w: on_small_disk(w, "size=48m"), "disk", "below 64 nothing is kept there", "du -xh", root=True
    ),
    "disk almost full": Injected(
        lambda w: on_small_disk(w, "size=300m"), "disk", "MiB free", "du -xh", State.WARNING, root=True
    ),
    "no inodes left": Injected(without_inodes, "inodes", "more files (inodes)", "df -i", root=True),
    "mesh port taken": Injected(
        lambda w: listening(w, "mesh.listen"), "mesh-port", f"the port is taken by process {os.getpid()} (",
        "OFFGRID_MESH__LISTEN=127.0.0.1:",
    ),
    "door port taken": Injected(
        lambda w: listening(w, "mesh.door"), "door-port", "the port is taken", "OFFGRID_MESH__DOOR=127.0.0.1:"
    ),
    "gateway port taken": Injected(
        lambda w: listening(w, "gateway.listen"), "gateway-port", "the port is taken", "OFFGRID_GATEWAY__LISTEN="
    ),
    "metrics port taken": Injected(
        lambda w: listening(w, "metrics.listen"), "metrics-port", "the port is taken", "OFFGRID_METRICS__LISTEN="
    ),
    "address of no network here": Injected(
        lambda w: w.set("mesh.listen", "192.0.2.7:7440"), "mesh-port", "no network of this machine", "0.0.0.0:0"
    ),
    "clock before the program": Injected(
        lambda w: setattr(w, "utc_us", 10**15), "clock", "before this program was installed", "timedatectl",
        State.WARNING,
    ),
    "unreadable hosts file": Injected(
        lambda w: (w.folder / "discovery").mkdir() or (w.folder / "discovery" / "mesh_hosts.json").write_text("{"),
        "hosts-file", "mesh_hosts.json", "json.tool",
    ),
    "link of no kind": Injected(
        lambda w: w.set("links.open", "lorra:/dev/x"), "links", "did you mean 'lora'", "offgrid-node config check"
    ),
    "serial port missing": Injected(
        lambda w: w.set("links.open", "lora:/dev/ttyUSB77?region=EU868"), "links", "/dev/ttyUSB77 is not there", "ls -l"
    ),
    "serial port in use": Injected(in_use, "links", "is in use by process", "fuser -v"),
    "program for jobs missing": Injected(
        lambda w: w.set("host.process.commands", "wc=/usr/bin/no-such"), "programs", "/usr/bin/no-such is no", "ls -l"
    ),
    "broker's gateway away": Injected(
        lambda w: w.set("jobs.broker_url", f"http://127.0.0.1:{free_port()}"),
        "gateways",
        "jobs.broker_url = http://127.0.0.1:",
        "/v1/about",
    ),
    "language models away": Injected(
        lambda w: w.set("host.llm.endpoint", f"http://127.0.0.1:{free_port()}/v1"), "llm", "refused", "curl -sS"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_and_no_other(name: str, ward: Ward) -> None:
    injected = FAULTS[name]
    if injected.root and not ROOT:
        pytest.skip("only root may mount a disk")
    injected.inject(ward)
    findings = ward.findings()
    found_ = {each for each in findings if each.state in (State.FAULT, State.WARNING)}
    named = {each for each in found_ if each.check == injected.check}
    assert {each.check for each in found_} - {"process"} == {injected.check} - {"process"}, found_
    [finding] = named
    assert finding.state is injected.state
    assert injected.says in finding.sentence
    assert injected.types in finding.command
    [process] = [each for each in findings if each.check == "process"]
    if injected.state is State.FAULT and injected.check != "process" and process.state is not State.NOT_APPLICABLE:
        assert process.state is State.WARNING  # that it does not run is explained


def test_a_serial_port_that_this_user_may_not_use(ward: Ward) -> None:
    setpriv = shutil.which("setpriv")
    if not ROOT or setpriv is None:
        pytest.skip("only root may make a device, and give up what lets it use each")
    device = ward.folder / "ttyUSB0"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(4, 64))
    os.chown(device, 65_534, 5)
    node = [str(Path(sys.executable).with_name("offgrid-node")), "doctor", "--dir", str(ward.folder), "--json"]
    done = subprocess.run(
        [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *node],
        env={**os.environ, "OFFGRID_LINKS__OPEN": f"lora:{device}?region=EU868"},
        capture_output=True,
        text=True,
        check=False,
    )
    [finding] = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "links"]
    assert "may not be used by this user" in finding["sentence"]
    assert finding["command"].startswith("sudo usermod -aG")


def test_nothing_is_changed_by_looking(ward: Ward) -> None:
    def all_of_it() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in ward.folder.rglob("*") if path.is_file()}

    before = all_of_it()
    ward.findings()
    assert all_of_it() == before


def test_what_hangs_holds_nothing_up(ward: Ward) -> None:
    forever = threading.Event()

    def hang(subject: Subject) -> Iterator[Said]:
        forever.wait()
        yield from ()

    hangs = [Check(f"dead-disk-{number}", "a disk answers", hang, Needs.NOTHING) for number in range(100)]
    well = Check("well", "all is well", lambda subject: [], Needs.NOTHING)
    subject, began = Subject(ward.folder, ward.environ), time.monotonic()
    late, *_, fine = examine(subject, [*hangs, well], 1.0)
    forever.set()
    assert time.monotonic() - began < 100 * 1.0  # all of them at once, and not one after another
    assert (late.state, fine.state) == (State.WARNING, State.OK)
    assert "no answer within 1.0 s" in late.sentence


def test_two_taken_ports_are_answered_by_one_command_that_starts_the_node(ward: Ward) -> None:
    port = next(port for port in iter(free_port, 0) if why_not("127.0.0.1", port + 1) is None)
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
        ward.set("mesh.listen", f"127.0.0.1:{port}")
        ward.set("gateway.listen", f"127.0.0.1:{port + 1}")
        (mesh, page) = [each for each in ward.findings() if each.check in ("mesh-port", "gateway-port")]
    assert mesh.command == page.command
    variables = dict(word.split("=") for word in mesh.command.split()[:2])
    assert [*variables] == ["OFFGRID_MESH__LISTEN", "OFFGRID_GATEWAY__LISTEN"]
    assert len({*variables.values(), f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"}) == 4


def test_in_a_mesh_of_up_another_port_is_chosen_by_up(ward: Ward) -> None:
    listening(ward, "gateway.listen")
    (ward.folder.parent / "mesh.json").write_text("{}")
    [page] = [each for each in ward.findings() if each.check == "gateway-port"]
    assert page.command == f"offgrid-node up --dir {ward.folder.parent}"


def test_both_commands_say_it_as_json_and_end_with_1(ward: Ward) -> None:
    for name, place in (("offgrid-node", "--dir"), ("offgrid", "--node-dir")):
        argv = [str(Path(sys.executable).with_name(name)), "doctor", place, str(ward.folder), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        told = json.loads(done.stdout)
        assert done.returncode == 1, done.stderr
        assert not told["well"]
        assert [each["check"] for each in told["findings"]] == [check.name for check in CHECKS]
        wanting = os.getloadavg()[0] / (os.cpu_count() or 1)  # so many processes share a processor
        assert told["took_ms"] < 5_000 * max(1, wanting)


def test_every_check_is_told_of_in_its_document() -> None:
    told = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [check.name for check in CHECKS if f"`{check.name}`" not in told] == []
