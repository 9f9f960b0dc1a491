"""A host's executors as one: picks by what the payload is and, for processes, by the command's name."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.capture import failed
from offgrid_node.executors.executor import Executor, Outcome
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import needs_of


class ExecutorPool:
    """An Executor made of others. Raises ValueError when two of them offer the same."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = tuple(executors)
        self._by_label: dict[str, Executor] = {}
        for executor in executors:
            for label in executor.offers:
                if label in self._by_label:
                    raise ValueError(f"two executors offer {label!r}")
                self._by_label[label] = executor

    @property
    def offers(self) -> tuple[str, ...]:
        return tuple(self._by_label)

    async def run(self, payload: jobs_pb2.JobPayload, timeout_ms: int) -> Outcome:
        """See Executor. A payload that none of them can run ends with ExecutionFailed."""
        try:
            label = needs_of(payload)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, "none")
        executor = self._by_label.get(label)
        if executor is None:
            offered = ", ".join(self._by_label) or "nothing"
            return failed("ExecutionFailed", f"this host does not run {label!r}; it runs {offered}", "none")
        return await executor.run(payload, timeout_ms)

    def close(self) -> None:
        for executor in self._executors:
            executor.close()
