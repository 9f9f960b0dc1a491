"""What a put says while it waits."""

from __future__ import annotations

import pytest

from offgrid.v1 import objects_pb2
from offgrid_tools.cli import waiting
from offgrid_tools.cli.waiting import Waiting


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (
            True,
            [
                "o-1 is kept here; acks: 0.0 of 1.0",
                "acks: 0.0 of 1.0; 0 bytes of 8.0 MB sent",
                "acks: 0.0 of 1.0; 4.0 MB of 8.0 MB sent, 2.0 MB/s",
            ],
        ),
        (False, ["o-1 is kept here; acks: 0.0 of 1.0"]),
    ],
)
def test_a_terminal_sees_how_much_was_sent_and_how_fast(
    monkeypatch: pytest.MonkeyPatch, live: bool, said: list[str]
) -> None:
    now_s, lines = 100.0, list[str]()
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now_s)
    told = Waiting(lines.append, lambda made, hint: None, live=live)
    told.on_change(objects_pb2.Object(object_id="o-1", required_milli=1_000))
    told.on_progress(0, 8_000_000)
    now_s = 102.0
    told.on_progress(4_000_000, 8_000_000)
    assert lines == said
