"""The client that calls out: what it says when it cannot look a node up."""

from __future__ import annotations

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
