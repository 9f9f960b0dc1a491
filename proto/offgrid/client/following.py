"""Following one thing through its changes to its end, over a stream that may break and is then opened anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from offgrid.client.calls import PAUSE_MS, PAUSE_MS_MAX
from offgrid.client.errors import OffgridError

T = TypeVar("T")


def follow(
    states: Callable[[float | None], Iterator[T]],
    has_ended: Callable[[T], bool],
    what: str,
    patience_s: float,
    within_s: float | None = None,
) -> Iterator[T]:
    """Each state that differs from the one before; otherwise as `reopened`."""
    last: T | None = None
    for state in reopened(states, has_ended, what, patience_s, within_s):
        if state != last:
            last = state
            yield state


def reopened(
    opened: Callable[[float | None], Iterator[T]],
    has_ended: Callable[[T], bool],
    what: str,
    patience_s: float,
    within_s: float | None = None,
) -> Iterator[T]:
    """Each message of the stream; ends after the last one, or once `within_s` seconds are over.

    `opened` opens the stream anew, for so many seconds or without end. A stream that breaks is opened again for
    `patience_s` seconds, then the error is raised: OffgridError WatchEnded where the node has merely gone silent.
    """
    until = None if within_s is None else time.monotonic() + within_s
    lost_at, pause_ms = None, PAUSE_MS
    while True:
        lost: OffgridError | None = None
        left_s = None if until is None else until - time.monotonic()
        if left_s is not None and left_s <= 0:
            return
        try:
            for message in opened(left_s):
                lost_at, pause_ms = None, PAUSE_MS
                yield message
                if has_ended(message):
                    return
        except OffgridError as error:
            if until is not None and error.code == "DEADLINE_EXCEEDED":
                return
            if not error.outcome_unknown:
                raise
            lost = error
        lost_at = lost_at or time.monotonic()
        if time.monotonic() - lost_at > patience_s:
            raise lost or OffgridError("UNAVAILABLE", "WatchEnded", f"the node no longer tells of {what}")
        time.sleep(pause_ms / 1000)
        pause_ms = min(PAUSE_MS_MAX, 2 * pause_ms)
