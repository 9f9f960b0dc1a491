"""The connection that calls share: whoever closes it while it is being opened leaves nothing open."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from offgrid.client.address import Address
from offgrid.client.framed import FramedCalls
from offgrid.frames import frame

PATIENCE_S = 30.0


def test_a_node_that_lets_in_after_the_close_is_left_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as node, ThreadPoolExecutor(1) as thread:
        calls = FramedCalls(Address("127.0.0.1:1", framed=f"127.0.0.1:{node.getsockname()[1]}"))
        opened = thread.submit(calls.wire)
        with node.accept()[0] as let_in:
            calls.close()
            let_in.sendall(frame(b""))
            assert opened.result(PATIENCE_S) is None
            let_in.settimeout(PATIENCE_S)
            assert let_in.recv(1) == b""
    assert calls.wire() is None
