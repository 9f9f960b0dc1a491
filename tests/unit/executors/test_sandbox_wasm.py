"""Attempts to get out of the sandbox of a module, each by name: it gets an errno, a trap, or is stopped. A module that
has got what it wanted exits with 0, so every other end is containment; and its folder, where it has one, is no place
of the host's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import memory_folder
from offgrid_node.executors.executor import Outcome, Work
from offgrid_node.executors.memory_folder import FolderError, MemoryFolder
from offgrid_node.executors.wasi_files import ERRNO
from offgrid_node.executors.wasm import WasmExecutor

CONSTANT = re.compile(r"(##?)(-?\d+)")
MEMORY_BYTES = 16 * 1024 * 1024
W = "wasi_snapshot_preview1"
IMPORTS = {
    "open": "path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32)",
    "read": "fd_read (param i32 i32 i32 i32)",
    "write": "fd_write (param i32 i32 i32 i32)",
    "seek": "fd_seek (param i32 i64 i32 i32)",
    "prestat": "fd_prestat_get (param i32 i32)",
    "mkdir": "path_create_directory (param i32 i32 i32)",
    "symlink": "path_symlink (param i32 i32 i32 i32 i32)",
    "link": "path_link (param i32 i32 i32 i32 i32 i32 i32)",
    "rename": "path_rename (param i32 i32 i32 i32 i32 i32)",
    "readlink": "path_readlink (param i32 i32 i32 i32 i32 i32)",
    "unlink": "path_unlink_file (param i32 i32 i32)",
    "readdir": "fd_readdir (param i32 i32 i32 i64 i32)",
    "accept": "sock_accept (param i32 i32 i32)",
    "send": "sock_send (param i32 i32 i32 i32 i32)",
    "environ": "environ_sizes_get (param i32 i32)",
    "poll": "poll_oneoff (param i32 i32 i32 i32)",
    "renumber": "fd_renumber (param i32 i32)",
}
OPEN = "(call $open #3 #0 #1024 #{length} {how} #0 #64)"
READ, MAKE = "#0 ##2 ##0", "#1 ##66 ##0"
FD = "(i32.load #64)"
# One vector of 64 KiB at 65536, for the streams and files.
VECTOR = "(i32.store #0 #65536) (i32.store #4 #65536)"
WRITE = f"(call $write {FD} #0 #1 #8)"


def opened(path: str, how: str = READ) -> str:
    return OPEN.format(length=len(path), how=how)


def source(body: str, data: str = "", extra: str = "") -> bytes:
    """`body` leaves an errno, which becomes the exit code. "#5" is a constant, "##5" one of 64 bits."""
    imports = "".join(
        f'(import "{W}" "{what.split()[0]}" (func ${name} {what.partition(" ")[2]} (result i32)))'
        for name, what in IMPORTS.items()
        if f"${name} " in body
    )
    exit_ = f'(import "{W}" "proc_exit" (func $exit (param i32)))'
    place = f'(data #1024 "{data}")'
    start = f'(func (export "_start") (local $i i32) (local $e i32) (call $exit (block (result i32) {body})))'
    module = f'(module {imports} {exit_} {extra} (memory (export "memory") 4) {place} {start})'
    return CONSTANT.sub(lambda found: f"(i{64 if found[1] == '##' else 32}.const {found[2]})", module).encode()


def until(body: str, most: int) -> str:
    """Repeats until `body` leaves another errno than 0, and leaves that; 0 after `most` times."""
    return f"""(block $out (result i32) (loop $l
      (local.set $e {body})
      (if (local.get $e) (then (br $out (local.get $e))))
      (local.set $i (i32.add (local.get $i) #1))
      (br_if $l (i32.lt_u (local.get $i) #{most}))) #0)"""


# A folder at the $i-th "/a" of a path, behind its first part.
DEEPER = """(block (result i32)
  (i32.store8 (i32.add #1025 (i32.mul (local.get $i) #2)) #47)
  (i32.store8 (i32.add #1026 (i32.mul (local.get $i) #2)) #97)
  (call $mkdir #3 #1024 (i32.add #1 (i32.mul (local.get $i) #2))))"""

ATTEMPTS = {
    "an absolute path": (source(opened("/etc/passwd"), "/etc/passwd"), "ENOENT"),
    "a path that climbs": (source(opened("../../../../../etc/passwd"), "../../../../../etc/passwd"), "ENOENT"),
    "a path that climbs from within": (source(opened("a/../../etc/passwd"), "a/../../etc/passwd"), "ENOENT"),
    "a path of this process": (source(opened("/proc/self/mem"), "/proc/self/mem"), "ENOENT"),
    "another preopened folder": (source("(call $prestat #4 #64)"), "EBADF"),
    "a guessed descriptor": (
        source(VECTOR + "(call $read #9 #0 #1 #8)"),
        "EBADF",
    ),
    "a negative descriptor": (source(VECTOR + "(call $write #-1 #0 #1 #8)"), "EBADF"),
    "standard input as output": (source(VECTOR + "(call $write #0 #0 #1 #8)"), "EBADF"),
    "a stream in place of a file": (source("(call $renumber #1 #3)"), "EBADF"),
    "a symbolic link out": (
        source("(call $symlink #1024 #4 #3 #1024 #4)", "/etc"),
        "ENOTSUP",
    ),
    "a hard link": (source("(call $link #3 #0 #1024 #1 #3 #1024 #1)", "a"), "ENOTSUP"),
    "a link to read": (source("(call $readlink #3 #1024 #5 #0 #9 #64)", "input"), "EINVAL"),
    "what was brought, to be changed": (
        source(f"(drop {opened('brought', '#0 ##66 ##0')}) {VECTOR} {WRITE}", "brought"),
        None,
    ),
    "what was brought, to be removed": (source("(call $unlink #3 #1024 #7)", "brought"), "EROFS"),
    "a connection to take": (source("(call $accept #3 #0 #64)"), None),
    "a descriptor to send on": (source("(call $send #1 #0 #0 #0 #64)"), None),
    "an address past its memory": (source("(call $write #1 #-8 #1 #8)"), "EFAULT"),
    "a vector past its memory": (
        source("(i32.store #0 #-16) (i32.store #4 #4096) (call $write #1 #0 #1 #8)"),
        "EFAULT",
    ),
    "a path past its memory": (source("(call $open #3 #0 #-2 #4096 #0 ##2 ##0 #0 #64)"), "EFAULT"),
    "an answer past its memory": (source("(call $prestat #3 #-4)"), "EFAULT"),
    "descriptors without end": (source(until(opened("f", MAKE), 1000), "f"), "EMFILE"),
    "folders without end": (source(until(DEEPER, 999), "a"), "ENAMETOOLONG"),
    "a file without end": (source(f"(drop {opened('f', MAKE)}) {VECTOR} {until(WRITE, 4000)}", "f"), "ENOSPC"),
    "a file of one far byte": (
        source(f"(drop {opened('f', MAKE)}) {VECTOR} (drop (call $seek {FD} ##1099511000000 #0 #80)) {WRITE}", "f"),
        "ENOSPC",
    ),
    "a place before the start": (source(f"(drop {opened('f', MAKE)}) (call $seek {FD} ##-1 #0 #80)", "f"), "EINVAL"),
}  # fmt: skip

START = '(func (export "_start"))'


def wanting(module: str, name: str, form: str = "(param i32 i32) (result i32)") -> bytes:
    """A module that imports that."""
    return f'(module (import "{module}" "{name}" (func {form})) {START})'.encode()


REFUSED = {
    "a function of the host's": wanting("env", "system"),
    "a socket to open": wanting(W, "sock_open"),
    "a connection to make": wanting(W, "sock_connect"),
    "a thread": wanting("wasi", "thread-spawn"),
    "one of ours in another form": wanting(W, "path_open"),
    "shared memory": f"(module (memory 1 2 shared) {START})".encode(),
    "two memories": f"(module (memory 1) (memory 1) {START})".encode(),
    "more memory at once": f"(module (memory 1000) {START})".encode(),
    "a table larger than all": b"""(module (table 1048576 funcref) (func $f (export "_start"))
      (elem (i32.const 1048575) $f))""",
    "many tables": f"(module {'(table 100 funcref)' * 9} {START})".encode(),
    "endless recursion": b'(module (func $f (call $f)) (func (export "_start") (call $f)))',
    "an empty table's function": b"""(module (table 1 funcref) (type $t (func))
      (func (export "_start") (call_indirect (type $t) (i32.const 9))))""",
}


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[WasmExecutor]:
    monkeypatch.setattr(memory_folder, "BYTES_MAX", 4 * 1024 * 1024)
    executor = WasmExecutor(MEMORY_BYTES, 2)
    yield executor
    executor.close()


def run(executor: WasmExecutor, module: bytes, timeout_ms: int = 10_000, *, fuel: int = 0) -> Outcome:
    payload = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=module, fuel=fuel), outputs=["**"])
    return asyncio.run(executor.run(Work(payload, timeout_ms, {"brought": b"as it was"})))


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_gets_an_errno(executor: WasmExecutor, name: str) -> None:
    module, errno = ATTEMPTS[name]
    outcome = run(executor, module)
    assert (outcome.error, outcome.output) == ("", b""), outcome
    assert outcome.exit_code != 0
    if errno is not None:
        assert outcome.exit_code == ERRNO[errno], outcome
    assert all(file.name != "brought" for file in outcome.files)


@pytest.mark.parametrize("name", REFUSED)
def test_an_attempt_does_not_run_or_traps(executor: WasmExecutor, name: str) -> None:
    outcome = run(executor, REFUSED[name])
    assert outcome.error == "ExecutionFailed", outcome


def test_secrets_in_the_environment_are_not_there(executor: WasmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_SECRET", "secret")
    count = "(drop (call $environ #0 #4)) (i32.add (i32.load #0) #7)"
    assert run(executor, source(count)).exit_code == 7


def test_a_memory_bomb_is_held(executor: WasmExecutor) -> None:
    body = "(loop $l (br_if $l (i32.ne (memory.grow #16) #-1))) (memory.size)"
    outcome = run(executor, source(f"{body} #65536 i32.mul #16777216 i32.gt_u"))
    assert outcome.exit_code == 0, "never more than it may have"
    assert MEMORY_BYTES - 16 * 65536 <= outcome.usage.memory_peak_bytes <= MEMORY_BYTES


@pytest.mark.parametrize("body", ["(loop $l (br $l))", f"{VECTOR} (loop $l (drop {opened('x')}) (br $l))"])
def test_an_endless_loop_ends_with_its_time(executor: WasmExecutor, body: str) -> None:
    assert run(executor, source(f"{body} #0", "x"), 200).error == "JobTimeout"


def test_an_endless_loop_ends_with_its_fuel_and_says_so(executor: WasmExecutor) -> None:
    outcome = run(executor, source("(loop $l (br $l)) #0"), fuel=1_000_000)
    assert outcome.error == "ExecutionFailed"
    assert "fuel" in outcome.error_detail
    assert outcome.executor.endswith(" fuel/1000000")


def test_fuel_is_the_same_each_time_and_on_other_lanes(executor: WasmExecutor) -> None:
    module = source(until("#0", 1000))
    used = {run(executor, module, fuel=10_000_000).executor for _ in range(3)}
    assert len(used) == 1
    assert run(executor, module).executor in used.pop(), "without fuel it says only what it is"


def test_what_it_leaves_comes_back(executor: WasmExecutor) -> None:
    make = f"(drop (call $mkdir #3 #1024 #1)) (drop {opened('d/f', MAKE)})"
    body = f"(i32.store #0 #1024) (i32.store #4 #3) {WRITE}"
    outcome = run(executor, source(make + body, "d/f"))
    assert [(file.name, file.data) for file in outcome.files] == [("d/f", b"d/f")]


def test_it_reads_what_it_was_brought(executor: WasmExecutor) -> None:
    read = f"(drop {opened('/brought')}) {VECTOR} (drop (call $read {FD} #0 #1 #8))"
    show = "(i32.store #4 (i32.load #8)) (call $write #1 #0 #1 #16)"
    assert run(executor, source(read + show, "/brought")).output == b"as it was"


def test_it_lists_its_folder(executor: WasmExecutor) -> None:
    listing = "(drop (call $readdir #3 #65536 #4096 ##0 #4))"
    show = "(i32.store #0 #65536) (call $write #1 #0 #1 #16)"
    output = run(executor, source(listing + show)).output
    assert output[24:] == b"brought"


PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", "etc"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "mkdir", "remove", "rmdir", "rename"]), st.lists(PARTS, max_size=5))
)


@given(STEPS)
def test_whatever_is_done_to_a_folder_its_tree_stays_one(steps: list[tuple[str, list[str]]]) -> None:
    folder, errors = MemoryFolder({"fixed/a": b"x"}), set[str]()
    for what, parts in steps:
        path = "/".join(parts)
        try:
            match what:
                case "create":
                    folder.create(path, folder.root)
                case "mkdir":
                    folder.make_folder(path, folder.root)
                case "rename":
                    folder.rename(path, folder.root, "a", folder.root)
                case _:
                    folder.remove(path, folder.root, folder=what == "rmdir")
        except FolderError as error:
            errors.add(error.errno)
    assert errors <= set(ERRNO)
    files = dict(folder.files())
    assert bytes(files["fixed/a"].data) == b"x"
    assert all(part not in ("", ".", "..") for name in files for part in name.split("/"))
