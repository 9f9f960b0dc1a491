"""What is behind an address: each kind of silence has a cause of its own."""

from __future__ import annotations

import socket
import threading

import pytest

from offgrid_node.doctor import meeting
from offgrid_node.doctor.meeting import Met, meet


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "CONNECT_S", 0.2)


def address(of: socket.socket) -> str:
    return f"127.0.0.1:{of.getsockname()[1]}"


def test_a_machine_whose_node_does_not_run() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        assert meet(address(unheard)) == (Met.NOBODY, "")


def test_one_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert meet(address(silent)) == (Met.NO_TLS, "")


def test_a_firewall_that_drops() -> None:
    with socket.socket() as full:  # whoever is one too many before a full backlog hears nothing
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        assert meet(address(full)) == (Met.SILENCE, "")
        for each in waiting:
            each.close()


def test_something_else_than_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "CONNECT_S", 20)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            taken, _ = other.accept()
            with taken:
                taken.recv(100)
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert meet(address(other)) == (Met.OTHER, "")
        thread.join()
