"""What a kit's server gives, and that nothing outside the kit is among it."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_kit import OTHER, OWN, make_small_kit

from offgrid_node.kit import serving
from offgrid_node.kit.serving import CALLERS_MAX, CALLERS_OF_ONE_MAX, KitServer
from offgrid_node.protocol.errors import InvalidRequest, Unavailable


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KitServer]:
    kit = tmp_path_factory.mktemp("kit") / "kit"
    make_small_kit(kit, "linux-x86_64-3.11")
    (kit / "secret.txt").write_text("not of the kit")
    (kit / "wheels" / OTHER).unlink()
    with KitServer(kit, "127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
        yield serving
        serving.shutdown()


def ask(server: KitServer, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.server_address[1]), timeout=5)
    try:
        connection.putrequest(method, path, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_serves_what_the_manifest_names(server: KitServer) -> None:
    status, body = ask(server, "GET", f"/wheels/{OWN}")
    assert (status, body) == (200, server.files[f"/wheels/{OWN}"].read_bytes())
    assert ask(server, "HEAD", "/kit.json") == (200, b"")
    assert b"install.py" in ask(server, "GET", "/")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/wheels/../secret.txt",
        "/wheels/..%2fsecret.txt",
        "//etc/passwd",
        "/../../../../etc/passwd",
        "/wheels/",
        "/wheels",
        "/kit.json/",
        f"/wheels/{OTHER}",
    ],
)
def test_serves_nothing_else(server: KitServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404


def test_takes_no_uploads(server: KitServer) -> None:
    assert ask(server, "POST", "/kit.json")[0] == 501


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loopback has one address")
def test_one_machine_that_holds_connections_keeps_no_other_out(server: KitServer) -> None:
    with ExitStack() as held:
        idle = [begun(server, held, "127.0.0.2") for _ in range(CALLERS_MAX + 4)]
        began = time.monotonic()
        assert ask(server, "GET", "/kit.json")[0] == 200
        assert time.monotonic() - began < 2
        for connection in idle[CALLERS_OF_ONE_MAX:]:
            assert connection.recv(1) == b"", "one too many is let go at once: it comes again"


def test_a_head_that_does_not_end_is_waited_for_no_longer_than_is_said(
    server: KitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.4)
    with ExitStack() as held:
        connection = begun(server, held, "127.0.0.1")
        began, ended = time.monotonic(), False
        while not ended and time.monotonic() - began < 5:
            try:
                connection.send(b"E")  # a byte now and then, and never a line
                connection.settimeout(0.05)
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended
        assert time.monotonic() - began < 2


def begun(server: KitServer, held: ExitStack, address: str) -> socket.socket:
    """A connection from there on which a request has begun."""
    place = ("127.0.0.1", int(server.server_address[1]))
    connection = held.enter_context(socket.create_connection(place, 5, (address, 0)))
    connection.sendall(b"G")
    return connection


def test_says_what_is_wrong_with_the_address_or_the_kit(server: KitServer, tmp_path: Path) -> None:
    kit = server.files["/kit.json"].parent
    with pytest.raises(Unavailable, match="cannot be listened on"):
        KitServer(kit, "127.0.0.1", int(server.server_address[1]))
    with pytest.raises(InvalidRequest, match="make a kit with"):
        KitServer(tmp_path, "127.0.0.1", 0)
    (tmp_path / "kit.json").write_text(
        '{"format": 1, "version": "1", "pip": "p", "targets": {}, "files": {"../x": {"bytes": 1, "sha256": ""}}}'
    )
    with pytest.raises(InvalidRequest, match="is no plain file name"):
        KitServer(tmp_path, "127.0.0.1", 0)
