"""textstats: the shipped program counts as Python and `wc` count."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from importlib import resources

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.executors.executor import Outcome, Work
from offgrid_node.executors.wasm import WasmExecutor

EXECUTOR = WasmExecutor(64 * 1024 * 1024, 4)
SOURCE = programs.load("textstats")
TEXT = (resources.files("offgrid_node") / "demo_text.txt").read_bytes()


def run(data: bytes, *args: str) -> Outcome:
    task = jobs_pb2.WasmTask(module=SOURCE, args=args)
    return asyncio.run(EXECUTOR.run(Work(jobs_pb2.JobPayload(wasm=task, input=data), 30_000)))


def counted(data: bytes, *args: str) -> dict[str, str]:
    outcome = run(data, *args)
    assert (outcome.error, outcome.exit_code, outcome.log) == ("", 0, b"")
    return dict(line.split(" ") for line in outcome.output.decode().splitlines())


def expected(data: bytes) -> dict[str, str]:
    fnv = 0xCBF29CE484222325
    for byte in data:
        fnv = ((fnv ^ byte) * 0x100000001B3) & (2**64 - 1)
    return {
        "lines": str(data.count(b"\n")),
        "words": str(len(data.split())),
        "bytes": str(len(data)),
        "longest_line": str(max(len(line) for line in data.split(b"\n"))),
        "fnv1a64": f"{fnv:016x}",
    }


texts = st.lists(st.sampled_from([b"a", b"word", b" ", b"\t", b"\n", b"\v", b"\f", b"\r", b"\0", b"\xff"])).map(
    b"".join
)


@given(st.one_of(st.binary(max_size=300), texts))
@example(b"")
@example(b"\n")
@example(b"no line feed at the end")
def test_it_counts_as_python_does(data: bytes) -> None:
    assert counted(data) == expected(data)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 131072, 300_001])
def test_input_longer_than_its_memory_at_first(size: int) -> None:
    data = hashlib.shake_128(size.to_bytes(8)).digest(size)
    assert counted(data) == expected(data)


def test_the_largest_input_fits() -> None:
    assert counted(b"ab \n" * (512 * 1024))["words"] == str(512 * 1024)


@pytest.mark.parametrize("times", ["1", "2", "17", "007"])
def test_counting_again_gives_the_same_answer(times: str) -> None:
    assert run(TEXT, times).output == run(TEXT).output


@pytest.mark.parametrize("args", [["0"], [""], ["-1"], ["1x"], ["4294967296"], ["9" * 40], ["1", "2"], ["9" * 4096]])
def test_a_bad_argument_is_said(args: list[str]) -> None:
    outcome = run(b"x", *args)
    assert (outcome.exit_code, outcome.error, outcome.output) == (2, "", b"")
    assert b"usage: textstats [N]" in outcome.log


@pytest.mark.skipif(shutil.which("wc") is None, reason="wc is not installed")
def test_it_agrees_with_wc_on_the_text_that_ships() -> None:
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    answer = subprocess.run(["wc"], input=TEXT, env=environment, capture_output=True, check=True)  # noqa: S607
    counts = counted(TEXT)
    assert answer.stdout.split() == [counts[key].encode() for key in ("lines", "words", "bytes")]


def test_programs_are_listed_and_loaded_by_name() -> None:
    assert programs.names() == ("textstats", "upper")
    with pytest.raises(KeyError, match="textstats"):
        programs.load("../textstats")
