"""By which URL a host is named: what it says itself, its mesh address where that is of no use here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.gateway import gateway_urls
from offgrid_node.gateway.gateway_urls import GatewayUrls
from offgrid_node.protocol.errors import Fault, Unavailable

SELF, NEAR, FAR = "a" * 32, "b" * 32, "c" * 32
OWN = "http://127.0.0.1:8001"
ADDRESSES = {SELF: ["192.0.2.1:7440"], NEAR: ["192.0.2.1:7442", "10.0.0.1:7442"], FAR: ["192.0.2.9:7440"]}


class Members:
    def is_member(self, node_id: str) -> bool:
        return node_id in ADDRESSES

    def addresses(self, node_id: str) -> list[str]:
        return ADDRESSES.get(node_id, [])


class World:
    """Members that say so; each call to them is counted."""

    def __init__(self, said: Mapping[str, str | Fault]) -> None:
        self.asked: list[str] = []
        self.quick = set(ADDRESSES)
        self._said = said
        self.urls = GatewayUrls(SELF, lambda: OWN, lambda: cast(Any, Members()), self._request, self.quick.__contains__)

    def _request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None:
        self.asked.append(node)
        said = self._said[node]
        done(said if isinstance(said, Fault) else mesh_pb2.GetStatusResponse(gateway=said))

    def learnt(self, *nodes: str) -> list[str]:
        asyncio.run(self.urls.learn(nodes))
        return [self.urls.url_of(node) for node in nodes]


@pytest.mark.parametrize(
    ("node", "said", "url"),
    [
        (SELF, "", OWN),
        (FAR, "http://192.0.2.9:8081", "http://192.0.2.9:8081"),
        (FAR, "http://127.0.0.1:8081", "https://192.0.2.9:7440"),  # only that machine can reach it
        (NEAR, "http://127.0.0.1:8081", "http://127.0.0.1:8081"),  # which is this one
        (FAR, "", "https://192.0.2.9:7440"),
        (FAR, "javascript:alert(1)", "https://192.0.2.9:7440"),
        (FAR, "http://192.0.2.9:8081/\x1b[2J", "https://192.0.2.9:7440"),
        (FAR, Unavailable("gone"), "https://192.0.2.9:7440"),
        ("d" * 32, "", ""),
    ],
)
def test_a_node_is_named_by_what_reaches_it(node: str, said: str | Fault, url: str) -> None:
    assert World({node: said}).learnt(node) == [url]


def test_who_is_behind_a_slow_link_is_not_asked() -> None:
    world = World({FAR: "http://192.0.2.9:8081"})
    world.quick.clear()
    assert (world.learnt(FAR), world.asked) == (["https://192.0.2.9:7440"], [])


def test_members_are_asked_once_in_a_while_and_others_never(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({FAR: "http://192.0.2.9:8081", NEAR: Unavailable("gone")})

    async def learn_twice() -> None:
        for _ in range(2):
            await world.urls.learn([FAR, NEAR, SELF, "", "d" * 32])

    asyncio.run(learn_twice())
    assert sorted(world.asked) == [NEAR, FAR]
    monkeypatch.setattr(gateway_urls, "AGE_MS_MAX", -1)
    world.asked.clear()
    world = World({FAR: ""})
    asyncio.run(world.urls.learn([FAR]))
    asyncio.run(world.urls.learn([FAR]))
    assert world.asked == [FAR, FAR]
