"""What a client of the prototype says of its work, and the job that it means."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.gateway.old_bodies import read_plain
from offgrid_node.gateway.old_payloads import COMPUTE, LLM_CALL, flag_in, payload_of, spec_of
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import check_payload, needs_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = [
    "command",
    "args",
    "input",
    "wasm",
    "prompt",
    "model",
    "messages",
    "stop",
    "seed",
    "size",
    "timeout",
    "payload",
]


@pytest.mark.parametrize(
    ("kind", "said", "needs", "given_input"),
    [
        (COMPUTE, {"command": "wc", "args": ["-w", 3], "input": "a b"}, "process:wc", b"a b"),
        (COMPUTE, {"wasm": "(module)", "input": {"n": 1}}, "wasm", b'{"n": 1}'),
        (COMPUTE, {"wasm": base64.b64encode(b"\0asm").decode(), "input_base64": "AP8="}, "wasm", b"\0\xff"),
        (COMPUTE, {"builtin": "echo", "input": "ä"}, "builtin:echo", "ä".encode()),
        (COMPUTE, {"data": [1, 2]}, "builtin:echo", b'{"data": [1, 2]}'),
        (COMPUTE, "hello", "builtin:echo", b"hello"),
        (COMPUTE, None, "builtin:echo", b""),
        (COMPUTE, {"prompt": "why?", "model": "tiny"}, "llm:tiny", b"why?"),
        (LLM_CALL, "why?", "llm:first", b"why?"),
        (LLM_CALL, {"prompt": "why?", "model": "tiny", "max_tokens": "16", "seed": 3}, "llm:tiny", b"why?"),
    ],
)
def test_work_is_what_it_names(kind: str, said: object, needs: str, given_input: bytes) -> None:
    payload = payload_of(kind, said, ["first", "second"])
    check_payload(payload)
    assert (needs_of(payload), payload.input) == (needs, given_input)


def test_a_conversation_is_as_openai_has_it() -> None:
    said = {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
        "system": "be short",
        "prompt": "so?",
        "model": "m",
        "temperature": 0,
        "stop": ".",
    }
    llm = payload_of(LLM_CALL, said).llm
    assert [(each.role, each.content) for each in llm.messages] == [
        ("system", "be short"),
        ("user", "hi"),
        ("assistant", "ho"),
    ]
    assert (llm.temperature, list(llm.stop), llm.HasField("seed")) == (0, ["."], False)


@pytest.mark.parametrize(
    ("said", "size_tokens", "timeout_ms"),
    [
        ({"size": 0.25, "timeout": 2}, 250_000, 2_000),
        ({"size": "0.0000001", "timeout": "0.5"}, 1, 500),
        ({"timeout_ms": "700", "timeout": 2}, 0, 700),
        ({}, 0, 0),
    ],
)
def test_sizes_are_millions_of_tokens_and_numbers_may_be_texts(
    said: dict[str, Any], size_tokens: int, timeout_ms: int
) -> None:
    spec = spec_of(COMPUTE, said)
    assert (spec.size_tokens, spec.timeout_ms) == (size_tokens, timeout_ms)


def test_a_body_without_a_payload_is_one_but_for_what_is_about_the_job() -> None:
    said = {"job_id": "j", "type": COMPUTE, "size": 1, "timestamp": 1, "signature": "s", "command": "wc", "priority": 5}
    spec = spec_of(COMPUTE, said)
    assert (needs_of(spec.payload), spec.priority) == ("process:wc", 5)
    assert spec_of(COMPUTE, {"job_id": "j", "size": 1, "n": 7}).payload.input == b'{"n": 7}'


@pytest.mark.parametrize(
    ("kind", "said", "field"),
    [
        (LLM_CALL, {"payload": {"prompt": "x"}}, "payload.model"),
        (LLM_CALL, {"payload": {"model": "m", "messages": "x"}}, "payload.messages"),
        (COMPUTE, {"payload": {"command": ["wc"]}}, "command"),
        (COMPUTE, {"payload": {"command": "wc", "args": "-w"}}, "payload.args"),
        (COMPUTE, {"payload": {"wasm": "!"}}, "payload.wasm"),
        (COMPUTE, {"payload": {"command": "wc", "input_base64": "!"}}, "payload.input_base64"),
        (COMPUTE, {"size": -1}, "size"),
        (COMPUTE, {"size": "much"}, "size"),
        (COMPUTE, {"size": True}, "size"),
        (COMPUTE, {"size": 10**30}, "size"),
        (COMPUTE, {"timeout": 10**9}, "timeout"),
        (COMPUTE, {"priority": 101}, "priority"),
    ],
)
def test_what_is_wrong_is_named(kind: str, said: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spec_of(kind, said)
    assert caught.value.violations[0].field == field


@given(st.sampled_from([COMPUTE, LLM_CALL]), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), JSON))
def test_whatever_is_said_is_a_job_or_the_callers_fault(kind: str, said: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        assert isinstance(spec_of(kind, said, ["m"]), jobs_pb2.JobSpec)


@pytest.mark.parametrize(
    ("said", "meant"), [(True, True), ("on", True), (1, True), ("No", False), (0, False), ("disabled", False)]
)
def test_a_switch_is_understood_as_people_write_it(said: object, meant: bool) -> None:
    assert flag_in({"enabled": said}, "enabled") is meant
    assert flag_in({}, "enabled") is None


def test_numbers_count_as_what_they_are() -> None:
    read = read_plain(b'{"a": [1, -2.50, 1e3], "b": %s, "c": "1", "d": {"e": [[]]}}' % (b"9" * 30))
    assert read == {"a": [1, -2.5, 1000.0], "b": 1e30, "c": "1", "d": {"e": [[]]}}
    assert isinstance(read["a"][0], int)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 400, "9" * 5_000])
def test_a_number_above_all_numbers_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"above all numbers: -?[19]"):
        read_plain(b'{"title": %s}' % text.encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[1]", "no object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", ""),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
        (b'{"a": ' * 5_000, "not JSON"),
    ],
)
def test_what_no_program_could_have_meant_is_refused(body: bytes, said: str) -> None:
    if not said:
        assert read_plain(body)
        return
    with pytest.raises(InvalidRequest) as caught:
        read_plain(body)
    assert said in f"{caught.value.message} {caught.value.violations}"
