"""What hosts can do to a node that comes back by what they keep of its journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from segment_hosts import Hosts, Sealed, wrapped

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node import journal_search
from offgrid_node.protocol.errors import Corrupt, Unavailable
from offgrid_node.protocol.objects.manifest import TAG_BYTES

SEGMENT = state_pb2.Segment(tables=[state_pb2.SegmentTable(name="jobs", rows=[{"key": b"j", "value": b"row" * 50}])])
SEALED = Sealed(SEGMENT)


def fetched(mesh: Hosts) -> state_pb2.Segment:
    async def all_of_it() -> state_pb2.Segment:
        await mesh.look()
        return await mesh.fetch(SEALED.head)

    return asyncio.run(all_of_it())


def host(wrap: bytes, data: bytes = SEALED.data) -> Callable[[Message], Message]:
    def told(request: Message) -> Message:
        if isinstance(request, objects_pb2.ListSegmentsRequest):
            return objects_pb2.ListSegmentsResponse(segments=[SEALED.manifest(wrap)])
        return objects_pb2.ReadReplicaResponse(data=data)

    return told


def silent(request: Message) -> Message:
    raise Unavailable("nobody is there", reason="NoRoute")


@pytest.mark.parametrize(
    "made_up",
    [
        b"",
        b"noise" * 20,
        wrapped(b"t" * 32, SEALED.object_id),
        wrapped(b"short", SEALED.object_id),
        wrapped(b"s" * 32, "o-another"),
    ],
    ids=["none", "noise", "another key", "no key", "another object's"],
)
def test_one_who_shows_a_made_up_key_keeps_nobody_from_the_segment(made_up: bytes) -> None:
    assert len(SEALED.data) == len(SEALED.plain) + TAG_BYTES
    assert fetched(Hosts({"liar": host(made_up), "honest": host(SEALED.wrap())})) == SEGMENT


def test_where_none_has_the_key_that_is_said() -> None:
    with pytest.raises(Corrupt, match="none of the keys"):
        fetched(Hosts({"liar": host(wrapped(b"t" * 32, SEALED.object_id))}))


def test_one_whose_list_has_no_end_is_left() -> None:
    numbers = iter(range(journal_search.PAGES_MAX + 10))

    def endless(request: Message) -> Message:
        told = objects_pb2.ListSegmentsResponse(segments=[SEALED.manifest(b"")], next_page_token=str(next(numbers)))
        return told if isinstance(request, objects_pb2.ListSegmentsRequest) else silent(request)

    mesh = Hosts({"liar": endless, "honest": host(SEALED.wrap())})
    assert fetched(mesh) == SEGMENT
    assert mesh.silent == ["liar"]
    assert len(mesh.found[SEALED.object_id].hosts) == 2


def test_one_who_is_slow_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_search, "LOOK_TIMEOUT_S", 0.05)
    mesh = Hosts({"slow": silent, "honest": host(SEALED.wrap())})
    real = mesh._call

    async def call(node: str, *arguments: Any) -> Any:
        if node == "slow":
            await asyncio.Event().wait()
        return await real(node, *arguments)

    monkeypatch.setattr(mesh, "_call", call)
    assert fetched(mesh) == SEGMENT
    assert mesh.silent == ["slow"]


def test_one_who_failed_is_asked_last() -> None:
    mesh = Hosts({"liar": host(b"", b"other bytes"), "honest": host(SEALED.wrap())})
    assert fetched(mesh) == SEGMENT
    mesh.asked.clear()
    assert asyncio.run(mesh.fetch(SEALED.head)) == SEGMENT
    assert {node for node, _ in mesh.asked} == {"honest"}
