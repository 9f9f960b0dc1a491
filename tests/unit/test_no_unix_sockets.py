"""Where a system has no unix sockets (Windows), who is told of one says so, and does not break."""

from __future__ import annotations

import pytest

from offgrid.client import Address
from offgrid.client.framed import Wire
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.services.admin_socket import unix_socket


@pytest.fixture(autouse=True)
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")


def test_a_client_is_told_as_of_any_socket_that_is_not_there() -> None:
    with pytest.raises(OSError, match="no unix sockets"):
        Wire(Address("unix:/nowhere"))


def test_a_node_names_what_to_listen_on_instead() -> None:
    with pytest.raises(FailedPrecondition, match=r"listen on 127\.0\.0\.1:0") as refused:
        unix_socket()
    assert refused.value.reason == "NoUnixSockets"
