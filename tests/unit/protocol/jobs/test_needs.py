"""What a payload may be, what it needs, how large it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.config import load
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import (
    ARG_BYTES_MAX,
    ARGS_MAX,
    INPUT_BYTES_MAX,
    MODULE_BYTES_MAX,
    check_payload,
    estimate_tokens,
    how_offered,
    needs_of,
)


def wasm(module: bytes = b"(module)", args: list[str] | None = None, stdin: bytes = b"") -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=module, args=args or []), input=stdin)


def process(command: str, args: list[str] | None = None) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command=command, args=args or []))


@pytest.mark.parametrize(
    "payload",
    [
        wasm(module=b"x" * MODULE_BYTES_MAX, args=["x" * ARG_BYTES_MAX] * ARGS_MAX),
        wasm(stdin=bytes(INPUT_BYTES_MAX)),
        process("wc"),
        process("7z"),
        process("python3.11-x_y"),
        process("a" * 63),
        process("wc", ["", "-l", "$(id)", "ä"]),
    ],
)
def test_right_payloads_pass_up_to_each_bound(payload: jobs_pb2.JobPayload) -> None:
    check_payload(payload)


@pytest.mark.parametrize(
    ("needs", "line"),
    [
        ("process:wc", '[host.process] commands = { wc = "/usr/bin/wc" }'),
        ("wasm", "[host.wasm] enabled = true"),
        ("python:3.11", "[host.python] enabled = true"),
        ("llm:qwen", '[host.llm] endpoint = "http://127.0.0.1:11434/v1"'),
        ("dask:3.11", '[host.dask] scheduler = "tcp://127.0.0.1:8786"'),
    ],
)
def test_what_has_a_host_offer_it_can_be_written_into_its_config(needs: str, line: str, tmp_path: Path) -> None:
    assert how_offered(needs) == f"; a host, started anew, offers it with {line} in its offgrid.toml"
    file = tmp_path / "offgrid.toml"
    file.write_text('[mesh]\nname = "home"\n' + line.replace("] ", "]\n") + "\n")
    load(file, {})


@pytest.mark.parametrize("needs", ["builtin:echo", "process:python3.11", "of a newer node:x"])
def test_of_what_nobody_can_write_nothing_is_said(needs: str) -> None:
    assert how_offered(needs) == ""


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (jobs_pb2.JobPayload(), "payload.executor"),
        (wasm(module=b""), "payload.wasm.module"),
        (wasm(module=b"x" * (MODULE_BYTES_MAX + 1)), "payload.wasm.module"),
        (wasm(args=["x"] * (ARGS_MAX + 1)), "payload.wasm.args"),
        (wasm(args=["ok", "x" * (ARG_BYTES_MAX + 1)]), "payload.wasm.args[1]"),
        (wasm(args=["é" * (ARG_BYTES_MAX // 2) + "x"]), "payload.wasm.args[0]"),
        (process("wc", ["a\0b"]), "payload.process.args[0]"),
        (wasm(stdin=bytes(INPUT_BYTES_MAX + 1)), "payload.input"),
        (jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc"), input_name="x" * 1025), "payload.input_name"),
        *[
            (process(name), "payload.process.command")
            for name in (
                "",
                ".",
                "..",
                "../sh",
                "/bin/sh",
                "a/b",
                "a\\b",
                "Wc",
                "-x",
                ".x",
                "_x",
                "wc\n",
                "a b",
                "a" * 64,
            )
        ],
    ],
)
def test_wrong_payloads_name_the_field(payload: jobs_pb2.JobPayload, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_payload(payload)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_every_problem_is_said_at_once() -> None:
    payload = process("../sh", ["\0", "x" * (ARG_BYTES_MAX + 1)])
    payload.input = bytes(INPUT_BYTES_MAX + 1)
    with pytest.raises(InvalidRequest) as caught:
        check_payload(payload)
    assert len(caught.value.violations) == 4
    assert str(INPUT_BYTES_MAX) in caught.value.message
    assert "name an object that holds more" in caught.value.message


def test_needs_are_the_labels_that_hosts_offer() -> None:
    assert needs_of(wasm()) == "wasm"
    assert needs_of(process("wc")) == "process:wc"
    with pytest.raises(InvalidRequest):
        needs_of(jobs_pb2.JobPayload())


@pytest.mark.parametrize(("input_bytes", "tokens"), [(0, 1), (3, 1), (8, 2), (4000, 1000)])
def test_tokens_are_a_quarter_of_the_input_and_at_least_one(input_bytes: int, tokens: int) -> None:
    assert estimate_tokens(input_bytes) == tokens


def test_a_job_has_one_input() -> None:
    inputs = (
        {"input": b"x"},
        {"input_object_id": "o-x"},
        {"input_object": jobs_pb2.ObjectRef(key=b"k")},
    )
    for one in inputs:
        check_payload(jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc"), **one))
        for other in inputs:
            if other is not one:
                with pytest.raises(InvalidRequest, match="beside another input"):
                    check_payload(jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="wc"), **one, **other))


def test_what_an_executor_is_given_may_be_larger_than_what_a_call_brings() -> None:
    payload = wasm(stdin=bytes(INPUT_BYTES_MAX + 1))
    check_payload(payload, input_bytes_max=INPUT_BYTES_MAX + 1)
