"""Starts that a host has not answered yet: their work may be over in a moment, and then its reports go along."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.leases import blobs_of
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.post import Post

HOLD_MS = 5  # how long a start waits for its work, so that its answer may bring what came of it
ANSWER_BYTES_MAX = 64 * 1024  # of reports that go with an answer: what any link carries well within its time


class Unanswered(msgspec.Struct, eq=False):
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
        self._open: dict[ClaimKey, Unanswered] = {}

    def deadline_ms(self) -> int | None:
        for call in self._open.values():
            return call.due_ms
        return None

    def hold(self, ticket: int, answer: jobs_pb2.StartJobsResponse, keys: Iterable[ClaimKey], now: Now) -> None:
        call = Unanswered(ticket, answer, dict.fromkeys(keys), now.mono_ms + HOLD_MS)
        self._open.update(dict.fromkeys(call.open, call))

    def answer_due(self, now: Now) -> None:
        """Closes the step."""
        if self._open:
            due = {id(call): call for call in self._open.values() if call.due_ms <= now.mono_ms}
            for call in due.values():
                self._answer(call)

    def take(self, key: ClaimKey, report: jobs_pb2.AttemptReport) -> bool:
        """The attempt is over: whether its start is still unanswered, and its answer has room for the report."""
        call = self._open.pop(key, None)
        if call is None:
            return False
        del call.open[key]
        size_bytes = report.ByteSize()
        fits = size_bytes <= call.room_bytes and not blobs_of(report)
        if fits:
            call.room_bytes -= size_bytes
            call.answer.reports.append(report)
        if not call.open:
            self._answer(call)
        return fits

    def forget(self, key: ClaimKey) -> None:
        """Nobody wants the attempt any more."""
        call = self._open.pop(key, None)
        if call is not None:
            del call.open[key]
            if not call.open:
                self._answer(call)

    def _answer(self, call: Unanswered) -> None:
        for key in call.open:
            del self._open[key]
            self._keep(key)
        call.answer.root_signature = self._post.sign_reports(call.answer.reports)
        self._post.reply(call.ticket, call.answer)
