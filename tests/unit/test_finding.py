"""Which port a node listens on: the config's, or its last one again where the config takes any. And for how long it
looks where mDNS says that it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offgrid_node import finding
from offgrid_node.discovery.hints import Hint
from offgrid_node.discovery.mdns import Mdns
from offgrid_node.finding import Finding, listen_again
from offgrid_node.protocol.errors import FailedPrecondition

ANY = 5_000  # what the system gives to whoever asks for port 0


def asked(address: str, before: Sequence[str] = (), advertise: Sequence[str] = (), *, taken: str = "") -> list[str]:
    """The addresses that were tried, in order."""
    tried: list[str] = []

    async def listen(at: str) -> int:
        tried.append(at)
        if at == taken:
            raise FailedPrecondition(f"cannot listen on {at}: taken", reason="AddressInUse")
        return int(at.rpartition(":")[2]) or ANY

    port = asyncio.run(listen_again(listen, address, before, advertise))
    assert port == (int(tried[-1].rpartition(":")[2]) or ANY)
    return tried


def test_a_port_in_the_config_is_the_port() -> None:
    assert asked("0.0.0.0:7440", ["10.0.0.1:39999"]) == ["0.0.0.0:7440"]


@pytest.mark.parametrize(
    ("address", "before", "again"),
    [("127.0.0.1:0", "127.0.0.1:39999", "127.0.0.1:39999"), ("[::]:0", "[fe80::1]:39999", "[::]:39999")],
)
def test_any_port_is_the_last_one_again_at_the_address_of_now(address: str, before: str, again: str) -> None:
    assert asked(address, [before]) == [again]


def test_a_port_that_somebody_else_has_by_now_is_not_waited_for() -> None:
    assert asked("127.0.0.1:0", ["127.0.0.1:39999"], taken="127.0.0.1:39999") == ["127.0.0.1:39999", "127.0.0.1:0"]


def test_a_node_that_was_never_reached_takes_any() -> None:
    assert asked("127.0.0.1:0") == ["127.0.0.1:0"]


def test_the_port_of_what_stands_in_front_of_a_node_is_not_its_own() -> None:
    assert asked("0.0.0.0:0", ["gate.example:9000"], ["gate.example:9000"]) == ["0.0.0.0:0"]


def test_a_port_that_the_config_insists_on_and_cannot_have_is_a_fault() -> None:
    with pytest.raises(FailedPrecondition):
        asked("127.0.0.1:7440", taken="127.0.0.1:7440")


@pytest.mark.parametrize(("answers", "looks"), [((), 2), ((1,), 4), ((1, 2), 5), (range(6), 6)])
def test_where_nobody_answers_who_announces_as_this_node_it_looks_a_few_times(
    answers: Sequence[int], looks: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tag, peer, announced = b"12345678", "192.0.2.9:1", ("127.0.0.1:1", "127.0.0.2:1")
    looked, enough = list[str](), asyncio.Event()
    mesh = SimpleNamespace(
        hosts_file=tmp_path / "none", listen="127.0.0.1:7440", advertise=(), peers=(peer,), mdns=True
    )
    config: Any = SimpleNamespace(mesh=mesh, storage=SimpleNamespace(hosts=()), jobs=SimpleNamespace(broker_url=""))
    directory = SimpleNamespace(genesis=SimpleNamespace(mesh_tag=tag))
    node: Any = SimpleNamespace(node_id="n", directory=directory, runtime=SimpleNamespace(deliver=lambda *_: None))
    ear = Mdns(lambda: Hint("n", tag, (), 7440, None, "n", "0.1.0"), lambda hint: None)
    ear._as_us = announced

    async def peek(self: Finding, address: str) -> bool:
        if enough.is_set():
            return False
        looked.append(address)
        if looked.count(peer) == 6:
            enough.set()
        return address == announced[1] and looked.count(address) - 1 in answers

    async def six_looks() -> None:
        it = Finding(config, node, cast(Any, None), lambda: 0)
        await it.start(7440, None)
        async with asyncio.timeout(10):
            await enough.wait()
        await it.close()

    monkeypatch.setattr(finding, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(finding, "VAIN_LOOKS_MAX", 2)
    monkeypatch.setattr(finding, "make_mdns", lambda *_: ear)
    monkeypatch.setattr(Mdns, "start", lambda self: asyncio.sleep(0))
    monkeypatch.setattr(Finding, "_peek", peek)
    asyncio.run(six_looks())
    assert looked.count(announced[0]) == looks
