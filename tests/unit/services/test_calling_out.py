"""The client that calls out: what it says when it cannot look a node up; the next road; what it holds afterwards."""

from __future__ import annotations

import gc
import weakref

from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.services.client import Client, Done


class BlindRoad:
    """A road that knows of others what the directory says, while there is none."""

    def reaches(self, node: str) -> bool:
        raise Unavailable("the node is loading what it knows", reason="Reloading")

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        raise AssertionError("nothing is called")


def no_members() -> Directory:
    raise Unavailable("the node is loading what it knows", reason="Reloading")


def test_a_call_made_while_the_node_loads_ends_with_that_fault_instead_of_failing_whoever_makes_it() -> None:
    client = Client("me", [BlindRoad()], no_members, lambda answer: None)
    ends: list[Message | Fault] = []
    client.request("somebody", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest(), 1_000, ends.append)
    assert [end.reason for end in ends if isinstance(end, Fault)] == ["Reloading"]


class Answering:
    """A road whose every call ends at once, in the same way."""

    def __init__(self, outcome: Message | Fault) -> None:
        self._outcome = outcome

    def reaches(self, node: str) -> bool:
        return True

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        done(self._outcome)


class Ends(list[Message | Fault]):
    """Who waits for a call."""

    def add(self, end: Message | Fault) -> None:
        self.append(end)


def test_the_next_road_is_tried_and_nothing_of_the_call_is_held_when_it_has_ended() -> None:
    """Not even in a cycle, which would keep pieces of large objects until the collector looks."""
    answer = mesh_pb2.PingResponse()
    roads = [Answering(Unavailable("not here", reason="NoRoad")), Answering(answer)]
    client = Client("me", roads, no_members, lambda answer: None)
    ends = Ends()
    held = weakref.ref(ends)
    gc.disable()
    try:
        client.request("somebody", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest(), 1_000, ends.add)
        assert ends == [answer]
        del ends
        assert held() is None
    finally:
        gc.enable()
