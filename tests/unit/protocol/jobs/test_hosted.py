"""Functions and conversations as payloads: what each field may be, and what they need of a host."""

from __future__ import annotations

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs import hosted
from offgrid_node.protocol.jobs.needs import check_payload, estimate_tokens, leaves_traces, needs_of


def python(**changes: object) -> jobs_pb2.JobPayload:
    fields = {"function": b"f", "python": "3.11", "name": "m.f"} | changes
    return jobs_pb2.JobPayload(python=jobs_pb2.PythonTask(**fields))


def dask(**changes: object) -> jobs_pb2.JobPayload:
    fields = {"function": b"f", "python": "3.11"} | changes
    return jobs_pb2.JobPayload(dask=jobs_pb2.DaskTask(**fields))


def llm(*said: tuple[str, str], **changes: object) -> jobs_pb2.JobPayload:
    messages = [jobs_pb2.ChatMessage(role=role, content=content) for role, content in said or [("user", "hi")]]
    fields = {"model": "llama3.2:3b", "messages": messages} | changes
    return jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(**fields))


@pytest.mark.parametrize(
    "payload",
    [
        python(),
        python(python="3.9", name=""),
        python(function=bytes(hosted.FUNCTION_BYTES_MAX)),
        dask(),
        llm(),
        llm(("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", "more")),
        llm(model="meta-llama/Llama-3.1-8B-Instruct"),
        llm(temperature=0.0, max_tokens=1, seed=hosted.SEED_MAX, stop=["\n"] * hosted.STOPS_MAX),
        jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="m"), input=b"what is said"),
        jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="m"), input_object_id="o-x"),
    ],
)
def test_right_payloads_pass(payload: jobs_pb2.JobPayload) -> None:
    check_payload(payload)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (python(function=b""), "payload.python.function"),
        (python(function=bytes(hosted.FUNCTION_BYTES_MAX + 1)), "payload.python.function"),
        *[
            (python(python=text), "payload.python.python")
            for text in ("", "3", "3.", "2.7", "3.111", "3.11.7", "3.11\n")
        ],
        (python(name="a\nb"), "payload.python.name"),
        (python(name="x" * (hosted.FUNCTION_NAME_CHARS_MAX + 1)), "payload.python.name"),
        (dask(function=b""), "payload.dask.function"),
        (dask(python="snake"), "payload.dask.python"),
        *[(llm(model=text), "payload.llm.model") for text in ("", " m", "m\n", "-m", "a b", "../m", "m" * 101)],
        (jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="m")), "payload.llm.messages"),
        (llm(*[("user", "x")] * (hosted.MESSAGES_MAX + 1)), "payload.llm.messages"),
        (llm(("user", "x" * (hosted.MESSAGES_BYTES_MAX + 1))), "payload.llm.messages"),
        (llm(("user", "x"), ("tool", "x")), "payload.llm.messages[1].role"),
        *[(llm(temperature=number), "payload.llm.temperature") for number in (-0.1, 2.1, float("nan"), float("inf"))],
        (llm(max_tokens=hosted.ANSWER_TOKENS_MAX + 1), "payload.llm.max_tokens"),
        (llm(seed=hosted.SEED_MAX + 1), "payload.llm.seed"),
        (llm(stop=["x"] * (hosted.STOPS_MAX + 1)), "payload.llm.stop"),
        (llm(stop=["x", ""]), "payload.llm.stop[1]"),
        (llm(stop=["ü" * hosted.STOP_BYTES_MAX]), "payload.llm.stop[0]"),
    ],
)
def test_wrong_ones_name_the_field(payload: jobs_pb2.JobPayload, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_payload(payload)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_what_they_need_of_a_host_has_the_version_or_the_model_in_it() -> None:
    assert needs_of(python()) == "python:3.11"
    assert needs_of(dask(python="3.12")) == "dask:3.12"
    assert needs_of(llm()) == "llm:llama3.2:3b"


def test_all_of_them_leave_traces() -> None:
    assert all(leaves_traces(payload) for payload in (python(), dask(), llm()))


def test_the_size_of_a_conversation_is_what_was_said_and_what_is_wanted() -> None:
    asked = llm(("system", "x" * 40), ("user", "x" * 40), max_tokens=100)
    assert estimate_tokens(400, asked) == (400 + 80) // 4 + 100
    assert estimate_tokens(400, python()) == 100
