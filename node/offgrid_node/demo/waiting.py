"""Waiting for what must come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from offgrid_node.protocol.errors import Unavailable

PATIENCE_S, POLL_S = 120.0, 0.03

T = TypeVar("T")


def until(question: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first answer that is one; raises Unavailable naming `what` after a while."""
    deadline = time.monotonic() + patience_s
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise Unavailable(f"not within {patience_s:g} s: {what}", reason="NotInTime")
        time.sleep(POLL_S)
    return answer
