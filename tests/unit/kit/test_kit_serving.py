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

from offgrid_node.kit import manifest, serving
from offgrid_node.kit.serving import CALLERS_MAX, CALLERS_OF_ONE_MAX, KitServer
from offgrid_node.kit.shelf import Shelf
from offgrid_node.protocol.errors import Corrupt, InvalidRequest, Unavailable

PATIENCE_S = 20


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
    connection = http.client.HTTPConnection("127.0.0.1", int(server.server_address[1]), timeout=PATIENCE_S)
    try:
        connection.putrequest(method, path, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_serves_what_the_manifest_names(server: KitServer) -> None:
    status, body = ask(server, "GET", f"/wheels/{OWN}")
    assert (status, body) == (200, (server.kit / "wheels" / OWN).read_bytes())
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


def test_a_kit_that_somebody_changed_is_served_to_nobody(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    make_small_kit(kit, "linux-x86_64-3.11")
    with (kit / "wheels" / OWN).open("ab") as wheel:
        wheel.write(b"x")
    with pytest.raises(Corrupt, match=f"wheels/{OWN} is not what the kit says it is; get the kit anew"):
        KitServer(kit, "127.0.0.1", 0)


def test_a_file_that_is_changed_while_the_kit_is_served_goes_out_no_more(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    make_small_kit(kit, "linux-x86_64-3.11")
    with KitServer(kit, "127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
        whole = (kit / "wheels" / OWN).read_bytes()
        for name in (f"wheels/{OWN}", "install.py", "kit.json"):
            (kit / name).write_bytes((kit / name).read_bytes()[:-1] + b"?")
            status, body = ask(serving, "GET", f"/{name}")
            assert (status, b"is not what the kit says it is" in body) == (500, True)
        (kit / "wheels" / OWN).write_bytes(whole)
        assert ask(serving, "GET", f"/wheels/{OWN}") == (200, whole)
        serving.shutdown()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, read = tmp_path / "kit", list[str]()
    make_small_kit(kit, "linux-x86_64-3.11")
    shelf, weigh = Shelf(kit), manifest.weigh
    monkeypatch.setattr(manifest, "weigh", lambda path: (read.append(path.name), weigh(path))[1])
    for _ in range(3):
        assert shelf.path_of(f"wheels/{OWN}") == kit / "wheels" / OWN
    assert read == [OWN]


def test_takes_no_uploads(server: KitServer) -> None:
    assert ask(server, "POST", "/kit.json")[0] == 501


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loopback has one address")
def test_one_machine_that_holds_connections_keeps_no_other_out(
    server: KitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 600)
    with ExitStack() as held:
        idle = [begun(server, held, "127.0.0.2") for _ in range(CALLERS_MAX + 4)]
        assert ask(server, "GET", "/kit.json")[0] == 200
        for connection in idle[CALLERS_OF_ONE_MAX:]:
            assert connection.recv(1) == b"", "one too many is let go at once: it comes again"


def test_a_head_that_does_not_end_is_waited_for_no_longer_than_is_said(
    server: KitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.4)
    with ExitStack() as held:
        connection = begun(server, held, "127.0.0.1")
        give_up_s, ended = time.monotonic() + PATIENCE_S, False
        while not ended and time.monotonic() < give_up_s:
            try:
                connection.send(b"E")  # a byte now and then, and never a line
                connection.settimeout(0.05)
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def begun(server: KitServer, held: ExitStack, address: str) -> socket.socket:
    """A connection from there on which a request has begun."""
    place = ("127.0.0.1", int(server.server_address[1]))
    connection = held.enter_context(socket.create_connection(place, PATIENCE_S, (address, 0)))
    connection.sendall(b"G")
    return connection


def test_says_what_is_wrong_with_the_address_or_the_kit(server: KitServer, tmp_path: Path) -> None:
    kit = server.kit
    with pytest.raises(Unavailable, match="cannot be listened on"):
        KitServer(kit, "127.0.0.1", int(server.server_address[1]))
    with pytest.raises(InvalidRequest, match="make a kit with"):
        KitServer(tmp_path, "127.0.0.1", 0)
    (tmp_path / "kit.json").write_text(
        '{"format": 1, "version": "1", "pip": "p", "targets": {}, "files": {"../x": {"bytes": 1, "sha256": ""}}}'
    )
    with pytest.raises(InvalidRequest, match="is no plain file name"):
        KitServer(tmp_path, "127.0.0.1", 0)
