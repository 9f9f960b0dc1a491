"""WasmExecutor: what a module gets, how it ends, and that nothing it does can hold the node up."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import modules, programs
from offgrid_node.executors.capture import LOG_MARK, Capture
from offgrid_node.executors.declared import table_elements
from offgrid_node.executors.executor import LOG_BYTES_MAX, OUTPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.modules import SMALL_BYTES_MAX
from offgrid_node.executors.wasi import PIECE_BYTES
from offgrid_node.executors.wasm import WasmExecutor

MAPS_PER_THREAD = 4
MEMORY_BYTES = 16 * 1024 * 1024
SLOTS = 32
MARK = "OWNERSMARK"
IMPORTS = """
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"""
SPIN = "(loop $l (br $l))"
# Writes 64 KiB to the stream in $fd for ever, whatever fd_write answers.
SHOUT = """(i32.store (i32.const 4) (i32.const 65536))
  (loop $l (drop (call $fd_write (i32.const FD) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))"""
# Sleeps for an hour in one host call.
SLEEP = """(i64.store (i32.const 88) (i64.const 3600000000000))
  (i32.store (i32.const 80) (i32.const 1))
  (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))"""


def module(body: str, extra: str = "") -> bytes:
    return f'(module {IMPORTS} (memory (export "memory") 2) {extra} (func (export "_start") {body}))'.encode()


def wasm(source: bytes, stdin: bytes = b"", *args: str) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=source, args=args), input=stdin)


@pytest.fixture
def executor() -> Iterator[WasmExecutor]:
    executor = WasmExecutor(MEMORY_BYTES, SLOTS)
    yield executor
    executor.close()


def run(executor: WasmExecutor, payload: jobs_pb2.JobPayload, timeout_ms: int = 60_000) -> Outcome:
    return asyncio.run(executor.run(Work(payload, timeout_ms)))


async def occupied(executor: WasmExecutor) -> None:
    deadline = time.monotonic() + 60
    while executor.running == 0:
        assert time.monotonic() < deadline, "no run began"
        await asyncio.sleep(0.001)


def test_it_offers_wasm(executor: WasmExecutor) -> None:
    assert executor.offers == ("wasm",)


def test_input_goes_in_and_output_comes_out(executor: WasmExecutor) -> None:
    outcome = run(executor, wasm(programs.load("textstats"), b"two words\n"))
    assert outcome.output.startswith(b"lines 1\nwords 2\nbytes 10\n")
    assert (outcome.exit_code, outcome.error, outcome.error_detail) == (0, "", "")
    assert outcome.executor.startswith("wasmtime/")


def test_a_binary_module_runs_like_its_text(executor: WasmExecutor) -> None:
    source = programs.load("textstats")
    binary = bytes(wasmtime.wat2wasm(source))
    one, other = run(executor, wasm(binary, b"a\n")), run(executor, wasm(source, b"a\n"))
    assert replace(one, usage=other.usage) == other
    assert one.usage.memory_peak_bytes == 2 * 65536
    assert one.usage.cpu_us > 0


@pytest.mark.parametrize("code", [0, 1, 42, 125])
def test_the_exit_code_is_the_modules_own(executor: WasmExecutor, code: int) -> None:
    outcome = run(executor, wasm(module(f"(call $exit (i32.const {code}))")))
    assert (outcome.exit_code, outcome.error) == (code, "")


def test_standard_error_is_the_log_and_is_kept_when_it_fails(executor: WasmExecutor) -> None:
    body = """(i32.store (i32.const 0) (i32.const 256)) (i32.store (i32.const 4) (i32.const 5))
      (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) unreachable"""
    outcome = run(executor, wasm(module(body, '(data (i32.const 256) "oh no")')))
    assert (outcome.log, outcome.output, outcome.error) == (b"oh no", b"", "ExecutionFailed")


def test_there_is_no_environment_no_folder_and_no_other_stream(executor: WasmExecutor) -> None:
    body = """(drop (call $environ (i32.const 0) (i32.const 4)))
      (if (i32.load (i32.const 0)) (then (call $exit (i32.const 1))))
      (if (i32.eqz (call $prestat (i32.const 3) (i32.const 16))) (then (call $exit (i32.const 2))))
      (if (i32.eqz (call $fd_read (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8)))
        (then (call $exit (i32.const 3))))
      (if (i32.eqz (call $fd_write (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8)))
        (then (call $exit (i32.const 4))))"""
    assert run(executor, wasm(module(body))).exit_code == 0


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"plain words", "not a WebAssembly module"),
        (b"\0asm", "not a WebAssembly module"),
        (b"\xff\xfe", "not a WebAssembly module"),
        (b"(module)", "exports no function `_start`"),
        (b'(module (func (export "_start") (param i32)))', "takes parameters"),
        (b'(module (memory (export "_start") 1))', "exports no function `_start`"),
        (b'(module (import "env" "open" (func)) (func (export "_start")))', "its import 1 is another"),
        (b'(module (memory 4096) (func (export "_start")))', "exceeds memory limits"),
        (b'(module (memory 1) (memory 1) (func (export "_start")))', "multi"),
        (b'(module (memory 1 1 shared) (func (export "_start")))', "threads"),
    ],
)
def test_what_is_no_runnable_module_is_said_in_a_sentence(executor: WasmExecutor, source: bytes, sentence: str) -> None:
    outcome = run(executor, wasm(source))
    assert outcome.error == "ExecutionFailed"
    assert sentence in outcome.error_detail
    assert "\n" not in outcome.error_detail


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


@pytest.mark.parametrize(
    ("source", "where"),
    [
        (f"(module\n  (func ${MARK} frobnicate))".encode(), "line 2, column"),
        (f"(module (func call ${MARK}))".encode(), "line 1, column 20"),
        (b"\0asm" + MARK.encode(), "byte 4"),
        (binary(f'(module (func (export "{MARK}")))')[:-12] + MARK.encode(), "byte"),
        (binary(f'(module (func (export "{MARK}")) (func (export "{MARK}")))'), "byte 35"),
        (binary('(module (func (export "_start")))') + b"\x63" + MARK.encode() + bytes(SMALL_BYTES_MAX), "byte 38"),
        (f'(module (import "{MARK}" "{MARK}" (func)) (func (export "_start")))'.encode(), "import 1"),
        (f'(module (func ${MARK} (export "_start") unreachable))'.encode(), "in function 0, byte 34"),
    ],
    ids=["text", "name in text", "binary", "cut", "name in binary", "compiled apart", "import", "trap"],
)
def test_no_error_quotes_the_module(executor: WasmExecutor, source: bytes, where: str) -> None:
    """The host writes it to its disk in the clear."""
    outcome = run(executor, wasm(source))
    assert where in outcome.error_detail
    for word in (MARK, MARK[:4], MARK.encode()[:4].hex(), MARK.encode()[3::-1].hex(), "frobnicate"):
        assert word not in outcome.error_detail


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -1)))", "out of bounds"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(call $exit (i32.const 300))", "exit status"),
    ],
)
def test_a_trap_is_an_error_with_its_message(executor: WasmExecutor, body: str, message: str) -> None:
    outcome = run(executor, wasm(module(body)))
    assert outcome.error == "ExecutionFailed"
    assert message in outcome.error_detail


def test_endless_recursion_is_a_trap(executor: WasmExecutor) -> None:
    outcome = run(executor, wasm(b'(module (func $f (export "_start") (call $f)))'))
    assert "call stack exhausted" in outcome.error_detail


@pytest.mark.parametrize("arguments", ["(i32.const -8) (i32.const 1)", "(i32.const 0) (i32.const -1)"])
def test_pointers_outside_the_memory_are_refused(executor: WasmExecutor, arguments: str) -> None:
    for name, fd in (("$fd_read", 0), ("$fd_write", 1)):
        body = f"(call $exit (call {name} (i32.const {fd}) {arguments} (i32.const 8)))"
        assert run(executor, wasm(module(body))).exit_code == 21  # EFAULT


def test_a_memory_bomb_stops_at_the_limit(executor: WasmExecutor) -> None:
    body = """(loop $l
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (memory.fill (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1048576))
          (i32.const 1) (i32.const 1048576))
        (br $l))"""
    outcome = run(executor, wasm(module(body)))
    assert outcome.error == "ExecutionFailed"
    assert f"limited to {MEMORY_BYTES} bytes" in outcome.error_detail


@pytest.mark.parametrize("body", [SPIN, SLEEP], ids=["loop", "sleep"])
def test_the_deadline_ends_what_has_no_end(executor: WasmExecutor, body: str) -> None:
    run(executor, wasm(module(body)), 1)  # compiled, from here on
    started = time.monotonic()
    outcome = run(executor, wasm(module(body)), 200)
    assert time.monotonic() - started >= 0.2
    assert (outcome.error, outcome.exit_code) == ("JobTimeout", -1)


def test_a_sleep_ends_when_its_time_has_come(executor: WasmExecutor) -> None:
    body = SLEEP.replace("3600000000000", "50000000")
    started = time.monotonic()
    assert run(executor, wasm(module(body))).error == ""
    assert time.monotonic() - started >= 0.05


def test_output_without_end_is_stopped_at_the_cap(executor: WasmExecutor) -> None:
    outcome = run(executor, wasm(module(SHOUT.replace("FD", "1"))))
    assert (outcome.error, outcome.output) == ("OutputTooLarge", b"")


def test_output_of_exactly_the_cap_is_allowed(executor: WasmExecutor) -> None:
    echo = """(loop $l
        (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $l (i32.load (i32.const 4))))"""
    stdin = os.urandom(OUTPUT_BYTES_MAX)
    assert run(executor, wasm(module(echo), stdin)).output == stdin


def test_a_log_without_end_is_cut_and_marked(executor: WasmExecutor) -> None:
    outcome = run(executor, wasm(module(SHOUT.replace("FD", "2"))), 300)
    assert outcome.error == "JobTimeout"
    assert len(outcome.log) == LOG_BYTES_MAX
    assert outcome.log.endswith(LOG_MARK)


def test_what_is_written_at_once_is_taken_in_pieces(executor: WasmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    monkeypatch.setattr(Capture, "write_log", lambda self, data: pieces.append(len(data)))
    grown = "(drop (memory.grow (i32.const 100))) (i32.store (i32.const 4) (i32.const 6000000))"
    body = f"""{grown} (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.ne (i32.load (i32.const 8)) (i32.const 6000000)) (then unreachable))"""
    assert run(executor, wasm(module(body))).error == ""
    assert (sum(pieces), max(pieces)) == (6_000_000, PIECE_BYTES)


def test_a_call_that_hands_over_all_memory_again_and_again_ends_when_the_run_does(executor: WasmExecutor) -> None:
    """1,024 times 15 MiB, which would take a minute."""
    vectors = """(local $i i32) (loop $l (i32.store (local.get $i) (i32.const 65536))
      (i32.store offset=4 (local.get $i) (i32.const 15000000))
      (local.set $i (i32.add (local.get $i) (i32.const 8))) (br_if $l (i32.lt_u (local.get $i) (i32.const 8192))))"""
    body = f"""{vectors} (drop (memory.grow (i32.const 240)))
      (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1024) (i32.const 9000)))"""
    outcome = run(executor, wasm(module(body)), 300)
    assert outcome.error == "JobTimeout"
    assert executor.running == 0


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ("(table 100001 funcref)", "declares 1 tables, the largest of 100001 elements"),
        ("(table 1 2 externref) (table 1048576 funcref)", "declares 2 tables, the largest of 1048576 elements"),
        ("(table 0 funcref) " * 9, "declares 9 tables"),
    ],
)
def test_tables_that_no_store_would_hold_are_not_even_compiled(executor: WasmExecutor, tables: str, why: str) -> None:
    outcome = run(executor, wasm(f'(module {tables} (func (export "_start")))'.encode()))
    assert outcome.error == "ExecutionFailed"
    assert why in outcome.error_detail


def test_tables_of_the_usual_size_are_there(executor: WasmExecutor) -> None:
    source = '(module (table 100000 funcref) (func $f (export "_start")) (elem (i32.const 7) $f))'
    assert run(executor, wasm(source.encode())).error == ""


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_declare_some_tables(data: bytes, whole: bool) -> None:
    for elements in table_elements(b"\0asm\1\0\0\0" + (b"\4\x20" if whole else b"") + data):
        assert elements >= 0


@pytest.mark.parametrize("body", [SPIN, SLEEP], ids=["loop", "sleep"])
def test_cancelling_the_task_ends_the_work(executor: WasmExecutor, body: str) -> None:
    async def cancel() -> float:
        task = asyncio.create_task(executor.run(Work(wasm(module(body)), 60_000)))
        await occupied(executor)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert executor.running == 0
        return time.monotonic() - started

    assert asyncio.run(cancel()) < 5


def test_close_stops_what_runs(executor: WasmExecutor) -> None:
    async def close() -> Outcome:
        task = asyncio.create_task(executor.run(Work(wasm(module(SPIN)), 60_000)))
        await occupied(executor)
        executor.close()
        return await task

    assert asyncio.run(close()).error == "Cancelled"


def test_runs_are_parallel_and_the_loop_stays_free(executor: WasmExecutor) -> None:
    spin_ms = 600

    async def both() -> tuple[int, list[Outcome]]:
        tasks = [asyncio.create_task(executor.run(Work(wasm(module(SPIN)), spin_ms))) for _ in range(2)]
        turns = 0
        overlapped = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.001)
            turns += 1
            overlapped = max(overlapped, executor.running)
        assert overlapped == 2
        return turns, [task.result() for task in tasks]

    turns, outcomes = asyncio.run(both())
    assert [outcome.error for outcome in outcomes] == ["JobTimeout", "JobTimeout"]
    assert turns > 10


def test_every_slot_has_room_to_run_at_once() -> None:
    slots = 40
    executor = WasmExecutor(MEMORY_BYTES, slots)

    async def fill() -> None:
        tasks = [asyncio.create_task(executor.run(Work(wasm(module(SLEEP)), 600_000))) for _ in range(slots)]
        while executor.running < slots:  # noqa: ASYNC110 - threads begin, and set no event
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(fill())
    executor.close()


def test_a_stop_hits_its_own_run_only(executor: WasmExecutor) -> None:
    async def two() -> list[Outcome]:
        long = wasm(programs.load("textstats"), b"x" * 200_000, "500")
        return list(await asyncio.gather(executor.run(Work(wasm(module(SPIN)), 50)), executor.run(Work(long, 30_000))))

    killed, finished = asyncio.run(two())
    assert (killed.error, finished.error, finished.exit_code) == ("JobTimeout", "", 0)


def large_module(loops: int) -> bytes:
    """Costs far more to compile than its size suggests: every loop joins a thousand variables."""
    code = "".join(
        f"(loop (local.set {i % 1000} (i32.add (local.get {i * 7 % 1000}) (local.get {i * 13 % 1000})))"
        f" (br_if 0 (local.get {i * 3 % 1000})))"
        for i in range(loops)
    )
    text = f'(module (func (export "_start")) (func (local {"i32 " * 1000}) {code}))'
    return bytes(wasmtime.wat2wasm(text))


def test_a_larger_module_is_compiled_apart_and_kept(executor: WasmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    source = large_module(1200)
    assert len(source) > modules.SMALL_BYTES_MAX
    assert run(executor, wasm(source)).error == ""
    monkeypatch.delattr("offgrid_node.executors.wasm.compile_apart")
    assert run(executor, wasm(source)).error == ""


def test_a_larger_module_that_is_none_is_said(executor: WasmExecutor) -> None:
    outcome = run(executor, wasm(b"\0asm\1\0\0\0" + bytes(modules.SMALL_BYTES_MAX)))
    assert outcome.error == "ExecutionFailed"
    assert "not a WebAssembly module" in outcome.error_detail


def test_a_module_that_takes_for_ever_to_compile_is_stopped_at_the_deadline(executor: WasmExecutor) -> None:
    source = large_module(20_000)
    outcome = run(executor, wasm(source), 300)
    assert outcome.error == "JobTimeout"
    assert executor.running == 0


@pytest.mark.skipif(sys.platform != "linux", reason="no address-space limit elsewhere")
def test_a_module_that_takes_too_much_memory_to_compile_is_refused(
    executor: WasmExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offgrid_node.executors.compiler.MEMORY_BYTES", 300 * 1024 * 1024)
    outcome = run(executor, wasm(large_module(6000)))
    assert outcome.error == "ExecutionFailed"
    assert "compiling it takes more than" in outcome.error_detail


def no_compiler(binary: bytes) -> bytes:
    raise AssertionError("small modules are compiled here")


def test_compiled_modules_are_kept_within_their_bound() -> None:
    cache = modules.CompiledModules(bytes_max=40_000)
    engine = modules.new_engine()
    linker = wasmtime.Linker(engine)
    for number in range(10):
        source = f'(module (func (export "_start") (drop (i32.const {number}))))'.encode()
        cache.link(engine, linker, source, modules.digest_of_module(source), no_compiler)
    assert 1 <= len(cache) < 10


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_fifty_runs_leave_no_descriptor_and_no_memory_behind(executor: WasmExecutor) -> None:
    async def fifty() -> None:
        for number in range(50):
            body = (SPIN, "unreachable", "(call $exit (i32.const 3))", SHOUT.replace("FD", "1"))[number % 4]
            await executor.run(Work(wasm(module(body)), 20))

    def used() -> tuple[int, int]:
        gc.collect()
        # A worker thread's stack and heap are maps too; the pool may still grow, up to its bound.
        idle = MAPS_PER_THREAD * threading.active_count()
        maps = len(Path("/proc/self/maps").read_text().splitlines()) - idle
        return len(os.listdir("/proc/self/fd")), maps

    asyncio.run(fifty())
    descriptors, maps = used()
    asyncio.run(fifty())
    asyncio.run(fifty())
    assert used()[0] == descriptors
    assert used()[1] <= maps + 20
    assert threading.active_count() <= SLOTS + 2


def test_a_memory_that_has_grown_is_written_where_it_lies_now(executor: WasmExecutor) -> None:
    """Between two calls of one run it may move."""
    body = """(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 1))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (memory.grow (i32.const 200)))
      (i32.store (i32.const 0) (i32.const 13000000))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    assert run(executor, wasm(module(body), b"ab")).output == b"b"


def test_a_module_without_a_memory_is_told_so_by_every_call_that_needs_one(executor: WasmExecutor) -> None:
    """21 is EFAULT; anything else ends it early."""
    reads = '(import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))'
    call = "(call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))"
    body = f"(if (i32.ne {call} (i32.const 21)) (then unreachable))"
    for export in ("", '(memory (export "other") 1)', '(global (export "memory") i32 (i32.const 1))'):
        source = f'(module {reads} {export} (func (export "_start") {body}))'.encode()
        assert run(executor, wasm(source)).error == "", export


def test_a_module_calls_from_its_start_section_too(executor: WasmExecutor) -> None:
    hello = """(data (i32.const 100) "hi")"""
    body = """(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 2))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    source = module("", f"{hello} (func $early {body}) (start $early)")
    assert run(executor, wasm(source)).output == b"hi"


def test_after_it_was_closed_nothing_runs(executor: WasmExecutor) -> None:
    executor.close()
    assert run(executor, wasm(module(""))).error == "Cancelled"
