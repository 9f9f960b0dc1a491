"""A node that falls silent under those who follow it: how long each of them waits, and that its user hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from offgrid.client.errors import OffgridError

PAUSE_MS = 50  # before the first repetition; doubled for each further one
PAUSE_MS_MAX = 1_000
RECONNECT_S = 60.0  # a machine that was started anew has its node back by then
OPEN_S = 1.0  # a stream that lasted so long was open: one that finds no node ends sooner

Say = Callable[[str], None]


class Outages:
    """Tells a client's user once of each time that the node is silent, however many wait for it. Thread-safe."""

    def __init__(self, target: str, tell: Say | None = None) -> None:
        self.target = target
        self._tell = tell or _log
        self._told = False
        self._lock = threading.Lock()

    def began(self, what: str, patience_s: float) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._tell(f"the node at {self.target} is silent; {what} goes on, waiting for the node {patience_s:g} s")

    def over(self) -> None:
        self._told = False


class Silence:
    """Of one stream, which is opened again whenever it breaks."""

    def __init__(self, what: str, outages: Outages, call_s: float, reconnect_s: float = RECONNECT_S) -> None:
        """A node that was heard is waited for `reconnect_s` seconds, one that never was `call_s`, as for any call."""
        self.what = what
        self._outages, self._call_s, self._reconnect_s = outages, call_s, reconnect_s
        self._was_open = False
        self._opened_at: float | None = None
        self._lost_at: float | None = None
        self._pause_ms = PAUSE_MS

    def opening(self) -> None:
        self._opened_at = time.monotonic()

    def heard(self) -> None:
        if self._lost_at is not None or not self._was_open:
            self._was_open, self._lost_at, self._pause_ms = True, None, PAUSE_MS
            self._outages.over()

    def wait(self, error: OffgridError | None = None, *, matters: bool = True) -> None:
        """The stream has ended, with this error or without a word. Returns when it is to be opened again; raises
        OffgridError once that was tried for long enough. The user hears of it if it `matters` and is no mere break: a
        stream that was opened again at once is none of their business."""
        if error is not None and error.reason == "ClientClosed":
            raise error
        now = time.monotonic()
        if self._opened_at is not None and now - self._opened_at >= OPEN_S:
            self.heard()
        is_break, lost_at = self._lost_at is None, self._lost_at or now
        self._lost_at = lost_at
        patience_s = self._reconnect_s if self._was_open else self._call_s
        if now - lost_at > patience_s:
            raise self._given_up(patience_s, error)
        if self._was_open and matters and not is_break:
            self._outages.began(self.what, patience_s)
        time.sleep(self._pause_ms / 1000)
        self._pause_ms = min(PAUSE_MS_MAX, 2 * self._pause_ms)

    def _given_up(self, patience_s: float, error: OffgridError | None) -> OffgridError:
        if not self._was_open and error is not None:
            return error
        why = f" ({error.message})" if error is not None else ""
        text = f"the node at {self._outages.target} was silent for {patience_s:g} s{why}; {self.what} may go on"
        return OffgridError("UNAVAILABLE", "WatchEnded", text)


def _log(sentence: str) -> None:
    """For applications that said nothing else: their log, or standard error where they have none."""
    import logging

    logging.getLogger("offgrid").warning("%s", sentence)
