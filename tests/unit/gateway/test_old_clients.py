"""Old clients are counted each time, and named in the log once."""

from __future__ import annotations

import logging

import pytest
from log_lines import lines

from offgrid_node.gateway.old_clients import KNOWN_MAX, OldClients
from offgrid_node.meters.http import HttpMeters


def test_each_is_named_once_by_address_and_path_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    meters = HttpMeters()
    clients = OldClients(meters)
    for at_s in (1.0, 2.0, 3.0):
        clients.on_request("POST", "/auction", "10.0.0.7", at_s)
    clients.on_request("GET", "/status", "10.0.0.7", 4.0)
    assert lines(caplog) == [
        "a client asks by a path of the prototype's event=old_path_used client=10.0.0.7 method=POST path=/auction",
        "a client asks by a path of the prototype's event=old_path_used client=10.0.0.7 method=GET path=/status",
    ]
    assert dict(meters.old_paths.samples()) == {("POST", "/auction"): 3, ("GET", "/status"): 1}
    assert meters.old_path_last_s == 4.0


def test_no_more_clients_are_known_than_there_is_room_for() -> None:
    clients = OldClients(HttpMeters())
    for number in range(KNOWN_MAX + 9):
        clients.on_request("GET", "/status", f"10.0.{number >> 8}.{number & 255}", 1.0)
    assert len(clients._known) == KNOWN_MAX
