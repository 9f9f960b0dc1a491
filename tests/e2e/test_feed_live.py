"""`/v1/feed` of a real node: the first picture, each event, what changes beside them, and taking a feed up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live import GIVE_UP_S, mesh_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh, LocalNode

Said = dict[str, Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    nodes = {"first": ["core", "broker", "host"], "second": ["host"]}
    with mesh_of(tmp_path_factory.mktemp("feed"), nodes, gateway__listen="127.0.0.1:0") as mesh:
        yield mesh


def feed(node: LocalNode, asked: str = "") -> ClientConnection:
    with node.client() as client:
        url = client.mesh.status().gateway
    return connect(f"{url.replace('http', 'ws')}/v1/feed{asked}", open_timeout=GIVE_UP_S, max_size=2**24)


def heard(reader: ClientConnection, wanted: Callable[[Said], bool]) -> list[Said]:
    """What is said up to what is wanted."""
    said: list[Said] = []
    while not said or not wanted(said[-1]):
        said.append(json.loads(reader.recv(timeout=GIVE_UP_S)))
    return said


def named(name: str) -> Callable[[Said], bool]:
    return lambda said: said.get("name") == name


def echo(node: LocalNode) -> str:
    with node.client() as client:
        return client.jobs.run(payloads.builtin("echo", input=b"x")).job_id


def test_the_picture_comes_first_then_each_event_of_a_job(two: LocalMesh) -> None:
    with feed(two["first"]) as reader:
        sync = json.loads(reader.recv())
        assert sync["type"] == "state.sync"
        assert sync["status"]["name"] == "first"
        assert sync["host"]["state"] == "on"
        assert {peer["member"]["name"] for peer in sync["peers"]} == {"first", "second"}
        assert sync["links"] == sync["jobs"] == sync["transactions"] == []
        job_id = echo(two["first"])
        said = heard(reader, lambda said: said.get("name") == "JOB_COMPLETED")
    events = [each for each in said if each["type"] == "event"]
    assert [each["number"] for each in events] == list(range(sync["number"] + 1, sync["number"] + 1 + len(events)))
    of_job = [each for each in events if each["subject"] == job_id]
    assert (of_job[0]["name"], of_job[0]["etype"]) == ("JOB_CREATED", 14)
    assert of_job[0]["data"]["job_id"] == job_id
    assert of_job[0]["timestamp"].endswith("Z")


def test_a_feed_is_taken_up_again_without_loss_or_says_that_it_begins_anew(two: LocalMesh) -> None:
    with feed(two["first"]) as reader:
        sync = json.loads(reader.recv())
        last, cursor = sync["number"], sync["cursor"]
    echo(two["first"])
    with feed(two["first"], f"?after={cursor}") as reader:
        resumed, *events = heard(reader, lambda said: said.get("name") == "JOB_COMPLETED")
        assert (resumed["type"], resumed["number"], events[0]["number"]) == ("state.resumed", last, last + 1)
        assert resumed["cursor"] == cursor
        everything = heard(reader, lambda said: said["type"] == "change")[-1]
        assert {"status", "host", "peers", "links", "jobs", "transactions"} <= set(everything)
    for after in (events[-1]["cursor"], events[-1]["number"]):
        with feed(two["first"], f"?after={after}") as reader:
            assert json.loads(reader.recv())["type"] == "state.resumed"
    with feed(two["first"], "?after=123456789") as reader:
        assert json.loads(reader.recv())["type"] == "state.sync"
    with feed(two["first"], "?after=1&etypes=14") as reader:
        names = [said["name"] for said in heard(reader, named("JOB_CREATED"))[1:]]
        assert set(names) == {"JOB_CREATED"}


def test_who_comes_to_another_node_than_before_is_told_all_anew(two: LocalMesh) -> None:
    """However much either of the two has to tell; a number alone cannot show it."""
    with feed(two["second"]) as reader:
        theirs = json.loads(reader.recv())["cursor"]
    with feed(two["first"], f"?after={theirs}") as reader:
        sync = json.loads(reader.recv())
    assert (sync["type"], sync["status"]["name"]) == ("state.sync", "first")


def test_what_no_event_tells_is_told_as_a_change(two: LocalMesh) -> None:
    with feed(two["first"]) as reader, two["first"].client() as client:
        json.loads(reader.recv())
        client.host.toggle("off")
        change = heard(reader, lambda said: (said.get("host") or {}).get("state") == "off")[-1]
        assert change["type"] == "change"
        client.host.toggle("on")
        heard(reader, lambda said: (said.get("host") or {}).get("state") == "on")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("?after=x", "InvalidRequest"),
        ("?etypes=0", "InvalidRequest"),
        ("?session=no-such", "SessionNotFound"),
        ("?session=no-such&after=-1", "InvalidRequest"),
    ],
)
def test_what_cannot_be_is_told_and_closed(two: LocalMesh, asked: str, reason: str) -> None:
    with feed(two["first"], asked) as reader:
        said = heard(reader, lambda said: said["type"] == "error")[-1]
        assert said["error"]["details"][0]["reason"] == reason
        with pytest.raises(ConnectionClosed) as closed:
            reader.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_who_speaks_to_a_feed_is_let_go(two: LocalMesh) -> None:
    with feed(two["first"]) as reader:
        reader.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            heard(reader, lambda said: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003


def test_a_session_of_an_application_is_told_event_by_event_until_it_ends(two: LocalMesh) -> None:
    with two["first"].client() as client:
        client.sessions.register_kind("note", {"type": "object"})
    with two["first"].client() as client, client.sessions.open("flight") as session:
        session.record("note", {"text": "off"})
        session.flush()
        with feed(two["first"], "?session=flight&reducer=session") as reader:
            sync = json.loads(reader.recv())
            assert (sync["type"], sync["number"], sync["session"]["name"]) == ("state.sync", 1, "flight")
            session.record("note", {"text": "up"})
            session.flush()
            event = heard(reader, named("note"))[-1]
            assert (event["number"], event["data"]) == (2, {"text": "up"})
            with feed(two["first"], "?session=flight&after=1") as second:
                assert json.loads(second.recv())["type"] == "state.resumed"
                event = json.loads(second.recv())
                assert event["number"] == 2
            with feed(two["first"], f"?session=flight&after={event['cursor']}") as second:
                assert json.loads(second.recv())["type"] == "state.resumed"
            with feed(two["first"], "?session=flight&after=1:of-another-session") as second:
                assert json.loads(second.recv())["type"] == "state.sync"


def test_a_node_that_dies_shows_and_one_that_stops_says_so(two: LocalMesh) -> None:
    first, second = two["first"], two["second"]

    def lives(said: Said) -> bool | None:
        found = [peer["liveness"] for peer in said.get("peers", ()) if peer["member"]["node_id"] == second.node_id]
        return found[0] == "LIVENESS_ALIVE" if found else None

    with feed(first) as reader:
        heard(reader, lambda said: lives(said) is True)
        second.kill()
        heard(reader, lambda said: lives(said) is False)
        second.run("run")
        second.wait_ready()
        heard(reader, lambda said: lives(said) is True)
    with feed(second) as reader:
        second.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            heard(reader, lambda said: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert second.wait_stopped() == 0
