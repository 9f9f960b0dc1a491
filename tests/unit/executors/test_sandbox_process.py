"""Attempts to get out of the sandbox of a program, each by name: it fails or is killed within its limits, and what is
outside stays as it was. Each is harmless to the machine if it succeeds: bounded, or aimed at the test's own things."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import confine, sandbox
from offgrid_node.executors import process as process_module
from offgrid_node.executors.executor import Outcome, Work
from offgrid_node.executors.process import AUTO, BWRAP, ProcessExecutor

PYTHON = Path("/usr/bin/python3")  # inside, where there is no other
WORKS = sys.platform == "linux" and PYTHON.exists() and sandbox.find()[0] is not None
pytestmark = pytest.mark.skipif(not WORKS, reason="bubblewrap does not work here, or there is no /usr/bin/python3")

MEMORY_BYTES = 256 * 1024 * 1024
SECRET = "a secret of the node's"
TIMEOUT_MS = 10_000
# Every attempt prints this when it has got what it wanted.
ESCAPED = "print('ESCAPED', flush=True)"
HEAD = """
import ctypes, errno, mmap, os, signal, socket, stat, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    return libc.syscall(*map(ctypes.c_long, arguments))
def refused():
    return ctypes.get_errno() == errno.EPERM
"""

ATTEMPTS = {
    "read a file outside": "open({canary!r}).read(); ESCAPED",
    "write a file outside": "open({canary!r}, 'w').write('mine'); ESCAPED",
    "list the folders of other jobs": "if os.listdir({work!r}): ESCAPED",
    "climb out of the folder": "os.chdir('../../../../..'); open('.' + {canary!r}).read(); ESCAPED",
    "read what the node may read of root's": "open('/etc/shadow').read(); ESCAPED",
    "write among the system's programs": "open('/usr/offgrid-escaped', 'w'); ESCAPED",
    "write into the root": "open('/escaped', 'w'); ESCAPED",
    "connect to a port of the host": "socket.create_connection(('127.0.0.1', {port}), 2); ESCAPED",
    "send a datagram to the host": (
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp_port})); sys.exit()"
    ),
    "look for another interface": "if len(socket.if_nameindex()) > 1: ESCAPED",
    "an abstract socket of the host": "socket.socket(socket.AF_UNIX).connect({abstract!r}); ESCAPED",
    "a socket file of the host": "socket.socket(socket.AF_UNIX).connect({unix!r}); ESCAPED",
    "a raw socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW); ESCAPED",
    "a raw IP socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); ESCAPED",
    "a socket to the machine below": "socket.socket(40, socket.SOCK_STREAM); ESCAPED",
    "signal the daemon": "os.kill({pid}, 0); ESCAPED",
    # Never with a real signal: without its process namespace, a job of root's would end the whole machine.
    "signal everybody": "os.kill(-1, 0); ESCAPED",
    "trace the daemon": "if syscall(101 if os.uname().machine == 'x86_64' else 117, 16, {pid}, 0, 0) == 0: ESCAPED",
    "read the daemon's memory": "open('/proc/{pid}/mem', 'rb'); ESCAPED",
    "see other processes": "if len([p for p in os.listdir('/proc') if p.isdigit()]) > 2: ESCAPED",
    "find secrets in the environment": "if {secret!r} in repr(dict(os.environ)): ESCAPED",
    "find secrets in anyone's environment": (
        "if any({secret!r}.encode() in open(f'/proc/{{p}}/environ', 'rb').read()"
        " for p in os.listdir('/proc') if p.isdigit()): ESCAPED"
    ),
    "use inherited descriptors": "if [fd for fd in range(3, 1024) if not libc.fcntl(fd, 1) < 0]: ESCAPED",
    "mount": "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: ESCAPED",
    "unmount what hides": "if libc.umount2(b'/proc', 2) == 0: ESCAPED",
    "change the root": "os.mkdir('r'); os.chroot('r'); ESCAPED",
    "become root": "os.setuid(0); ESCAPED",
    "become somebody by a program": "if b'NoNewPrivs:\\t0' in open('/proc/self/status', 'rb').read(): ESCAPED",
    "have any capability": (
        "if any(int(line.split()[1], 16) for line in open('/proc/self/status') if line.startswith('Cap')): ESCAPED"
    ),
    "a user namespace, to be root in": "if libc.unshare(0x10000000) == 0: ESCAPED",
    "make a device node": "os.mknod('mem', 0o600 | stat.S_IFCHR, os.makedev(1, 1)); ESCAPED",
    "open the memory or a disk": (
        "found = [n for n in os.listdir('/dev') if n in ('mem', 'kmem', 'port') or n[:2] in ('sd', 'vd', 'nv', 'lo')]\n"
        "if found: ESCAPED"
    ),
    "set where core dumps go": "open('/proc/sys/kernel/core_pattern', 'a'); ESCAPED",
    "press the system's keys": "open('/proc/sysrq-trigger', 'a'); ESCAPED",
    "leave a key in the kernel's keyring": "if syscall({add_key}, 0, 0, 0, 0, -3) != -1 or not refused(): ESCAPED",
    "load a program into the kernel": "if syscall({bpf}, 0, 0, 0) != -1 or not refused(): ESCAPED",
    "calls past the filter's eyes": "if syscall(425, 1, 0) != -1 or not refused(): ESCAPED",
    "memory under no limit": "os.memfd_create('x'); ESCAPED",
    "rename the host": "socket.sethostname('escaped'); ESCAPED",
}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What there is to be reached: a file, a port, sockets, a secret, this very process."""
    monkeypatch.setenv("NODE_SECRET", SECRET)
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    abstract = f"\0offgrid-{os.getpid()}-{tmp_path.name}"
    x86 = os.uname().machine == "x86_64"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as hidden,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        hidden.bind(abstract)
        hidden.listen()
        named.bind(str(tmp_path / "s"))
        named.listen()
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        yield {
            "canary": str(canary),
            "work": str(tmp_path / "work"),
            "port": tcp.getsockname()[1],
            "udp_port": udp.getsockname()[1],
            "abstract": abstract,
            "unix": str(tmp_path / "s"),
            "pid": os.getpid(),
            "secret": SECRET,
            "add_key": 248 if x86 else 217,
            "bpf": 321 if x86 else 280,
        }
        with pytest.raises(BlockingIOError):
            udp.recv(1)
    assert canary.read_text() == "untouched"


@pytest.fixture
def executor(tmp_path: Path) -> ProcessExecutor:
    return ProcessExecutor({"python": PYTHON}, work_dir=tmp_path / "work", memory_bytes=MEMORY_BYTES, sandbox=BWRAP)


def attempt(executor: ProcessExecutor, script: str, *outputs: str, timeout_ms: int = TIMEOUT_MS) -> Outcome:
    task = jobs_pb2.ProcessTask(command="python", args=["-I", "-c", HEAD + script])
    return asyncio.run(executor.run(Work(jobs_pb2.JobPayload(process=task, outputs=outputs), timeout_ms)))


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_fails(executor: ProcessExecutor, outside: dict[str, object], name: str) -> None:
    outcome = attempt(executor, ATTEMPTS[name].format(**outside).replace("ESCAPED", ESCAPED))
    assert (outcome.output, outcome.error) == (b"", "")
    assert b"SyntaxError" not in outcome.log
    assert b"NameError" not in outcome.log


def test_the_attempts_are_real(outside: dict[str, object]) -> None:
    """Outside of the sandbox a good part of them succeeds, so that they fail inside for the right reason."""
    reached = ("read a file outside", "connect to a port of the host", "an abstract socket of the host")
    reached += ("a socket file of the host", "signal the daemon", "signal everybody")
    reached += ("find secrets in the environment",)
    for name in reached:
        script = HEAD + ATTEMPTS[name].format(**outside).replace("ESCAPED", ESCAPED)
        ran = subprocess.run([str(PYTHON), "-c", script], capture_output=True, check=False)
        assert ran.stdout == b"ESCAPED\n", name


def test_a_fork_bomb_is_held(executor: ProcessExecutor) -> None:
    """At most 400 processes that end by themselves after 3 s."""
    script = """
made = 0
for _ in range(400):
    try:
        if os.fork() == 0:
            time.sleep(3); os._exit(0)
    except OSError:
        break
    made += 1
print(made, flush=True); time.sleep(3)
"""
    outcome = attempt(executor, script)
    held_by_kernel = outcome.output.strip().isdigit() and int(outcome.output) < sandbox.PROCESSES_MAX
    assert outcome.error == "ExecutionFailed" or held_by_kernel
    if outcome.error:
        allowed = "at most 64 are allowed", f"at most {MEMORY_BYTES} are allowed"  # many interpreters may be too large
        assert outcome.error_detail.endswith(allowed)


def test_a_memory_bomb_is_held(executor: ProcessExecutor) -> None:
    outcome = attempt(executor, "x = bytearray(1 << 29); " + ESCAPED)
    assert b"MemoryError" in outcome.log
    assert outcome.output == b""


def test_a_memory_bomb_of_many_processes_is_held(executor: ProcessExecutor) -> None:
    """Six of 100 MB where 256 MB are allowed; each ends after 3 s."""
    script = """
for _ in range(5):
    if os.fork() == 0:
        break
x = bytearray(b'x' * 100_000_000); time.sleep(3)
"""
    outcome = attempt(executor, script + ESCAPED)
    assert outcome.error == "ExecutionFailed"
    assert "bytes of memory" in outcome.error_detail
    assert outcome.usage.memory_peak_bytes > MEMORY_BYTES


def test_memory_in_files_is_held(executor: ProcessExecutor) -> None:
    script = """
for folder in ('/tmp', '/dev/shm'):
    try:
        with open(folder + '/x', 'wb') as file:
            for _ in range(128):
                file.write(bytes(1 << 20))
        print('ESCAPED')
    except OSError as error:
        assert error.errno == errno.ENOSPC
"""
    outcome = attempt(executor, script)
    assert (outcome.output, outcome.exit_code) == (b"", 0)


def test_an_endless_loop_ends_with_its_time(executor: ProcessExecutor) -> None:
    assert attempt(executor, "while True: pass", timeout_ms=300).error == "JobTimeout"


def test_endless_output_ends(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.executors.capture.OUTPUT_BYTES_MAX", 1_000_000)
    outcome = attempt(executor, "while True: os.write(1, b'x' * 65536)")
    assert (outcome.error, outcome.output) == ("OutputTooLarge", b"")


def test_a_huge_file_is_cut(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "FILE_BYTES_MAX", 1_000_000)
    outcome = attempt(executor, "f = open('big', 'wb'); f.write(bytes(8_000_000)); f.flush(); " + ESCAPED)
    assert outcome.output == b""
    assert outcome.exit_code != 0


@pytest.mark.parametrize("deleted", [False, True])
def test_many_files_are_too_many(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch, deleted: bool) -> None:
    monkeypatch.setattr(process_module, "FOLDER_BYTES_MAX", 4_000_000)
    script = f"""
held = []
for n in range(16):
    held.append(open(f'f{{n}}', 'wb')); held[-1].write(bytes(1_000_000)); held[-1].flush()
    if {deleted}: os.unlink(f'f{{n}}')
time.sleep(3)
"""
    outcome = attempt(executor, script + ESCAPED)
    assert outcome.error == "ExecutionFailed"
    assert "its files take" in outcome.error_detail


@pytest.mark.parametrize(
    ("digs", "why"),
    [
        ("for _ in range(200): os.mkdir('d'); os.chdir('d')", "folders more than"),
        ("for _ in range(40): os.mkdir('d' * 250); os.chdir('d' * 250)", "cannot look into"),
    ],
)
def test_nothing_hides_in_the_depth(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digs: str, why: str
) -> None:
    """What is deeper than a path can say would count for nothing, and nobody could remove it."""
    monkeypatch.setattr(process_module, "FOLDER_BYTES_MAX", 4 * 1024 * 1024)
    script = digs + "\nfor n in range(8):\n    open(str(n), 'wb').write(bytes(1 << 20))\nESCAPED\ntime.sleep(60)"
    outcome = attempt(executor, script.replace("ESCAPED", "print(1)"))
    assert outcome.error == "ExecutionFailed"
    assert why in outcome.error_detail
    assert list((tmp_path / "work").iterdir()) == []


def test_links_lead_nowhere(executor: ProcessExecutor, outside: dict[str, object]) -> None:
    script = f"""
os.symlink({outside["canary"]!r}, 'out'); os.symlink('/etc', 'etc'); os.mkdir('d'); os.symlink('..', 'd/up')
os.mkfifo('pipe'); open('mine', 'w').write('mine')
"""
    outcome = attempt(executor, script, "*", "etc/passwd", "d/**/mine", "**/shadow")
    assert [(file.name, file.data) for file in outcome.files] == [("mine", b"mine")]


def test_a_daemon_ends_with_its_job(executor: ProcessExecutor) -> None:
    """Double-forked, in a session of its own, deaf to signals, its streams closed: it would live for 20 s."""
    marker = f"stray-{os.getpid()}-{time.monotonic_ns()}"
    script = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 64)
        os.execv('/usr/bin/python3', ['python3', '-I', '-c', 'import time; time.sleep(20)', {marker!r}])
    os._exit(0)
time.sleep(0.3); print('done')
"""
    assert attempt(executor, script).output == b"done\n"
    assert not alive_by_name(marker)
    late = attempt(executor, script.replace("time.sleep(0.3)", "time.sleep(9)"), timeout_ms=500)
    assert late.error == "JobTimeout"
    assert not alive_by_name(marker)


def alive_by_name(marker: str) -> bool:
    """Any process with this among its arguments; it may take a moment for the kernel to take them away."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        found = False
        for entry in Path("/proc").iterdir():
            try:
                found |= entry.name.isdecimal() and marker.encode() in (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
        if not found:
            return False
        threading.Event().wait(0.02)
    return True


@pytest.mark.parametrize("missing", ["bwrap", "prlimit"])
def test_what_is_missing_is_said_and_never_replaced_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(*((sandbox, "BWRAP_PATHS", ()) if missing == "bwrap" else (confine, "PRLIMIT_PATHS", ())))
    asked = ProcessExecutor({"python": PYTHON}, work_dir=tmp_path, sandbox=BWRAP)
    assert (asked.offers, asked.isolation) == ((), {})
    assert "no command is offered" in asked.problems[-1]
    assert missing in asked.problems[-1].replace("bubblewrap", "bwrap")
    assert attempt(asked, ESCAPED).error == "ExecutionFailed"
    auto = ProcessExecutor({"python": PYTHON}, work_dir=tmp_path, sandbox=AUTO)
    assert (auto.offers, auto.isolation) == (("process:python",), {"process": "rlimits", "process_limits": "each"})
    assert "without a sandbox" in auto.problems[-1]


def test_a_bubblewrap_that_does_not_work_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho no user namespaces >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox, "BWRAP_PATHS", (fake,))
    executor = ProcessExecutor({"python": PYTHON}, work_dir=tmp_path / "work", sandbox=BWRAP)
    assert executor.offers == ()
    assert "no user namespaces" in executor.problems[-1]


def test_it_says_what_holds_it(executor: ProcessExecutor) -> None:
    assert (executor.offers, executor.problems) == (("process:python",), ())
    assert executor.isolation == {"process": "bwrap", "process_limits": "watched"}


def test_a_program_of_the_owners_own_place_is_seen_and_nothing_beside_it(tmp_path: Path) -> None:
    place, library = tmp_path / "place", tmp_path / "library"
    place.mkdir()
    library.mkdir()
    program = place / "tool"
    program.write_text(f"#!/bin/sh\ncat {library}/words; ls {place}; cat {place}/beside || echo hidden\n")
    program.chmod(0o755)
    (place / "beside").write_text("not for jobs")
    (library / "words").write_text("for jobs\n")
    executor = ProcessExecutor({"tool": program}, work_dir=tmp_path / "w", sandbox=BWRAP, readable=[library])
    task = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="tool"))
    outcome = asyncio.run(executor.run(Work(task, TIMEOUT_MS)))
    assert outcome.output == b"for jobs\ntool\nhidden\n"


def test_the_nodes_own_folder_stays_hidden_where_it_lies_in_what_is_shown(tmp_path: Path) -> None:
    data = tmp_path / "shown" / "data"
    data.mkdir(parents=True)
    (data / "key").write_text("secret")
    executor = ProcessExecutor(
        {"python": PYTHON}, work_dir=data / "work", sandbox=BWRAP, readable=[tmp_path / "shown"], hidden=data
    )
    assert attempt(executor, f"print(os.listdir({str(data)!r}), os.listdir('.'))").output == b"[] ['input']\n"


def test_files_lie_in_the_folder_read_only_and_what_is_left_comes_back(executor: ProcessExecutor) -> None:
    script = """
import subprocess
print(open('a/b').read(), subprocess.run(['cat', 'c'], capture_output=True, text=True).stdout, end='')
try:
    open('c', 'a')
except OSError:
    print('!', end='')
os.mkdir('out'); open('out/x', 'w').write('left'); open('y', 'w').write('not asked for')
"""
    task = jobs_pb2.ProcessTask(command="python", args=["-I", "-c", HEAD + script])
    payload = jobs_pb2.JobPayload(process=task, outputs=["out/*", "c"])
    outcome = asyncio.run(executor.run(Work(payload, TIMEOUT_MS, {"a/b": b"brought", "c": b"too"})))
    assert outcome.output == b"brought too!"
    assert [(file.name, file.data) for file in outcome.files] == [("out/x", b"left")]
    assert outcome.usage.cpu_us > 0
