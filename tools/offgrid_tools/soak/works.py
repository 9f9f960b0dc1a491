"""The kinds of jobs that clients of the soak want done, and what each must come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

import msgspec

from offgrid.client import payloads
from offgrid.client.functions import PYTHON, encode_call, encode_function
from offgrid.client.options import JobOptions
from offgrid.v1 import jobs_pb2

SHORT_S = (0.1, 0.6)
FILE_BYTES_MAX = 20_000
OUTSIDE = "outside"  # a command that no node has: whoever looks into the drop folder does it

# Copies its input to its output and exits.
ECHO = b"""(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 4) (i32.load (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"""


class Want(msgspec.Struct, frozen=True):
    """One job: how it is asked for, what comes back, and whether its client will change its mind."""

    payload: jobs_pb2.JobPayload
    expected: bytes
    options: JobOptions = msgspec.field(default_factory=JobOptions)
    files: dict[str, bytes] = msgspec.field(default_factory=dict)  # that it leaves
    taken_back: bool = False
    mode: str = ""
    has_receipt: bool = True  # else nobody signs for it


def _module(content: bytes, rng: Random) -> Want:
    return Want(payloads.wasm(ECHO, input=content), content)


def _program(content: bytes, rng: Random) -> Want:
    script = f"sleep {rng.uniform(*SHORT_S):.2f}; cat"
    return Want(payloads.command("sh", ["-c", script], input=content), content)


def _builtin(content: bytes, rng: Random) -> Want:
    return Want(payloads.builtin(input=content), content)


def _redundant(content: bytes, rng: Random) -> Want:
    want = _module(content, rng) if rng.random() < 0.5 else _program(content, rng)
    return Want(want.payload, content, JobOptions(replicas=2, quorum=2))


def _with_files(content: bytes, rng: Random) -> Want:
    brought = rng.randbytes(rng.randint(1, FILE_BYTES_MAX))
    script = "mkdir out; cat in/a in/a > out/twice; cat"
    options = JobOptions(files={"in/a": brought}, outputs=["out/*"])
    payload = payloads.command("sh", ["-c", script], input=content)
    return Want(payload, content, options, {"out/twice": 2 * brought})


def _taken_back(content: bytes, rng: Random) -> Want:
    want = _module(content, rng) if rng.random() < 0.3 else _program(content, rng)
    return Want(want.payload, content, taken_back=True)


def _function(content: bytes, rng: Random) -> Want:
    call = encode_call((content, rng.uniform(*SHORT_S)))
    return Want(jobs_pb2.JobPayload(python=_given_back(), input=call), content)


def _dropped(content: bytes, rng: Random) -> Want:
    payload = payloads.command(OUTSIDE, input=content)
    return Want(payload, content, mode="disabled", has_receipt=False)


def _give_back(content: bytes, seconds: float) -> bytes:
    time.sleep(seconds)
    return content


@cache
def _given_back() -> jobs_pb2.PythonTask:
    return jobs_pb2.PythonTask(function=encode_function(_give_back), python=PYTHON, name="give_back")


KINDS: Sequence[Callable[[bytes, Random], Want]] = (
    *(_module, _module, _module),
    *(_program, _program, _program),
    *(_function, _function),
    *(_builtin, _redundant, _with_files, _taken_back, _dropped),
)


def draw(content: bytes, rng: Random) -> Want:
    """Some kind of job about `content`."""
    return rng.choice(KINDS)(content, rng)


def chain(contents: Sequence[bytes]) -> tuple[list[jobs_pb2.JobSpec], list[bytes]]:
    """Jobs for one call, each after the one before it, and what they must come to."""
    specs = [
        jobs_pb2.JobSpec(payload=payloads.builtin(input=content), after=[f"#{number - 1}"] if number else [])
        for number, content in enumerate(contents)
    ]
    return specs, [*contents]


def array(contents: Sequence[bytes], rng: Random) -> tuple[list[jobs_pb2.JobSpec], list[bytes]]:
    """The same of an array, one program on each of them, and a last job after all that is given what the first made."""
    script = f"sleep {rng.uniform(*SHORT_S):.2f}; cat"
    each = [jobs_pb2.JobSpec(payload=payloads.command("sh", ["-c", script], input=content)) for content in contents]
    last = jobs_pb2.JobSpec(
        payload=payloads.command("sh", ["-c", "cat; echo"]), after=[f"#{n}" for n in range(len(each))]
    )
    last.payload.input_job = "#0"
    return [*each, last], [*contents, contents[0] + b"\n"]
