"""Which port a node listens on: the config's, or its last one again where the config takes any."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from offgrid_node.finding import listen_again
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
