"""The node in small that client and command are tested against."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# Whoever starts the tests in the background of a shell hands down that SIGINT is ignored; what is interrupted here
# must notice.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from small_node import SmallNode


@pytest.fixture(autouse=True)
def _state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the command keeps of puts that were cut off is none of the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def node() -> Iterator[SmallNode]:
    from small_node import SmallNode

    running = SmallNode()
    yield running
    running.close()
