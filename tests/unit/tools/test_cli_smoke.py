"""`offgrid smoke`, but for the mesh itself: what is skipped, what fails and what is said to be typed next."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from cli_run import Run

from offgrid.client.address import Address
from offgrid.client.errors import OffgridError
from offgrid.command_line import exits
from offgrid.v1 import common_pb2, jobs_pb2, ledger_pb2, mesh_pb2, objects_pb2, quorum_pb2
from offgrid_tools.cli.smoke_checks import CHECKS
from offgrid_tools.cli.smoke_frame import FAILED, OK, SKIPPED, Line, Seen, carry_out
from offgrid_tools.cli.smoke_jobs import SAID

ROOMS = "mesh", "links", "missions", "tasks", "jobs", "objects", "quorum", "events", "ledger"
CORE, BROKER, HOST = common_pb2.ROLE_CORE, common_pb2.ROLE_BROKER, common_pb2.ROLE_HOST
ALIVE, DEAD = common_pb2.LIVENESS_ALIVE, common_pb2.LIVENESS_DEAD


def peer(name: str, *roles: common_pb2.Role.ValueType, here: bool = False, alive: bool = True) -> mesh_pb2.Peer:
    member = mesh_pb2.Member(node_id=name * 4, name=name, weight_milli=1_000)
    return mesh_pb2.Peer(member=member, roles_in_force=roles, self=here, liveness=ALIVE if alive else DEAD)


def seen_by(client: Any, *peers: mesh_pb2.Peer, roles: tuple[common_pb2.Role.ValueType, ...] = (CORE,)) -> Seen:
    status = mesh_pb2.GetStatusResponse(name="attic", mesh="home", roles=roles, version="1")
    seen = Seen(client, with_transfer=False, give_up_at=float("inf"), status=status)
    seen.peers = list(peers)
    return seen


def only(name: str, seen: Seen) -> Line:
    [(line, _)] = carry_out(seen, name, dict(CHECKS)[name])
    return line


def refusing() -> Any:
    """A client each of whose rooms refuses whatever it is asked."""

    class Room:
        def __getattr__(self, name: str) -> Any:
            def refuse(*_: object, **__: object) -> None:
                raise OffgridError("UNAVAILABLE", "NoAnswer", "no node answers")

            return refuse

    return SimpleNamespace(**dict.fromkeys(ROOMS, Room()))


ATTIC, BARN = peer("attic", CORE, BROKER, here=True), peer("barn", HOST)


@pytest.mark.parametrize(
    ("check", "peers", "outcome", "said"),
    [
        ("roads", [ATTIC], SKIPPED, "there is nobody to call"),
        ("roads", [ATTIC, peer("barn", HOST, alive=False)], SKIPPED, "there is nobody to call"),
        ("object", [ATTIC], SKIPPED, "no other host is alive to keep one"),
        ("quorum", [ATTIC], SKIPPED, "no other member is alive to ack one"),
        ("quorum", [ATTIC, peer("barn", HOST, alive=False)], SKIPPED, "no other member is alive to ack one"),
        ("object", [peer("attic", CORE, HOST, here=True)], SKIPPED, "no other host is alive to keep one"),
    ],
)
def test_what_cannot_be_tried_says_why(check: str, peers: list[mesh_pb2.Peer], outcome: str, said: str) -> None:
    line = only(check, seen_by(refusing(), *peers))
    assert line.outcome == outcome
    assert line.detail == said


def test_a_node_that_is_no_core_sends_no_jobs() -> None:
    line = only("job", seen_by(refusing(), ATTIC, BARN, roles=(HOST,)))
    assert line == Line("job", "", SKIPPED, "this node is no core: it sends no jobs")


@pytest.mark.parametrize("check", ["peers", "job", "object", "quorum", "events", "ledger"])
def test_whatever_is_raised_is_a_line_and_the_next_command(check: str) -> None:
    line = only(check, seen_by(refusing(), ATTIC, BARN))
    assert (line.check, line.outcome, line.detail) == (check, FAILED, "no node answers")
    assert line.next


def test_a_member_that_does_not_answer_is_named_with_what_shows_its_road() -> None:
    line = only("roads", seen_by(refusing(), ATTIC, BARN))
    assert line == Line("road", "barn", FAILED, "no node answers", "offgrid peers --roads; offgrid trace barn")


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        (ledger_pb2.GetLedgerStatusResponse(), SKIPPED, "economy.enabled is false here"),
        (ledger_pb2.GetLedgerStatusResponse(enabled=True), SKIPPED,
             "it is not open; it is opened once, when all have joined"),
        (ledger_pb2.GetLedgerStatusResponse(enabled=True, open=True, reach_milli=1_000, quorum_milli=3_000), FAILED,
         "witnesses in reach weigh 1 of the 3 that it takes: no payment becomes final"),
        (ledger_pb2.GetLedgerStatusResponse(enabled=True, open=True, muted_why="restored"), FAILED,
         "this node signs nothing in the ledger: restored"),
        (ledger_pb2.GetLedgerStatusResponse(enabled=True, open=True, reach_milli=4_000, quorum_milli=3_000), OK,
         "0 witnesses, 4 of 3 needed in reach"),
    ],
)  # fmt: skip
def test_of_the_ledger_it_says_whether_anything_can_become_final(
    status: ledger_pb2.GetLedgerStatusResponse, outcome: str, said: str
) -> None:
    client = SimpleNamespace(ledger=SimpleNamespace(status=lambda: status))
    line = only("ledger", seen_by(client, ATTIC))
    assert (line.outcome, line.detail) == (outcome, said)


MISSIONS = SimpleNamespace(
    create=lambda *_, request_id, **__: jobs_pb2.Mission(mission_id=f"m-{request_id}"), update=lambda *_, **__: None
)
TASKS = SimpleNamespace(create=lambda mission_id, *_, **__: jobs_pb2.Task(task_id="t-1", mission_id=mission_id))


def test_the_session_that_is_shredded_has_a_name_that_is_nobodys() -> None:
    """A name means the session of that name which is open: were it "smoke", a smoke detector's would be lost."""
    opened, purged = list[str](), list[tuple[list[str], bool]]()
    made = SimpleNamespace(session_id="s-1", record=lambda *_, **__: None, flush=lambda _: True, close=lambda: None)
    client = SimpleNamespace(
        session=lambda name: opened.append(name) or made,
        sessions=SimpleNamespace(
            records=lambda *_, **__: iter(["its event"]), purge=lambda ids, *, forget: purged.append((ids, forget))
        ),
    )
    line = only("session", seen_by(client, ATTIC))
    assert (line.outcome, opened, purged) == (OK, ["offgrid-smoke"], [(["s-1"], True)])


def test_a_job_that_does_not_come_back_is_cancelled() -> None:
    cancelled = list[list[str]]()
    client = SimpleNamespace(
        jobs=SimpleNamespace(
            start=lambda *_, **__: jobs_pb2.RunJobsResponse(job_ids=["j-1"]),
            get=lambda job_id: jobs_pb2.Job(job_id=job_id, state=jobs_pb2.JOB_STATE_RUNNING),
            cancel=lambda job_ids, **_: cancelled.append(job_ids),
        ),
        tasks=TASKS,
        missions=MISSIONS,
    )
    seen = seen_by(client, ATTIC, BARN)
    seen.give_up_at = 0.0  # time is up
    line = only("job", seen)
    assert (line.about, line.outcome, line.next) == ("barn", FAILED, "offgrid job why j-1")
    assert cancelled == [["j-1"]]


class Quorums:
    """The one quorum of all runs, of the members of its time."""

    def __init__(self, members: tuple[str, ...], acked: tuple[str, ...]) -> None:
        self.acked, self._members, self._made = [*acked], members, bool(members)

    def create(self, quorum_id: str, required_milli: int, members: list[str]) -> None:
        assert quorum_id == "offgrid-smoke", "one of that name is acked, whoever made it"
        if self._made:
            raise OffgridError("ALREADY_EXISTS", "QuorumExists", "another one")
        self._members = tuple(members)

    def status(self, quorum_id: str) -> quorum_pb2.Quorum:
        members = [quorum_pb2.NodeWeight(node_id=node_id) for node_id in self._members]
        return quorum_pb2.Quorum(
            members=members, acks=[quorum_pb2.QuorumAck(node_id=node_id) for node_id in self.acked]
        )

    def ack(self, quorum_id: str, node: str) -> None:
        if node == "shedshedshedshed":
            raise OffgridError("UNAVAILABLE", "NoAnswer", "no road leads there")
        self.acked.append(node)


@pytest.mark.parametrize(
    ("members", "acked", "outcome", "said"),
    [
        ((), (), OK, "2 of 2 members have acked"),
        (("attic" * 4, "barn" * 4), ("attic" * 4,), OK, "2 of 2 members have acked"),
        (("attic" * 4, "barn" * 4), ("attic" * 4, "barn" * 4), OK, "2 of 2 members have acked, before this"),
        (("attic" * 4, "gone" * 4), ("attic" * 4,), OK, "1 of 2 members have acked, before this"),
    ],
)
def test_one_quorum_serves_all_runs(members: tuple[str, ...], acked: tuple[str, ...], outcome: str, said: str) -> None:
    line = only("quorum", seen_by(SimpleNamespace(quorum=Quorums(members, acked)), ATTIC, BARN))
    assert (line.outcome, line.detail) == (outcome, said)


def test_a_member_that_does_not_ack_is_named() -> None:
    line = only("quorum", seen_by(SimpleNamespace(quorum=Quorums((), ())), ATTIC, peer("shed", HOST)))
    assert (line.outcome, line.detail) == (FAILED, "shed: no road leads there")


@pytest.mark.parametrize(
    ("peers", "lacking"),
    [
        ([peer("attic", CORE, here=True), BARN], "no broker is alive"),
        ([ATTIC, peer("barn", HOST, alive=False)], "no host is alive"),
    ],
)
@pytest.mark.parametrize(
    ("job", "outcome", "said"),
    [
        (jobs_pb2.Job(state=jobs_pb2.JOB_STATE_COMPLETED, result=jobs_pb2.JobResult(output=SAID)), OK,
         "; echo came back from this node's own queue"),
        (jobs_pb2.Job(state=jobs_pb2.JOB_STATE_FAILED, error="BrokerUnavailable"), FAILED, "; BrokerUnavailable"),
    ],
)  # fmt: skip
def test_without_a_broker_or_a_host_a_job_goes_the_way_that_is_configured(
    peers: list[mesh_pb2.Peer], lacking: str, job: jobs_pb2.Job, outcome: str, said: str
) -> None:
    modes = list[str]()

    def start(*_: object, mode: str = "", **__: object) -> jobs_pb2.RunJobsResponse:
        modes.append(mode)
        return jobs_pb2.RunJobsResponse(job_ids=["j-1"])

    client = SimpleNamespace(
        jobs=SimpleNamespace(start=start, get=lambda _: job),
        tasks=TASKS,
        missions=MISSIONS,
    )
    line = only("job", seen_by(client, *peers))
    assert (line.outcome, line.detail) == (outcome, lacking + said)
    assert modes == [""]


@pytest.mark.parametrize(
    ("others", "outcome", "said"),
    [
        ([BARN], SKIPPED, "hosts weigh 1, an object wants 2: it waits for another host"),
        ([BARN, peer("shed", HOST, alive=False)], FAILED, "hosts weigh 1, an object wants 2: it waits"),
        ([BARN, peer("shed", HOST)], None, ""),
    ],
)
def test_that_no_object_can_become_durable_is_said(others: list[mesh_pb2.Peer], outcome: str | None, said: str) -> None:
    deleted = list[str]()
    made = objects_pb2.Object(object_id="o-1", required_milli=2_000)
    client = SimpleNamespace(
        objects=SimpleNamespace(
            put=lambda *_, **__: made, delete=deleted.append, wait_durable=lambda *_, **__: made, read=lambda _: b""
        )
    )
    lines = [line for line, _ in carry_out(seen_by(client, ATTIC, *others), "object", dict(CHECKS)["object"])]
    assert [(line.outcome, line.detail) for line in lines if line.about == "weight"] == [(outcome, said)] * bool(said)
    assert deleted == ["o-1", "o-1"]


def test_without_a_node_there_is_nothing_to_try(og: Run) -> None:
    code, _, said = og("smoke", "--socket", "/nowhere/offgrid.sock")
    assert code == exits.UNAVAILABLE
    assert "no node was found" in said


REFUSALS = {
    "TokenMissing": (OK, "answers, and asks for its token"),
    "TokenWrong": (FAILED, "answers 401: this is why"),
    "OtherUser": (FAILED, "answers 401: this is why"),
}


@pytest.mark.parametrize("reason", ["", *REFUSALS])
def test_a_gateway_is_well_that_lets_its_owner_in(reason: str) -> None:
    asked = list[tuple[str, str | None]]()

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            error = {"code": 401, "message": "this is why", "details": [{"@type": "x"}, {"reason": reason}]}
            self.send_response(401 if reason else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"error": error} if reason else {}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        seen = seen_by(SimpleNamespace(address=Address(url, "planted")), ATTIC)
        seen.status.gateway = url
        seen.give_up_at = time.monotonic() + 5
        line = only("gateway", seen)
    assert asked == [("/v1/status", "Bearer planted")]
    assert (line.outcome, line.detail) == REFUSALS.get(reason, (OK, "answers 200"))
