"""Answers to the prototype's paths: what its users' scripts read, whatever a job came to."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.gateway.old_shapes import (
    ROUTES,
    etypes_of,
    event_document,
    iso,
    job_document,
    mission_document,
    record_document,
    result_document,
    status_of,
    task_document,
)
from offgrid_node.gateway.openapi_old_shapes import OLD_SCHEMAS
from offgrid_node.gateway.openapi_texts import ERROR_SCHEMAS

HOST = "a" * 32
URL = "http://192.0.2.9:8081"
AT_US = 1_795_408_200_000_001


def job(state: jobs_pb2.JobState.ValueType = jobs_pb2.JOB_STATE_COMPLETED, **fields: object) -> jobs_pb2.Job:
    facts = jobs_pb2.ReceiptFacts(node_id=HOST, job_id="j-1", compute_tokens_m=0.25, latency_ms=12.5)
    made = jobs_pb2.Job(job_id="j-1", state=state, host=HOST, price_micro=50_000, size_tokens=250_000, created_us=AT_US)
    if fields:
        made.result.CopyFrom(jobs_pb2.JobResult(receipt=jobs_pb2.Receipt(facts=facts), **fields))  # type: ignore[arg-type]
    return made


def test_a_completed_job_is_as_its_users_know_it() -> None:
    document = json.loads(json.dumps(job_document(job(output=b"6\n"), lambda node: URL)))
    assert document["status"] == "completed"
    assert document["result"]["ok"] is True
    assert document["result"]["host"] == document["quote"]["host"] == URL
    receipt = document["result"]["offgrid_receipt"]
    assert (receipt["node_id"], receipt["metrics"]["compute_tokens_m"], receipt["metrics"]["latency_ms"]) == (
        HOST,
        0.25,
        12.5,
    )
    assert (document["quote"]["price"], document["size"], document["id"]) == (0.05, 0.25, document["job_id"])
    assert document["created_at"] == "2026-11-23T04:30:00.000001+00:00"


def test_a_job_without_a_result_or_a_host_says_so() -> None:
    document = job_document(jobs_pb2.Job(state=jobs_pb2.JOB_STATE_QUEUED), lambda node: URL)
    assert (document["status"], document["result"], document["quote"], document["route"]) == (
        "queued",
        None,
        None,
        None,
    )


def test_a_failed_job_shows_what_its_work_left_and_is_not_ok() -> None:
    failed = job(jobs_pb2.JOB_STATE_FAILED, output=b"so far", log=b"why\xff", exit_code=3)
    result = result_document(failed, lambda node: URL)
    assert result is not None
    assert (result["ok"], result["output"], result["log"], result["exit_code"]) == (False, "so far", "why\ufffd", 3)


def test_output_that_is_no_text_is_base64_and_a_large_one_is_an_object() -> None:
    binary, large = job(output=b"\xff\x00"), job(output_object="o-1", output_bytes=10**6)
    result = result_document(binary, lambda node: URL)
    assert result is not None
    assert (result["output"], result["output_base64"]) == (None, "/wA=")
    result = result_document(large, lambda node: URL)
    assert result is not None
    assert (result["output"], result["output_object"], result["output_bytes"]) == (None, "o-1", 10**6)


def test_each_state_and_way_has_its_word() -> None:
    words = {status_of(jobs_pb2.Job(state=state)) for state in jobs_pb2.JobState.values() if state}
    assert words == {"created", "queued", "awarded", "running", "completed", "failed", "cancelled", "expired"}
    assert set(ROUTES.values()) == {"offgrid", "file_queue"}


def test_events_have_their_number_name_and_time() -> None:
    event = state_pb2.Event(seq=7, etype=10, type="MISSION_CREATED", timestamp_us=AT_US, subject="m-1")
    event.mission.title = "First"
    document = event_document(event)
    assert (document["etype"], document["type"], document["data"]["title"]) == (10, "MISSION_CREATED", "First")
    assert document["ts"] == pytest.approx(AT_US / 1e6)
    assert event_document(state_pb2.Event(etype=8))["data"] == {}
    record = state_pb2.Record(number=3, kind="energy.update", timestamp_us=AT_US, frame_id=0)
    document = record_document("run", record, {"energy": 1})
    assert (document["etype"], document["type"], document["frame_id"]) == (30, "energy.update", 0)
    assert "energy_delta" not in document


def test_types_are_numbers_or_names_and_those_of_users_where_none_is_said() -> None:
    assert etypes_of([]) == list(range(10, 31))
    assert etypes_of(["14", "mission_created"]) == [14, 10]
    for word in ("nosuch", "0", "-1", "9" * 10, "9" * 50, "²"):
        with pytest.raises(ValueError, match=word):
            etypes_of([word])


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("OldMission", mission_document(jobs_pb2.Mission(mission_id="m-1", created_us=AT_US))),
        ("OldTask", task_document(jobs_pb2.Task(task_id="t-1"))),
        ("OldJob", job_document(jobs_pb2.Job(state=jobs_pb2.JOB_STATE_QUEUED), lambda node: URL)),
        ("OldJob", job_document(job(output=b"6\n", log=b"said"), lambda node: URL)),
        ("OldResult", result_document(job(output=b"\xff"), lambda node: URL)),
        ("OldResult", result_document(job(output_object="o-1", output_bytes=10**6), lambda node: URL)),
        ("OldEvent", event_document(state_pb2.Event(seq=7, etype=10, type="MISSION_CREATED", timestamp_us=AT_US))),
        ("OldEvent", record_document("run", state_pb2.Record(number=3, frame_id=0, energy_delta=0.5), {"energy": 1})),
    ],
)
def test_an_answer_has_the_form_that_the_openapi_document_promises(name: str, document: object) -> None:
    components = {"schemas": {**ERROR_SCHEMAS, **OLD_SCHEMAS}}
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    jsonschema_rs.validator_for(schema).validate(json.loads(json.dumps(document)))


def test_no_time_is_none() -> None:
    assert iso(0) is None
