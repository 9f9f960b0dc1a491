"""Records events in a session without ever keeping the application waiting: a thread brings them to the node.

`accepted`: it is in this process' memory. `durable`: it is on the node's disk. Events go in batches, of BATCH_MIN or
after BATCH_S, and of more the longer the last one took. What the node may have got or not is sent again as it was, and
recorded once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from offgrid.client.backlog import Backlog, Waiting
from offgrid.client.breaker import Breaker
from offgrid.client.errors import OffgridError

BATCH_MIN, BATCH_S = 15, 0.2
BATCH_MAX, BATCH_BYTES_MAX = 1_000, 512 * 1024
WRITER_BYTES = 8
REFUSED_FOR_GOOD = frozenset({"SessionEnded", "SessionShredded", "SessionKeyless", "SessionNotFound", "ClientClosed"})

_log = logging.getLogger("offgrid.sessions")


@dataclass(frozen=True, slots=True)
class Figures:
    """How recording goes. Of what was `accepted` some are `durable`, some `waiting`; the others were `dropped` to make
    room, or `refused` by the node. What found no room at all was dropped, and never accepted: `turned_away`."""

    accepted: int
    durable: int
    waiting: int
    dropped: Mapping[str, int]
    turned_away: int
    refused: Mapping[str, int]
    breaker: str
    write_ms: float
    failures: int
    """Tries that failed."""
    openings: int
    """How often the circuit breaker opened."""


Send = Callable[[bytes, int, list[Waiting], Figures], None]
"""Writer, how many it sent before, events, how it goes. Raises OffgridError."""


class Recorder:
    """One writer of one session."""

    def __init__(self, send: Send, expendable: frozenset[str]) -> None:
        self._send, self._backlog = send, Backlog(expendable)
        self._writer, self._sent = os.urandom(WRITER_BYTES), 0
        self._under_way: list[Waiting] = []
        self._refused: Counter[str] = Counter()
        self._missed_before = 0  # dropped and refused when it was last flushed
        self._breaker, self._write_ms = Breaker(), 0.0
        self._wake, self._settled = threading.Event(), threading.Condition()
        self._closing = self._over = False  # it takes nothing more; its thread ends
        self._pid = os.getpid()
        self._why: OffgridError | None = None  # it takes nothing more
        self._thread = threading.Thread(target=self._run, name="offgrid-recorder", daemon=True)
        self._thread.start()

    # ---- the application's threads

    def add(self, event: Waiting) -> None:
        """Raises BacklogFull, and OffgridError once nothing would be sent any more."""
        if self._why is not None or self._closing or self._pid != os.getpid():
            raise self._refusal()
        if self._backlog.add(event) >= BATCH_MIN:
            self._wake.set()

    def figures(self) -> Figures:
        with self._settled:
            waiting, durable, refused = len(self._backlog) + len(self._under_way), self._sent, dict(self._refused)
        state = self._breaker.state(time.monotonic())
        dropped, away = self._backlog.dropped, self._backlog.turned_away
        tried = self._breaker
        return Figures(
            self._backlog.accepted,
            durable,
            waiting,
            dropped,
            away,
            refused,
            state,
            self._write_ms,
            tried.failures,
            tried.openings,
        )

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was accepted before now is settled. True: it is durable. False: it is not settled in
        time, or some that came since the last flush was dropped or refused."""
        until = self._backlog.accepted
        self._wake.set()
        with self._settled:
            settled = self._settled.wait_for(lambda: self._is_settled(until), timeout_s)
            missed = sum(self._backlog.dropped.values()) + sum(self._refused.values())
            before, self._missed_before = self._missed_before, missed
        return settled and self._why is None and missed == before

    def close(self, timeout_s: float) -> bool:
        """Takes nothing more, flushes, and ends the thread."""
        self._closing = True
        flushed = self._pid == os.getpid() and self.flush(timeout_s)
        self._over = True
        self._wake.set()
        if self._pid == os.getpid() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return flushed

    # ---- its own

    def _refusal(self) -> OffgridError:
        if self._why is not None:
            why = self._why  # another each time: many threads may raise it
            return OffgridError(why.code, why.reason, why.message, why.violations, why.retry_ms, why.metadata)
        if self._closing:
            return OffgridError("CANCELLED", "SessionClosed", "the session was closed in this program")
        text = "the session was opened before this process was forked: open it anew"
        return OffgridError("FAILED_PRECONDITION", "SessionForked", text)

    def _is_settled(self, until: int) -> bool:
        oldest = self._under_way[0] if self._under_way else None
        return self._why is not None or ((oldest is None or oldest.place > until) and self._backlog.oldest > until)

    def _run(self) -> None:
        try:
            while not self._over and self._why is None:
                if len(self._backlog) < BATCH_MIN and not self._under_way:
                    self._wake.wait(BATCH_S)
                self._wake.clear()
                if not self._under_way:
                    with self._settled:
                        self._under_way = self._backlog.take(BATCH_MAX, BATCH_BYTES_MAX)
                if self._under_way:
                    self._try()
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever records is told
            _log.exception("recording ends")
            self._why = OffgridError("INTERNAL", "RecorderFailed", f"a defect of the recorder: {error!r}")
        with self._settled:
            self._settled.notify_all()

    def _try(self) -> None:
        began_s = time.monotonic()
        wait_s = self._breaker.wait_s(began_s)
        if wait_s:
            time.sleep(min(wait_s, BATCH_S))
            return
        try:
            self._send(self._writer, self._sent, self._under_way, self.figures())
        except OffgridError as error:
            self._on_error(error)
        else:
            self._breaker.on_success()
            self._write_ms = (time.monotonic() - began_s) * 1_000
            with self._settled:
                self._sent, self._under_way = self._sent + len(self._under_way), []
                self._settled.notify_all()

    def _on_error(self, error: OffgridError) -> None:
        if error.reason in REFUSED_FOR_GOOD:
            _log.error("recording ends: %s", error)
            self._why = error
        elif error.code == "INVALID_ARGUMENT":
            self._on_refused(error)
        else:
            self._breaker.on_failure(time.monotonic())

    def _on_refused(self, error: OffgridError) -> None:
        """The node knows other rules than this process, and has recorded nothing: what is good goes on. Where it does
        not say which is wrong, half of them are tried next, and in the end one."""
        place, count = _place_of(error, len(self._under_way)), len(self._under_way)
        with self._settled:
            if place is None and count > 1:
                self._under_way, rest = self._under_way[: count // 2], self._under_way[count // 2 :]
                self._backlog.put_back(rest)
                return
            refused = self._under_way.pop(place or 0)
            self._refused[refused.kind] += 1
            self._settled.notify_all()
        _log.warning("an event of the kind %s was refused: %s", refused.kind, error)


def _place_of(error: OffgridError, count: int) -> int | None:
    """Which of the events was wrong, where one was: the field is events[PLACE]…"""
    for violation in error.violations:
        inside = violation.field.removeprefix("events[").partition("]")[0]
        if violation.field.startswith("events[") and inside.isdigit() and int(inside) < count:
            return int(inside)
    return None
