"""Following one thing through its changes to its end, over a stream that may break and is then opened anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from offgrid.client.errors import OffgridError
from offgrid.client.silence import Silence

T = TypeVar("T")


def follow(
    states: Callable[[float | None], Iterator[T]],
    has_ended: Callable[[T], bool],
    silence: Silence,
    within_s: float | None = None,
) -> Iterator[T]:
    """Each state that differs from the one before; otherwise as `reopened`."""
    last: T | None = None
    for state in reopened(states, has_ended, silence, within_s):
        if state != last:
            last = state
            yield state


def reopened(
    opened: Callable[[float | None], Iterator[T]],
    has_ended: Callable[[T], bool],
    silence: Silence,
    within_s: float | None = None,
) -> Iterator[T]:
    """Each message of the stream; ends after the last one, or once `within_s` seconds are over.

    `opened` opens the stream anew, for so many seconds or without end. One that breaks is opened again as long as
    `silence` waits, then its error is raised.
    """
    until = None if within_s is None else time.monotonic() + within_s
    while True:
        lost: OffgridError | None = None
        left_s = None if until is None else until - time.monotonic()
        if left_s is not None and left_s <= 0:
            return
        try:
            silence.opening()
            for message in opened(left_s):
                silence.heard()
                yield message
                if has_ended(message):
                    return
        except OffgridError as error:
            if until is not None and error.code == "DEADLINE_EXCEEDED":
                return
            if not error.outcome_unknown:
                raise
            lost = error
        silence.wait(lost)
