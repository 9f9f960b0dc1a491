"""Starts that a host has not answered yet: their work may be over in a moment, and then its reports go along."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.leases import blobs_of
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.post import Post

HOLD_MS = 5  # how long a start waits for its work, so that its answer may bring what came of it
ANSWER_BYTES_MAX = 64 * 1024  # of reports that go with an answer: what any link carries well within its time


@dataclass(slots=True, eq=False)
class Held:
    """One call of a core. `open` are the attempts of which it is not known what comes of them, in their order."""

    ticket: int
    answer: jobs_pb2.StartJobsResponse
    open: dict[ClaimKey, None]
    due_ms: int
    room_bytes: int = ANSWER_BYTES_MAX


class Starts:
    """All of them; each is answered once, when nothing of it is open any more or its time has come."""

    def __init__(self, post: Post, keep: Callable[[ClaimKey], None]) -> None:
        """`keep` makes an attempt durable that its core is told of before it has ended."""
        self._post, self._keep = post, keep
        self._held: dict[ClaimKey, Held] = {}

    def deadline_ms(self) -> int | None:
        for held in self._held.values():
            return held.due_ms
        return None

    def hold(self, ticket: int, answer: jobs_pb2.StartJobsResponse, keys: Iterable[ClaimKey], now: Now) -> None:
        held = Held(ticket, answer, dict.fromkeys(keys), now.mono_ms + HOLD_MS)
        self._held.update(dict.fromkeys(held.open, held))

    def answer_due(self, now: Now) -> None:
        """Closes the step."""
        if self._held:
            due = {id(held): held for held in self._held.values() if held.due_ms <= now.mono_ms}
            for held in due.values():
                self._answer(held)

    def take(self, key: ClaimKey, report: jobs_pb2.AttemptReport) -> bool:
        """The attempt is over: whether its start is still unanswered, and its answer has room for the report."""
        held = self._held.pop(key, None)
        if held is None:
            return False
        del held.open[key]
        size_bytes = report.ByteSize()
        fits = size_bytes <= held.room_bytes and not blobs_of(report)
        if fits:
            held.room_bytes -= size_bytes
            held.answer.reports.append(report)
        if not held.open:
            self._answer(held)
        return fits

    def forget(self, key: ClaimKey) -> None:
        """Nobody wants the attempt any more."""
        held = self._held.pop(key, None)
        if held is not None:
            del held.open[key]
            if not held.open:
                self._answer(held)

    def _answer(self, held: Held) -> None:
        for key in held.open:
            del self._held[key]
            self._keep(key)
        held.answer.root_signature = self._post.sign_reports(held.answer.reports)
        self._post.reply(held.ticket, held.answer)
