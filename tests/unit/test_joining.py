"""At a door before which others stand as well a joiner waits its turn; where it is not wanted it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from offgrid.v1 import mesh_pb2
from offgrid_node.config import Config
from offgrid_node.joining import _ask_by_all, _ask_until
from offgrid_node.keys import NodeKey, seal
from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.protocol.mesh.joining import CROWDED_MS_MAX, grant_context
from offgrid_node.protocol.mesh.token import MESH_TAG_BYTES, InviteToken
from offgrid_node.services.status import to_rpc_status

SECRET, KEY = bytes(range(16)), NodeKey(bytes(32))
CROWDED = Exhausted("4 calls are in flight", reason="TooManyCalls", retry_ms=100)
SHUT = Exhausted("20 joins failed within a minute", reason="TooManyJoins", retry_ms=CROWDED_MS_MAX + 1)
TOO_LARGE = Exhausted("9,000 bytes", reason="RequestTooLarge")


def asked_at(*answers: Fault | mesh_pb2.JoinGrant, timeout_s: float = 20.0) -> tuple[object, int]:
    """What comes of asking at a door that answers so, one after the other, and how many of the answers are left."""
    left = list(answers)
    context = grant_context(InviteToken(bytes(MESH_TAG_BYTES), SECRET).invite_id)

    async def join(_: bytes, call: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Fault):
            await call.abort_with_status(to_rpc_status(answer))
        sealed = seal(SECRET, context, answer.SerializeToString())
        return mesh_pb2.JoinResponse(sealed=sealed).SerializeToString()

    async def ask() -> object:
        server = grpc.aio.server()
        handlers = {"Join": grpc.unary_unary_rpc_method_handler(join)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("offgrid.v1.JoinService", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        token = InviteToken(bytes(MESH_TAG_BYTES), SECRET, (f"127.0.0.1:{port}",))
        try:
            return await _ask_until(token, KEY, "late", timeout_s)
        except Fault as fault:
            return fault
        finally:
            await server.stop(None)

    return asyncio.run(ask()), len(left) - 1


@pytest.fixture(autouse=True)
def _no_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(token: InviteToken, deadline: float) -> list[str]:
        return []

    monkeypatch.setattr("offgrid_node.joining._look_around", nobody)
    monkeypatch.setattr("offgrid_node.joining.PAUSE_S", 0.01)


def test_a_crowded_door_is_knocked_at_again() -> None:
    granted = mesh_pb2.JoinGrant(members=[mesh_pb2.MemberProof(certificate=b"hers")])
    assert asked_at(CROWDED, CROWDED, granted) == (granted, 0)


@pytest.mark.parametrize("answer", [SHUT, TOO_LARGE])
def test_a_door_that_will_not_have_us_is_not(answer: Exhausted) -> None:
    fault, left = asked_at(answer, mesh_pb2.JoinGrant())
    assert isinstance(fault, Exhausted)
    assert (fault.reason, left) == (answer.reason, 0)


def asked_by_all(link: str, folder: Path, timeout_s: float) -> Fault:
    """What `_ask_by_all` ends with where nobody answers by IP."""
    config = SimpleNamespace(links=SimpleNamespace(open=[link]), node=SimpleNamespace(data_dir=folder))
    with pytest.raises(Fault) as caught:
        asyncio.run(
            _ask_by_all(InviteToken(bytes(MESH_TAG_BYTES), SECRET), KEY, "late", cast("Config", config), timeout_s)
        )
    return caught.value


def test_a_link_that_is_none_is_said_at_once(tmp_path: Path) -> None:
    fault = asked_by_all("lora:tcp/127.0.0.1:1?region=EU686", tmp_path, 60)
    assert (fault.reason, "EU868" in fault.message) == ("BadLink", True)


def test_where_nobody_answers_it_says_what_is_the_matter_with_the_links(tmp_path: Path) -> None:
    link = "lora:tcp/127.0.0.1:1?region=EU868"
    fault = asked_by_all(link, tmp_path, 0.3)
    assert (fault.reason, "mDNS" in fault.message) == ("NoDoor", True)
    assert f"{link} (" in fault.message


def test_one_that_stays_crowded_is_named_in_the_end() -> None:
    fault, _ = asked_at(CROWDED, timeout_s=0.1)
    assert isinstance(fault, Fault)
    assert (fault.reason, "4 calls are in flight" in fault.message) == ("NoDoor", True)
