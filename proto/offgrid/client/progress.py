"""What a job says while it runs, each piece once, over a stream that may break and is then opened anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from offgrid.client.following import reopened
from offgrid.client.silence import Silence
from offgrid.v1 import jobs_pb2

Stream = Literal["log", "output"]


def each_once(
    opened: Callable[[float | None], Iterator[jobs_pb2.WatchProgressResponse]],
    silence: Silence,
    within_s: float | None = None,
) -> Iterator[jobs_pb2.JobProgress]:
    """Ends with the job; otherwise as `reopened`."""
    heard = Heard()
    for answer in reopened(opened, lambda answer: answer.HasField("job"), silence, within_s):
        fresh = heard.take(answer.progress) if answer.HasField("progress") else None
        if fresh is not None:
            yield fresh


class Heard:
    """How much of the present attempt has been told."""

    def __init__(self) -> None:
        self._attempt = 0
        self._ends: dict[Stream, int] = {}
        self._last: tuple[object, ...] = ()

    def take(self, told: jobs_pb2.JobProgress) -> jobs_pb2.JobProgress | None:
        """`told` without the bytes that are known already; None when nothing is left of it."""
        if told.attempt != self._attempt:
            self._attempt, self._ends = told.attempt, {}
        fresh = jobs_pb2.JobProgress()
        fresh.CopyFrom(told)
        fresh.log, fresh.log_offset = self._cut("log", told.log_offset, told.log)
        fresh.output, fresh.output_offset = self._cut("output", told.output_offset, told.output)
        said = told.attempt, told.message, told.HasField("fraction"), told.fraction
        news = bool(fresh.log or fresh.output or said != self._last)
        self._last = said
        return fresh if news else None

    def _cut(self, name: Stream, offset: int, data: bytes) -> tuple[bytes, int]:
        known = self._ends.get(name, 0)
        self._ends[name] = max(known, offset + len(data))
        skip = min(len(data), max(0, known - offset))
        return data[skip:], offset + skip
