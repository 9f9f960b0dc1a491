"""A quorum from its making to its last ack, over five nodes and their real handlers, in virtual time."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from road_town import ANSWER_S, Town

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.errors import Fault


@pytest.fixture
def town() -> Town:
    return Town()


def ask(town: Town, at: str, method: str, request: Message) -> Message | Fault:
    answers: list[Message | Fault] = []
    town[at].admin(f"offgrid.v1.QuorumService/{method}", request, answers.append)
    for _ in range(int(ANSWER_S * 1000)):
        if answers:
            return answers[0]
        town.run_for(0.001)
    raise AssertionError(f"no answer to {method}")


def create(town: Town, required_milli: int, *members: str) -> Message | Fault:
    request = quorum_pb2.CreateQuorumRequest(quorum_id="test123", required_milli=required_milli, members=members)
    return ask(town, "core", "CreateQuorum", request)


def ack(town: Town, node: str) -> Message | Fault:
    return ask(town, "core", "AckQuorum", quorum_pb2.AckQuorumRequest(quorum_id="test123", node=node))


def status(town: Town, at: str) -> quorum_pb2.Quorum:
    answer = ask(town, at, "GetQuorum", quorum_pb2.GetQuorumRequest(quorum_id="test123"))
    assert isinstance(answer, quorum_pb2.GetQuorumResponse), answer
    return answer.quorum


def test_two_hosts_ack_and_the_broker_knows(town: Town) -> None:
    create(town, 2_000, "host-a", "host-b", "host-c")
    for host in ("host-a", "host-b"):
        answer = ack(town, host)
        assert isinstance(answer, quorum_pb2.AckQuorumResponse), answer
    assert status(town, "core").reached
    town.run_for(2)
    told = status(town, "broker")
    assert (told.owner, told.acked_milli, told.reached) == (town["core"].node_id, 2_000, True)
    assert [a.signed for a in told.acks] == [a.signed for a in status(town, "core").acks]


def test_a_dead_hosts_ack_does_not_come_and_a_restarted_ones_is_the_same(town: Town) -> None:
    create(town, 2_000, "host-a", "host-b")
    town["host-a"].crash()
    assert isinstance(ack(town, "host-a"), Fault)
    assert status(town, "core").acked_milli == 0
    town["host-a"].start()
    town.run_for(10)
    assert isinstance(ack(town, "host-a"), quorum_pb2.AckQuorumResponse)
    before = status(town, "core").acks
    town["core"].crash()
    town["core"].start()
    town.run_for(10)
    assert isinstance(ack(town, "host-a"), quorum_pb2.AckQuorumResponse)
    assert status(town, "core").acks == before


def test_a_broker_that_was_away_hears_of_it(town: Town) -> None:
    town["broker"].crash()
    create(town, 1_000, "core", "host-a")
    ack(town, "core")
    town["broker"].start()
    town.run_for(15)
    assert status(town, "broker").reached
