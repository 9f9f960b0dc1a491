"""Every adapter keeps the rules of a link."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid_transports import memory, tcp, udp, unix
from offgrid_transports.conformance.test_transport import *  # noqa: F403
from offgrid_transports.registry import TransportRegistry

KINDS = ["memory", "slow memory", "udp", "udp by peers", "tcp", *(["unix"] if sys.platform != "win32" else [])]


@pytest.fixture
def registry() -> TransportRegistry:
    return TransportRegistry(
        {
            "memory": memory.open_transport,
            "udp": udp.open_transport,
            "tcp": tcp.open_transport,
            "tcp-listen": tcp.open_listening,
            "unix": unix.open_transport,
            "unix-listen": unix.open_listening,
        }
    )


@pytest.fixture(params=KINDS)
def descriptions(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    if request.param == "memory":
        yield "memory:a", "memory:b"
    elif request.param == "slow memory":
        yield "memory:a?bps=40000000&mtu=200", "memory:b"
    elif request.param == "udp":
        yield "udp:127.0.0.1:0?multicast=239.192.119.8:7729", "udp:127.0.0.1:0?multicast=239.192.119.8:7729"
    elif request.param == "udp by peers":
        a, b = free_port(), free_port()
        yield f"udp:127.0.0.1:{a}?peer=127.0.0.1:{b}", f"udp:127.0.0.1:{b}?peer=127.0.0.1:{a}"
    elif request.param == "tcp":
        port = free_port()
        yield f"tcp-listen:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "link"
            yield f"unix-listen:{path}", f"unix:{path}"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
