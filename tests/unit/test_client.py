"""`offgrid.client`: how a node is found, what a call promises, how lists, watches and errors read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import pytest
from small_node import OTHER_ID, SmallNode

import offgrid
from offgrid.client import Client, NoNode, OffgridError, find, payloads
from offgrid.client.calls import REPEATS_MAX, pause_ms
from offgrid.client.grpc_calls import CLOSING_S, REPLY_BYTES_MAX, GrpcCalls
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted, NotFound, OutcomeUnknown, PermissionDenied, Unavailable

NOBODY = 65_534


@pytest.fixture
def client(node: SmallNode):
    with offgrid.connect(node.address) as connected:
        yield connected


def made_task(client: Client) -> str:
    return client.tasks.create(client.missions.create("survey").mission_id, "count").task_id


class TestFindingANode:
    def test_by_socket_folder_or_config(self, node: SmallNode, tmp_path: Path) -> None:
        config = tmp_path / "offgrid.toml"
        config.write_text(f'[node]\ndata_dir = "{node.folder}"\n', encoding="utf-8")
        for said in (node.address, node.address.removeprefix("unix:"), str(node.folder), str(config), str(tmp_path)):
            assert find(said).target == node.address, said

    def test_by_itself_in_data_then_the_config_then_home(self, node: SmallNode) -> None:
        here, home = node.folder / "here", node.folder / "home"  # short, as a socket's path must be
        (home / ".offgrid").mkdir(parents=True)
        here.mkdir()
        (home / ".offgrid" / "data").symlink_to(node.folder)
        assert find(here=here, home=home).target.endswith("/home/.offgrid/data/offgrid.sock")
        (here / "offgrid.toml").write_text(f"[admin]\naddress = 'unix:{node.folder}/offgrid.sock'\n", encoding="utf-8")
        assert find(here=here, home=home).target == node.address
        (here / "data").symlink_to(node.folder)
        assert find(here=here, home=home).target.endswith("/here/data/offgrid.sock")

    def test_nothing_found_names_every_place(self, tmp_path: Path) -> None:
        (tmp_path / "offgrid.toml").write_text("[node\n", encoding="utf-8")
        with pytest.raises(NoNode) as caught:
            find(here=tmp_path, home=tmp_path)
        assert [Path(place.split(" (")[0]).name for place in caught.value.tried] == ["data", "offgrid.toml", "data"]
        assert "not TOML" in caught.value.message

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be somebody else")
    @pytest.mark.parametrize("said", [None, "."])
    @pytest.mark.parametrize("hidden", ["data", ".", "offgrid.toml"])
    def test_another_users_node_is_said_to_be_that(self, said: str | None, hidden: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "attic"
            (place / "data").mkdir(parents=True)
            (place / "offgrid.toml").touch(mode=0o644)
            Path(folder).chmod(0o755)
            (place / hidden).chmod(0o600 if hidden == "offgrid.toml" else 0o700)
            os.seteuid(NOBODY)
            try:
                with pytest.raises(OffgridError, match="another user's") as caught:
                    find(said and str(place), here=place, home=Path("/nonexistent"))
            finally:
                os.seteuid(0)
        assert (caught.value.code, caught.value.reason) == ("PERMISSION_DENIED", "SocketDenied")

    def test_loopback_with_its_token(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        (data / "offgrid.token").write_text("s3cret\n", encoding="utf-8")
        (data / "offgrid.address").write_text("127.0.0.1:7439\n", encoding="utf-8")
        assert find(str(data)).token == "s3cret"
        assert find("127.0.0.1:7439", here=tmp_path, home=tmp_path).token == "s3cret"
        assert find("127.0.0.1:7440", here=tmp_path, home=tmp_path).token == "", "a secret goes to its own port only"

    def test_loopback_port_from_the_config(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "offgrid.token").write_text("s3cret", encoding="utf-8")
        (tmp_path / "offgrid.toml").write_text('[admin]\naddress = "127.0.0.1:7439"\n', encoding="utf-8")
        found = find(str(tmp_path))
        assert (found.target, found.token) == ("127.0.0.1:7439", "s3cret")
        assert "s3cret" not in repr(found)

    @pytest.mark.parametrize("address", ["192.0.2.1:7440", "example.org:7440", "[2001:db8::1]:7440"])
    def test_other_machines_are_refused(self, address: str) -> None:
        with pytest.raises(OffgridError, match="not on this machine") as caught:
            find(address)
        assert caught.value.code == "INVALID_ARGUMENT"

    def test_importing_the_package_loads_nothing_heavy(self) -> None:
        code = "import offgrid, sys; print([m for m in ('grpc', 'google.protobuf', 'asyncio') if m in sys.modules])"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == "[]"


class TestCalls:
    def test_each_unary_call_has_a_deadline(self, node: SmallNode) -> None:
        with offgrid.connect(node.address, timeout_s=3) as client:
            client.mesh.status()
        deadline = node.deadlines["GetStatus"]
        assert deadline is not None
        assert 0 < deadline <= 3.1

    def test_an_unknown_outcome_is_repeated_with_the_same_request_id(self, node: SmallNode, client: Client) -> None:
        node.stumble(
            "CreateMission", grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, OutcomeUnknown("restarted")
        )
        client.missions.create("survey")
        requests = node.calls["CreateMission"]
        assert len(requests) == 1 + REPEATS_MAX
        assert len({request.request_id for request in requests}) == 1
        assert len(node.missions) == 1

    def test_it_gives_up_after_so_many(self, node: SmallNode, client: Client) -> None:
        node.stumble("GetStatus", *[grpc.StatusCode.UNAVAILABLE] * (REPEATS_MAX + 1))
        with pytest.raises(OffgridError) as caught:
            client.mesh.status()
        assert caught.value.code == "UNAVAILABLE"
        assert len(node.calls["GetStatus"]) == 1 + REPEATS_MAX

    @pytest.mark.parametrize("fault", [NotFound("gone"), PermissionDenied("no"), Exhausted("full", retry_ms=1)])
    def test_an_answer_is_not_repeated(self, node: SmallNode, client: Client, fault: Exception) -> None:
        node.stumble("GetStatus", fault)
        with pytest.raises(OffgridError):
            client.mesh.status()
        assert len(node.calls["GetStatus"]) == 1

    def test_an_invite_is_never_made_twice(self, node: SmallNode, client: Client) -> None:
        node.stumble("CreateInvite", grpc.StatusCode.CANCELLED)
        with pytest.raises(OffgridError):
            client.mesh.invite()
        assert len(node.calls["CreateInvite"]) == 1

    def test_the_node_says_how_long_to_wait_and_long_waits_are_the_callers(self) -> None:
        assert pause_ms(0, OffgridError("UNAVAILABLE", "", "", retry_ms=200)) == 200
        assert pause_ms(0, OffgridError("UNAVAILABLE", "BrokerUnavailable", "", retry_ms=2_000)) is None
        assert pause_ms(2, OffgridError("CANCELLED", "", "")) == 4 * (
            pause_ms(0, OffgridError("CANCELLED", "", "")) or 0
        )

    def test_the_token_goes_with_each_call(self, node: SmallNode) -> None:
        found = offgrid.client.Address(node.address, "s3cret")
        with Client(found) as client:
            client.mesh.status()
        assert node.metadata["authorization"] == "Bearer s3cret"

    def test_a_node_that_is_gone(self, node: SmallNode) -> None:
        with offgrid.connect(node.address) as client:
            node.stop()
            with pytest.raises(OffgridError) as caught:
                client.mesh.status()
        assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "NoAnswer")
        assert node.address in caught.value.message

    def test_a_node_that_says_nothing(self, node: SmallNode) -> None:
        release = threading.Event()
        answer = node.on_GetStatus
        node.on_GetStatus = lambda request: release.wait(5) and answer(request)
        with offgrid.connect(node.address, timeout_s=0.2) as client, pytest.raises(OffgridError) as caught:
            client.mesh.status()
        release.set()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert "0.2 s" in caught.value.message


def test_closes_though_a_signal_struck_the_start_of_a_call(node: SmallNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def struck(state: object) -> None:
        raise KeyboardInterrupt

    calls = GrpcCalls(find(node.address))
    monkeypatch.setattr("grpc._channel._run_channel_spin_thread", struck)
    with pytest.raises(KeyboardInterrupt):
        next(calls.stream("JobService/WatchProgress", b"", None, lambda cancel: None))
    closing = threading.Thread(target=calls.close, daemon=True)
    closing.start()
    closing.join(3 * CLOSING_S)
    assert not closing.is_alive()


class TestErrors:
    def test_the_nodes_own_words_arrive(self, client: Client) -> None:
        with pytest.raises(OffgridError) as caught:
            client.missions.create("")
        error = caught.value
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "InvalidRequest")
        assert [v.field for v in error.violations] == ["title"]
        assert error.retry_ms is None

    def test_reason_retry_and_metadata(self, node: SmallNode, client: Client) -> None:
        node.stumble("GetStatus", Unavailable("no", reason="BrokerUnavailable", retry_ms=2_000, metadata={"a": "b"}))
        with pytest.raises(OffgridError) as caught:
            client.mesh.status()
        error = caught.value
        assert (error.reason, error.retry_ms, error.metadata) == ("BrokerUnavailable", 2_000, {"a": "b"})

    @pytest.mark.parametrize(
        ("code", "reason", "said"),
        [
            (grpc.StatusCode.UNIMPLEMENTED, "UnknownMethod", "does not know MeshService/GetStatus"),
            (grpc.StatusCode.INTERNAL, "ConnectionLost", "broke off before it was answered (stumbled)"),
            (grpc.StatusCode.UNKNOWN, "ConnectionLost", "broke off before it was answered (stumbled)"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "ConnectionLost", "broke off before it was answered (stumbled)"),
            (grpc.StatusCode.UNAUTHENTICATED, "NotANode", "is no offgrid node (UNAUTHENTICATED: stumbled)"),
            (grpc.StatusCode.NOT_FOUND, "NotANode", "is no offgrid node (NOT_FOUND: stumbled)"),
        ],
    )
    def test_what_no_node_has_said_is_a_sentence_all_the_same(
        self, node: SmallNode, client: Client, code: grpc.StatusCode, reason: str, said: str
    ) -> None:
        node.stumble("GetStatus", code)
        with pytest.raises(OffgridError) as caught:
            client.mesh.status()
        assert (caught.value.code, caught.value.reason) == (code.name, reason)
        assert caught.value.message.endswith(said)
        assert node.address in caught.value.message

    def test_an_answer_above_what_this_client_takes_is_said_in_bytes(self, node: SmallNode, client: Client) -> None:
        answer = node.on_GetStatus(None)
        answer.notices.append("x" * REPLY_BYTES_MAX)
        node.on_GetStatus = lambda request: answer
        with pytest.raises(OffgridError) as caught:
            client.mesh.status()
        assert caught.value.reason == "MessageTooLarge"
        assert caught.value.message.endswith(f"bytes; at most {REPLY_BYTES_MAX} are allowed")

    def test_garbled_details_are_left_aside(self) -> None:
        from offgrid.client.errors import _described

        assert _described("NOT_FOUND", b"\xff\xff\xff") is None
        assert _described("NOT_FOUND", b"") is None


class TestRooms:
    def test_mesh(self, node: SmallNode, client: Client) -> None:
        assert client.mesh.status().name == "attic"
        assert [peer.member.name for peer in client.mesh.peers()] == ["attic", "barn"]
        assert client.mesh.invite(roles=["host"], weight_milli=2_500, domain="barn").token == "og1:secret"
        asked = node.calls["CreateInvite"][0]
        assert (list(asked.roles), asked.weight_milli, asked.failure_domain) == ([3], 2500, "barn")
        assert client.mesh.remove("barn").removed
        assert len(list(client.mesh.peers())) == 1
        assert len(list(client.mesh.peers(include_removed=True))) == 2

    def test_values_that_cannot_be_meant_never_leave(self, node: SmallNode, client: Client) -> None:
        with pytest.raises(ValueError, match="king"):
            client.mesh.invite(roles=["king"])
        with pytest.raises(ValueError, match="mode"):
            client.jobs.dispatch("j-1", "fast")
        with pytest.raises(ValueError, match="event type"):
            client.events.list(types=["JOB_EATEN"])
        assert not node.calls

    def test_lists_follow_every_page_and_no_more_than_asked(self, node: SmallNode, client: Client) -> None:
        for number in range(5):
            client.missions.create(f"mission {number}")
        assert len(list(client.missions.list())) == 5
        assert len(node.calls["ListMissions"]) == 3, "pages of two"
        assert len(list(client.missions.list(limit=3))) == 3
        assert len(node.calls["ListMissions"]) == 5

    def test_missions_and_tasks(self, client: Client) -> None:
        mission = client.missions.create("survey", "of the orchard")
        assert client.missions.update(mission.mission_id, status="completed").title == "survey"
        assert client.missions.show(mission.mission_id).status == "completed"
        task = client.tasks.create(mission.mission_id, "count", "wasm")
        assert client.tasks.show(task.task_id).kind == "wasm"
        assert [t.task_id for t in client.tasks.list(mission_id=mission.mission_id)] == [task.task_id]
        assert not list(client.tasks.list(mission_id="m-none"))

    def test_a_job_by_steps(self, client: Client) -> None:
        payload = payloads.command("wc", ["-w"], input=b"a b c", input_name="in.txt")
        job = client.jobs.create(made_task(client), payload, timeout_ms=500)
        assert job.state == jobs_pb2.JOB_STATE_CREATED
        assert client.jobs.dispatch(job.job_id, "offgrid").route == jobs_pb2.ROUTE_OFFGRID
        states = [seen.state for seen in client.jobs.watch(job.job_id)]
        assert states == [jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_COMPLETED]
        assert client.jobs.get(job.job_id).result.output == b"3 words\n"
        assert [j.job_id for j in client.jobs.list(task_id=job.task_id)] == [job.job_id]

    def test_run_does_it_all_and_returns_a_failed_job_as_it_is(self, node: SmallNode, client: Client) -> None:
        seen: list[jobs_pb2.Job] = []
        job = client.jobs.run(payloads.wasm(b"(module)", input=b"a b"), on_change=seen.append)
        assert job.result.receipt.facts.node_id == OTHER_ID
        assert [s.state for s in seen] == [jobs_pb2.JOB_STATE_RUNNING, job.state]
        assert len(node.missions) == len(node.tasks) == 1
        failed = client.jobs.run(payloads.command("false"), task_id=job.task_id)
        assert (failed.state, failed.error) == (jobs_pb2.JOB_STATE_FAILED, "ExecutionFailed")
        assert len(node.missions) == 1, "the job joined the task"

    def test_a_watch_outlives_a_lost_connection(self, node: SmallNode, client: Client) -> None:
        job = client.jobs.create(made_task(client), payloads.command("wc"))
        client.jobs.dispatch(job.job_id)
        node.stumble("WatchJob", grpc.StatusCode.UNAVAILABLE, Unavailable("stopping"))
        assert [j.state for j in client.jobs.watch(job.job_id)][-1] == jobs_pb2.JOB_STATE_COMPLETED
        assert len(node.calls["WatchJob"]) == 3

    def test_a_watch_of_nothing_ends_at_once(self, client: Client) -> None:
        with pytest.raises(OffgridError) as caught:
            list(client.jobs.watch("j-none"))
        assert caught.value.code == "NOT_FOUND"

    def test_events_listed_and_followed_without_gap_or_double(self, node: SmallNode, client: Client) -> None:
        for number in range(3):
            client.missions.create(f"mission {number}")
        assert [e.seq for e in client.events.list(types=["MISSION_CREATED"])] == [1, 2, 3]
        assert [e.seq for e in client.events.list(types=[10], newest_first=True, limit=2)] == [3, 2]
        assert not list(client.events.list(since_us=2**60))
        followed = client.events.watch(after_seq=1)
        assert [next(followed).seq, next(followed).seq] == [2, 3]
        node.stumble("WatchEvents", Exhausted("the reader is 1024 messages behind", reason="SlowReader"))
        node.stop()
        node.start()
        client.missions.create("after the restart")
        assert next(followed).seq == 4
        followed.close()
        assert node.calls["WatchEvents"][0].after_seq == 1
        assert all(call.after_seq == 3 for call in node.calls["WatchEvents"][1:])

    def test_the_small_rooms(self, client: Client) -> None:
        assert client.objects.capacity().inline_limit_bytes == 3_000_000
        assert client.quorum.weights().alive_milli == 1000
        assert client.ledger.genesis().mesh == "home"
        assert client.market.offers().queued == 2
