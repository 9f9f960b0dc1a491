"""A host's work between the machine's Execute and its Executed: input fetched, executors run, result sealed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from offgrid_node.protocol.effects import Execute, Executed, Stop
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.needs import has_references
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.services.jobs.inputs import InputFetching
from offgrid_node.services.jobs.results import Results

INPUT_UNAVAILABLE = "InputUnavailable"  # the core's next attempt goes to another host
CANCELLED = "Cancelled"
NO_EXIT_CODE = -1


class _Begun(msgspec.Struct):
    """Work under way: its core's key, and how much memory its input holds."""

    key: bytes | None
    held_bytes: int = 0
    executing: bool = False  # by the executors: its input is here
    stopped: bool = False


class Work:
    """What has been begun and not handed back."""

    def __init__(
        self,
        inputs: InputFetching,
        results: Results,
        key_of: Callable[[str], bytes | None],
        execute: Callable[[Execute], None],
        stop: Callable[[Stop], None],
        deliver: Callable[[Executed], None],
    ) -> None:
        """`key_of` gives a member's public key and may raise while machines are loaded anew; `execute` starts the
        executors and `stop` ends what they do, early; each end comes back to `on_end`; `deliver` brings it to the
        machine."""
        self._inputs, self._results, self._key_of = inputs, results, key_of
        self._execute, self._stop, self._deliver = execute, stop, deliver
        self._under_way: dict[ClaimKey, _Begun] = {}

    def executing(self) -> frozenset[ClaimKey]:
        """What was begun and whose end was not delivered: machines that are loaded anew take it over."""
        return frozenset(self._under_way)

    def begin(self, work: Execute) -> None:
        key = work.core, work.job_id, work.attempt
        begun = self._under_way[key] = _Begun(self._key_of(work.core))
        if not has_references(work.payload):
            begun.executing = True
            self._execute(work)
            return

        def fetched(outcome: Execute | Fault, size_bytes: int) -> None:
            if isinstance(outcome, Fault):
                self._end(_not_executed(work, INPUT_UNAVAILABLE, outcome.message))
            elif begun.stopped:
                self._inputs.release(size_bytes)
                self._end(_not_executed(work, CANCELLED, "it was stopped before its input had come"))
            else:
                begun.held_bytes, begun.executing = size_bytes, True
                self._execute(outcome)

        self._inputs.fetch(work, fetched)

    def stop(self, work: Stop) -> None:
        """Ends it early, by way of its end; what has ended already is left alone."""
        begun = self._under_way.get((work.core, work.job_id, work.attempt))
        if begun is None:
            return
        begun.stopped = True
        if begun.executing:
            self._stop(work)

    def on_end(self, end: Executed) -> None:
        """An execution has ended, with output and log in clear."""
        begun = self._under_way[end.core, end.job_id, end.attempt]
        if begun.held_bytes:
            self._inputs.release(begun.held_bytes)
        self._results.seal(end, self._key_now(end.core, begun), self._end)

    def _key_now(self, core: str, begun: _Begun) -> bytes | None:
        """The core's key of now, else, while nobody can be asked, that of the time when the work was begun."""
        try:
            return self._key_of(core)
        except Fault:
            return begun.key

    def _end(self, end: Executed) -> None:
        self._under_way.pop((end.core, end.job_id, end.attempt), None)
        self._deliver(end)


def _not_executed(work: Execute, error: str, detail: str) -> Executed:
    return Executed(
        core=work.core,
        job_id=work.job_id,
        attempt=work.attempt,
        output=b"",
        log=b"",
        exit_code=NO_EXIT_CODE,
        error=error,
        error_detail=detail,
        latency_us=0,
        executor="none",
    )
