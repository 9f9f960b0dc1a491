"""HTTP and JSON to RPCs and back: what comes through, what is refused, streams, deadlines, clients that go."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_handlers import Answer, router_of
from google.protobuf.message import Message
from serving_app import OPEN, ask, request, serving

from offgrid.json_form import json_of
from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2, state_pb2
from offgrid_node.gateway import streams
from offgrid_node.gateway.access import Policy, policy_of
from offgrid_node.gateway.app import application
from offgrid_node.gateway.requests import BODY_BYTES_MAX
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.gateway.streams import EVENTS, NDJSON
from offgrid_node.gateway.transcoding import transcoded_routes
from offgrid_node.meters.http import HttpMeters
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, NotFound, Unavailable
from offgrid_node.runtime import Ticket
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream

JOB = jobs_pb2.Job(job_id="j/1", state=jobs_pb2.JOB_STATE_RUNNING, size_tokens=2**40, payload_digest=b"\xff")


class Node:
    """`answers` may be changed at any time; `asked` are the requests that came."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Message] = []
        self.port = 0
        self.stopping = asyncio.Event()

    def says(self, method: str, answer: Any) -> None:
        """A message, a Ticket, a Stream, or a Fault."""

        def handler(request: Message) -> Any:
            self.asked.append(request)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.answers[method] = handler

    async def ask(self, line: str, *fields: str, body: bytes | Any = b"") -> tuple[int, dict[str, str], Any]:
        """Status, header fields, and the body as JSON where it is some."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = (f"Content-Length: {len(raw)}",) if raw else ()
        status, found, text = await ask(self.port, request(f"{line} HTTP/1.1", *fields, *length, body=raw))
        return status, found, json.loads(text) if found.get("content-type") == "application/json" and text else text

    async def error(self, line: str, *fields: str, body: bytes | Any = b"") -> tuple[int, str, str]:
        """Status, status by name and reason, message."""
        status, _, found = await self.ask(line, *fields, body=body)
        error = found["error"]
        assert error["code"] == status
        return status, f"{error['status']} {error['details'][0]['reason']}", error["message"]


def play(scenario: Callable[[Node], Awaitable[None]], policy: Policy = OPEN) -> None:
    node = Node()

    async def talk(port: int) -> None:
        node.port = port
        await scenario(node)

    routes = transcoded_routes(router_of(node.answers), node.stopping)
    serving(application(routes, policy, lambda: 0, node.stopping, HttpMeters()), talk)


def test_a_get_has_its_fields_in_path_and_query_and_answers_in_the_form_of_the_command() -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/GetJob", jobs_pb2.GetJobResponse(job=JOB))
        status, fields, found = await node.ask("GET /v1/jobs/j%2F1")
        assert (status, fields["content-type"]) == (200, "application/json")
        assert node.asked == [jobs_pb2.GetJobRequest(job_id="j/1")]
        assert found["job"] == json_of(JOB)
        assert (found["job"]["size_tokens"], found["job"]["state"]) == (2**40, "JOB_STATE_RUNNING")
        node.says("JobService/ListJobs", jobs_pb2.ListJobsResponse())
        await node.ask("GET /v1/jobs?page_size=2&states=JOB_STATE_RUNNING&states=JOB_STATE_FAILED&taskId=a+b")
        states = [jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_FAILED]
        assert node.asked[1] == jobs_pb2.ListJobsRequest(page_size=2, states=states, task_id="a b")

    play(scenario)


def test_a_post_is_json_whatever_its_content_type() -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/CreateMission", jobs_pb2.CreateMissionResponse())
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            status, _, _ = await node.ask("POST /v1/missions", f"Content-Type: {kind}", body={"title": "a"})
            assert status == 200
        assert node.asked == 3 * [jobs_pb2.CreateMissionRequest(title="a")]
        error = await node.error("POST /v1/missions", body=b"title=a")
        assert error[:2] == (400, "INVALID_ARGUMENT MalformedJson")
        assert "looks like a form" in error[2]
        _, _, found = await node.ask("POST /v1/missions", body={"titel": "a", "request_id": 5})
        wrong = found["error"]["details"][1]["fieldViolations"]
        assert {each["field"] for each in wrong} == {"titel", "request_id"}

    play(scenario)


LISTED, DISPATCH = "/openapi.json lists what there is", "/v1/jobs/{job_id}:dispatch"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("PUT /v1/missions/m-1", "PUT is not for /v1/missions/m-1; use GET or PATCH"),
        ("GET /v1/jobs/j-1:dispatch", "GET is not for /v1/jobs/j-1:dispatch; use POST"),
        ("DELETE /v1/jobs/mission:a", "DELETE is not for /v1/jobs/mission:a; use GET"),
        ("POST /v1/jobs/j-1:dispath", f"POST is not for /v1/jobs/j-1:dispath; did you mean {DISPATCH}? {LISTED}"),
    ],
)
def test_a_verb_that_a_path_has_not_is_told_those_that_it_has(line: str, text: str) -> None:
    """Another path only where this one may be a misspelt one: a colon may be an id's."""

    async def scenario(node: Node) -> None:
        assert await node.error(line) == (405, "UNIMPLEMENTED MethodNotAllowed", text)

    play(scenario)


def test_what_no_path_and_no_verb_fits_is_told_what_does() -> None:
    async def scenario(node: Node) -> None:
        status, reason, text = await node.error("GET /v1/job/j-1")
        assert (status, reason) == (404, "NOT_FOUND UnknownPath")
        assert text == f"there is nothing at /v1/job/j-1; did you mean /v1/jobs/{{job_id}}? {LISTED}"
        assert (await node.error("GET /v1/xyzzy"))[2] == f"there is nothing at /v1/xyzzy; {LISTED}"
        status, fields, _ = await node.ask("PUT /v1/missions/m-1")
        assert (status, fields["allow"]) == (405, "GET, HEAD, OPTIONS, PATCH")
        status, fields, body = await node.ask("OPTIONS /v1/missions/m-1")
        assert (status, fields["allow"], body) == (204, "GET, HEAD, OPTIONS, PATCH", b"")
        status, fields, body = await node.ask("HEAD /v1/status")
        assert (status, body) == (200, b"")
        assert int(fields["content-length"]) > 100
        assert (await node.error("GET /v1/jobs/%ff"))[:2] == (400, "INVALID_ARGUMENT MalformedPath")
        assert (await node.error("GET /v1/status", body=b"{}"))[:2] == (400, "INVALID_ARGUMENT NoBodyHere")
        assert (await node.error("GET /v1/status?a=%ff"))[:2] == (400, "INVALID_ARGUMENT MalformedQuery")

    play(scenario)


def test_a_fault_is_an_error_with_its_details() -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/GetJob", NotFound("there is no job x", reason="JobNotFound", metadata={"id": "x"}))
        status, _, found = await node.ask("GET /v1/jobs/x")
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "JobNotFound", "domain": "offgrid"}
        expected = {"code": 404, "status": "NOT_FOUND", "message": "there is no job x"}
        assert (status, found["error"]) == (404, expected | {"details": [detail | {"metadata": {"id": "x"}}]})
        ticket = Ticket()
        ticket.resolve(Unavailable("later", retry_ms=1_500))
        node.says("JobService/GetJob", ticket)
        status, fields, found = await node.ask("GET /v1/jobs/x")
        assert (status, fields["retry-after"]) == (503, "2")
        assert found["error"]["details"][1]["retryDelay"] == "1.500s"

    play(scenario)


def test_a_defect_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/GetJob", RuntimeError("a secret of ours"))
        status, _, found = await node.ask("GET /v1/jobs/x")
        assert status == 500
        assert "secret" not in str(found)

    play(scenario)
    assert "a secret of ours" in caplog.text


def test_a_ticket_is_awaited_for_as_long_as_the_client_says() -> None:
    async def scenario(node: Node) -> None:
        ticket = Ticket()
        node.says("JobService/GetJob", ticket)
        for line, field in (("GET /v1/jobs/x?timeout_ms=20", "A: b"), ("GET /v1/jobs/x", "X-Offgrid-Timeout-Ms: 20")):
            assert (await node.error(line, field))[:2] == (504, "UNKNOWN DeadlineExceeded")
        assert (await node.error("GET /v1/jobs/x?timeout_ms=-1"))[0] == 400
        asyncio.get_running_loop().call_later(0.02, ticket.resolve, jobs_pb2.GetJobResponse(job=JOB))
        assert (await node.ask("GET /v1/jobs/x"))[2]["job"]["job_id"] == "j/1"

    play(scenario)


def test_a_node_that_stops_says_that_it_knows_no_outcome() -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/GetJob", Ticket())
        asyncio.get_running_loop().call_later(0.02, node.stopping.set)
        assert (await node.error("GET /v1/jobs/x"))[:2] == (504, "UNKNOWN Stopping")

    play(scenario)


def test_a_client_that_goes_while_its_ticket_is_open_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(node: Node) -> None:
        node.says("JobService/GetJob", ticket := Ticket())
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(request("GET /v1/jobs/x HTTP/1.1"))
        while not node.asked:  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.005)
        before = len(asyncio.all_tasks())
        writer.transport.abort()
        while len(asyncio.all_tasks()) >= before:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        ticket.resolve(jobs_pb2.GetJobResponse(job=JOB))

    play(scenario)
    assert not caplog.records


def test_a_request_and_an_answer_are_bounded() -> None:
    async def scenario(node: Node) -> None:
        for body in (b" " * (BODY_BYTES_MAX + 1), {"title": "x" * (4 << 20)}):
            error = await node.error("POST /v1/missions", body=body)
            assert error[:2] == (413, "RESOURCE_EXHAUSTED RequestTooLarge")
        node.says("MailService/ReadMessage", objects_pb2.ReadObjectResponse(data=bytes(5 << 20)))
        assert (await node.error("POST /v1/messages/a:read"))[1] == "RESOURCE_EXHAUSTED ResponseTooLarge"

    play(scenario)


# ---- streams


def event(number: int) -> state_pb2.WatchEventsResponse:
    return state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=number, type="A\nB"))


async def opened(node: Node, line: str, *fields: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """After the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(request(f"{line} HTTP/1.0", *fields))
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def test_a_stream_is_a_line_for_each_message_as_it_comes_and_its_error_the_last() -> None:
    async def scenario(node: Node) -> None:
        stream = Stream()
        node.says("StateService/WatchEvents", stream)
        reader, writer = await opened(node, "GET /v1/events:watch?after_seq=5")
        assert node.asked == [state_pb2.WatchEventsRequest(after_seq=5)]
        for number in (6, 7):
            stream.push(event(number))
            assert json.loads(await reader.readline())["event"]["seq"] == number
        stream.end(Exhausted("too slow", reason="SlowReader"))
        last = json.loads(await reader.read())["error"]
        assert (last["code"], last["details"][0]["reason"]) == (429, "SlowReader")
        writer.close()

    play(scenario)


def test_who_accepts_server_sent_events_gets_them_and_goes_on_where_he_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)

    async def scenario(node: Node) -> None:
        stream = Stream()
        stream.push(event(8))
        node.says("StateService/WatchEvents", stream)
        fields = ("Accept: text/event-stream", "Last-Event-ID: 7")
        reader, writer = await opened(node, "GET /v1/events:watch", *fields)
        assert node.asked == [state_pb2.WatchEventsRequest(after_seq=7)]
        assert await reader.readline() == b"id: 8\n"
        assert json.loads((await reader.readline()).removeprefix(b"data: "))["event"]["type"] == "A\nB"
        assert await reader.readline() == b"\n"
        assert await reader.readline() == b": still here\n"
        stream.end(Unavailable("the node is stopping"))
        assert b"\nevent: error\ndata: {" in b"\n" + await reader.read()
        writer.close()
        assert (await node.error("GET /v1/events:watch", fields[0], "Last-Event-ID: x"))[0] == 400

    play(scenario)


def test_who_was_at_an_event_of_another_journal_begins_anew() -> None:
    """An EventSource that is answered with an error never comes back."""

    async def scenario(node: Node) -> None:
        stream = Stream()

        def watch(asked: Message) -> Stream:
            assert isinstance(asked, state_pb2.WatchEventsRequest)
            if asked.after_seq == 99:
                raise FailedPrecondition("it has not happened yet", reason="JournalBehind")
            return stream

        node.answers["StateService/WatchEvents"] = watch
        assert (await node.error("GET /v1/events:watch?after_seq=99"))[1] == "FAILED_PRECONDITION JournalBehind"
        fields = ("Accept: text/event-stream", "Last-Event-ID: 99")
        reader, writer = await opened(node, "GET /v1/events:watch", *fields)
        stream.push(event(1))
        assert await reader.readline() == b"id: 1\n"
        writer.close()

    play(scenario)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", EVENTS),
        ("application/json;q=0.5, TEXT/event-stream ;q=0.1", EVENTS),
        ("text/event-stream;q=0, */*", NDJSON),
        ("text/event-stream; q=0.00", NDJSON),
        ("text/event-streams, */*", NDJSON),
    ],
)
def test_server_sent_events_are_for_who_accepts_them(accept: str, kind: str) -> None:
    async def scenario(node: Node) -> None:
        assert (await node.ask("HEAD /v1/events:watch", f"Accept: {accept}"))[1]["content-type"].startswith(kind)

    play(scenario)


def test_a_stream_that_fails_before_anything_came_has_a_status_of_its_own() -> None:
    async def scenario(node: Node) -> None:
        stream = Stream()
        node.says("JobService/WatchJob", stream)
        asyncio.get_running_loop().call_later(0.01, stream.end, NotFound("no such job"))
        assert (await node.error("GET /v1/jobs/x:watch"))[0] == 404
        status, fields, body = await node.ask("HEAD /v1/jobs/x:watch")
        assert (status, fields["content-type"], body) == (200, "application/x-ndjson", b"")
        assert len(node.asked) == 1

    play(scenario)


def test_a_client_that_goes_ends_its_stream() -> None:
    async def scenario(node: Node) -> None:
        stream = Stream()
        node.says("StateService/WatchEvents", stream)
        _, writer = await opened(node, "GET /v1/events:watch")
        closed = asyncio.Event()
        stream.when_closed(closed.set)
        writer.close()
        await asyncio.wait_for(closed.wait(), 5)

    play(scenario)


def test_a_client_that_breaks_off_while_much_is_written_is_worth_no_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(node: Node) -> None:
        client = socket.create_connection(("127.0.0.1", node.port))
        lost = asyncio.Event()

        def line_of(message: Message) -> bytes:
            if message == event(3):
                client.close()  # with much that it has not read: a reset
            return bytes(streams.CHUNK_BYTES)

        monkeypatch.setattr(streams, "line_of", line_of)
        stream = Stream()
        stream.when_closed(lost.set)
        for number in range(20):
            stream.push(event(number))
        node.says("StateService/WatchEvents", stream)
        client.sendall(request("GET /v1/events:watch HTTP/1.0"))
        await asyncio.wait_for(lost.wait(), 5)
        assert not caplog.records

    play(scenario)


def test_a_node_that_stops_says_so_at_the_end_of_its_streams() -> None:
    async def scenario(node: Node) -> None:
        node.says("StateService/WatchEvents", Stream())
        reader, writer = await opened(node, "GET /v1/events:watch")
        node.stopping.set()
        assert json.loads(await reader.read())["error"]["details"][0]["reason"] == "Stopping"
        writer.close()

    play(scenario)


def test_signing_out_ends_the_streams_that_came_by_that_cookie() -> None:
    signs = SignIns("correct-horse-battery", "cookie")

    async def scenario(node: Node) -> None:
        value = signs.sign_in("correct-horse-battery", "", 0)
        assert isinstance(value, str)
        node.says("StateService/WatchEvents", Stream())
        reader, writer = await opened(node, "GET /v1/events:watch", f"Cookie: cookie={value}")
        signs.sign_out([value])
        error = json.loads(await asyncio.wait_for(reader.read(), 5))["error"]
        assert (error["code"], error["details"][0]["reason"]) == (401, "SignedOut")
        writer.close()

    play(scenario, policy_of((), signs))


def test_a_client_that_reads_too_slowly_is_cut_off() -> None:
    async def scenario(node: Node) -> None:
        stream = Stream()
        node.says("StateService/WatchEvents", stream)
        _, writer = await opened(node, "GET /v1/events:watch")
        large = state_pb2.WatchEventsResponse(event=state_pb2.Event(type="x" * 100_000))
        for _ in range(100 + STREAM_BACKLOG_MAX):
            stream.push(large)
            await asyncio.sleep(0)
        assert stream.fault is not None
        assert stream.fault.reason == "SlowReader"
        writer.transport.abort()

    play(scenario)


def test_status_is_one_of_the_paths() -> None:
    async def scenario(node: Node) -> None:
        node.says("MeshService/GetStatus", mesh_pb2.GetStatusResponse(name="attic", commit_ms_p50=float("nan")))
        found = (await node.ask("GET /v1/status"))[2]
        assert (found["name"], found["commit_ms_p50"]) == ("attic", "nan")

    play(scenario)
