"""JSON, path and query into request messages: what is taken, and what is said of all that is not."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from offgrid.json_form import json_of
from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2, state_pb2
from offgrid_node.gateway import json_requests
from offgrid_node.gateway.json_requests import KEYS_MAX, PROBLEMS_MAX, read_request
from offgrid_node.protocol.errors import Exhausted, InvalidRequest

RUN = jobs_pb2.RunJobsRequest(
    task_id="t-1",
    mode=jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs=[jobs_pb2.JobSpec(timeout_ms=2**31, payload=jobs_pb2.JobPayload(input=b"\x00\xff", input_name="a"))],
)


def refused(kind: type[Message], body: Any, **path: str) -> dict[str, str]:
    """What was wrong, by field."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as found:
        read_request(kind, raw, path)
    return {each.field: each.description for each in found.value.violations} or {"": found.value.message}


def test_a_request_is_what_the_command_prints_and_what_protobuf_prints() -> None:
    for document in (json_of(RUN), json_format.MessageToDict(RUN)):
        assert read_request(jobs_pb2.RunJobsRequest, json.dumps(document).encode(), {}) == RUN


def test_no_body_is_a_message_without_fields_and_null_is_a_field_that_is_not_set() -> None:
    for body in (b"", b" \n", b"{}", b'{"task_id": null}'):
        assert read_request(jobs_pb2.RunJobsRequest, body, {}) == jobs_pb2.RunJobsRequest()


@pytest.mark.parametrize(
    ("kind", "field", "least", "most"),
    [
        (jobs_pb2.JobResult, "exit_code", -(2**31), 2**31 - 1),
        (jobs_pb2.JobSpec, "timeout_ms", 0, 2**32 - 1),
        (jobs_pb2.Attempt, "started_us", -(2**63), 2**63 - 1),
        (objects_pb2.WriteUploadRequest, "offset", 0, 2**64 - 1),
    ],
)
def test_an_integer_has_the_bounds_of_its_kind(kind: type[Message], field: str, least: int, most: int) -> None:
    for number in (least, most):
        for form in (number, str(number)):
            assert getattr(read_request(kind, json.dumps({field: form}).encode(), {}), field) == number
    for number in (least - 1, most + 1):
        assert str(most) in refused(kind, {field: number})[field]


def test_path_and_query_say_fields_too() -> None:
    asked = read_request(state_pb2.AskCountRequest, None, {}, [("scope.since_us", "-5"), ("etype", "14")])
    assert asked == state_pb2.AskCountRequest(etype=14, scope=state_pb2.AskScope(since_us=-5))
    listed = read_request(
        jobs_pb2.ListJobsRequest,
        None,
        {},
        [("states", "JOB_STATE_RUNNING"), ("states", "5"), ("pageSize", "7"), ("newest_first", "true")],
    )
    assert listed == jobs_pb2.ListJobsRequest(
        states=[jobs_pb2.JOB_STATE_RUNNING, 5],
        page_size=7,
        newest_first=True,  # type: ignore[list-item]
    )
    assert read_request(jobs_pb2.DispatchJobRequest, b'{"mode": 2}', {"job_id": "a/b"}).job_id == "a/b"


@pytest.mark.parametrize(
    ("kind", "body", "field", "says"),
    [
        (jobs_pb2.CreateMissionRequest, {"titel": "a"}, "titel", "request_id; did you mean title?"),
        (mesh_pb2.GetStatusRequest, {"a": 1}, "a", "allowed: none"),
        (jobs_pb2.CreateMissionRequest, {"title": 5}, "title", "5; a text"),
        (jobs_pb2.CreateMissionRequest, {"title": "\ud800"}, "title", "surrogate"),
        (jobs_pb2.CreateMissionRequest, {"\ud800": 1}, "\\ud800", "is no field"),
        (jobs_pb2.DispatchJobRequest, {"mode": "\ud800"}, "mode", "one of"),
        (jobs_pb2.RunJobsRequest, {"jobs": {}}, "jobs", "an object; a list is allowed"),
        (jobs_pb2.RunJobsRequest, {"jobs": [{}, 5]}, "jobs[1]", "5; an object"),
        (jobs_pb2.RunJobsRequest, {"jobs": [{"payload": {"inpt": ""}}]}, "jobs[0].payload.inpt", "did you mean input"),
        (jobs_pb2.RunJobsRequest, {"mode": "OFFGRID"}, "mode", "DISPATCH_MODE_OFFGRID"),
        (jobs_pb2.RunJobsRequest, {"mode": 99}, "mode", "99; one of"),
        (jobs_pb2.CreateJobRequest, {"job": {"timeout_ms": -1}}, "job.timeout_ms", "whole number from 0"),
        (jobs_pb2.CreateJobRequest, {"job": {"timeout_ms": 1.5}}, "job.timeout_ms", "1.5; a whole number"),
        (jobs_pb2.CreateJobRequest, {"job": {"timeout_ms": True}}, "job.timeout_ms", "true; a whole number"),
        (jobs_pb2.CreateJobRequest, {"job": {"timeout_ms": "1e400"}}, "job.timeout_ms", "a whole number"),
        (jobs_pb2.ListJobsRequest, {"newest_first": "true"}, "newest_first", "true or false"),
        (objects_pb2.PutObjectRequest, {"data": "ä"}, "data", "no base64"),
        (jobs_pb2.CreateMissionRequest, b'{"title": "a", "title": "b"}', "title", "twice"),
        (jobs_pb2.CreateJobRequest, {"task_id": "a", "taskId": "b"}, "taskId", "twice, as task_id"),
        (jobs_pb2.CreateJobRequest, b'{"job": {"timeout_ms": NaN}}', "(body)", "NaN is no number"),
        (jobs_pb2.CreateMissionRequest, b"title=a&b=c", "", "looks like a form: send JSON"),
        (jobs_pb2.CreateMissionRequest, b"[]", "", "a list; send an object"),
        (jobs_pb2.CreateMissionRequest, b'{"title": }', "", "line 1, column 11"),
        (jobs_pb2.CreateMissionRequest, b"\xff{}", "", "no UTF-8: byte 0"),
        (jobs_pb2.CreateMissionRequest, b"[" * 100_000, "", "nests too deep"),
        (jobs_pb2.CreateMissionRequest, b'{"title": ' + b"9" * 5_000 + b"}", "", "a number has too many digits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_what_is_allowed(
    kind: type[Message], body: Any, field: str, says: str
) -> None:
    found = refused(kind, body)
    assert says in found[field]


def test_two_of_which_only_one_may_be() -> None:
    body = {"job": {"payload": {"process": {"command": "wc"}, "wasm": {}}}}
    assert "only one of them" in refused(jobs_pb2.CreateJobRequest, body)["job.payload.wasm"]


def test_all_that_is_wrong_is_told_at_once_but_not_without_end() -> None:
    assert refused(jobs_pb2.RunJobsRequest, {"a": 1, "mode": "x", "jobs": [5]}).keys() == {"a", "mode", "jobs[0]"}
    with pytest.raises(InvalidRequest, match="; and more"):
        read_request(jobs_pb2.RunJobsRequest, json.dumps({f"a{n}": n for n in range(100)}).encode(), {})


@pytest.mark.parametrize(
    "body",
    [
        {f"a{n}": n for n in range(KEYS_MAX - 1)},
        {"jobs": [5] * KEYS_MAX},
        {"jobs": [{"payload": {"input_name": 5}} for _ in range(KEYS_MAX // 6)]},
        b'{"a": [%s]}' % b",".join([b'{"b": 1, "b": 2}'] * 10_000),
    ],
)
def test_what_is_wrong_is_looked_for_no_further_than_it_is_told(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(text: str) -> str:
        looked.append(text)
        return text

    monkeypatch.setattr(json_requests, "_shown", look)
    assert len(refused(jobs_pb2.RunJobsRequest, body)) <= PROBLEMS_MAX
    assert len(looked) <= 10 * PROBLEMS_MAX


def test_a_key_a_thousand_times_costs_no_more_than_a_thousand_keys() -> None:
    body = b"{%s}" % b",".join(b'"a%d": 1' % (n % 40_000) for n in range(KEYS_MAX - 1))
    began_s = time.process_time()
    assert refused(jobs_pb2.RunJobsRequest, body)["a0"] == "is there twice"
    assert time.process_time() - began_s < 5  # it took minutes


def test_keys_are_bounded() -> None:
    assert KEYS_MAX == 100_000
    with pytest.raises(Exhausted, match="100000 keys"):
        read_request(jobs_pb2.RunJobsRequest, b'{"jobs": [%s{}]}' % (b"{}," * KEYS_MAX), {})


def test_a_field_is_said_in_one_place() -> None:
    assert refused(jobs_pb2.DispatchJobRequest, {"job_id": "b"}, job_id="a") == {"job_id": "is in the path already"}
    for query, says in (([("mode", "1")], "JSON in the body"), ([("x\n", "1")], "JSON in the body")):
        with pytest.raises(InvalidRequest, match=says):
            read_request(jobs_pb2.DispatchJobRequest, b"", {"job_id": "a"}, query)
    for query, says in (
        ([("job_id", "b")], "in the path already"),
        ([("job_idd", "b")], "did you mean job_id"),
        ([("job_id.x", "b")], "no field that a query parameter can say"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            read_request(jobs_pb2.GetJobRequest, None, {"job_id": "a"} if "already" in says else {}, query)
    with pytest.raises(InvalidRequest, match="2 times"):
        read_request(jobs_pb2.GetJobRequest, None, {}, [("job_id", "a"), ("job_id", "b")])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["jobs", "mode", "task_id"]), inner),
    max_leaves=10,
)


@given(JSON)
def test_any_document_is_a_message_or_an_error_in_words(document: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        read_request(jobs_pb2.RunJobsRequest, json.dumps(document).encode("utf-8", "surrogatepass"), {})


@given(st.binary())
def test_any_bytes_are_a_message_or_an_error_in_words(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_request(jobs_pb2.RunJobsRequest, body, {})
