"""A host's executors as one: picks by what the payload is and, for processes, by the command's name.

Most offer the same as long as they live. What a live one offers comes and goes with whatever it stands before, so it
gets each payload of its kind and says itself what it cannot run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.capture import failed
from offgrid_node.executors.cgroups import Groups
from offgrid_node.executors.executor import AtOnce, Executor, Outcome, Work
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import needs_of


class ExecutorPool:
    """An Executor made of others. Raises ValueError when two of them offer the same."""

    def __init__(
        self,
        executors: Sequence[Executor],
        at_once: AtOnce | None = None,
        live: Mapping[str, Executor] | None = None,
        groups: Groups | None = None,
    ) -> None:
        """`live` executors stand under the kind of payload that is theirs; `groups` are closed after all of them."""
        self._groups = groups
        self._live = dict(live or {})
        self._executors = (*executors, *self._live.values())
        self._by_label: dict[str, Executor] = {}
        self._at_once: dict[str, AtOnce] = {}
        for executor in executors:
            for label in executor.offers:
                self._check_new(label)
                self._by_label[label] = executor
        for label in at_once.offers if at_once is not None else ():
            self._check_new(label)
            assert at_once is not None
            self._at_once[label] = at_once

    @property
    def offers(self) -> tuple[str, ...]:
        live = (label for executor in self._live.values() for label in executor.offers)
        return (*self._by_label, *self._at_once, *live)

    def has(self, label: object) -> bool:
        """Whether it is offered now."""
        return (
            label in self._by_label
            or label in self._at_once
            or any(label in executor.offers for executor in self._live.values())
        )

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(problem for executor in self._executors for problem in executor.problems)

    @property
    def isolation(self) -> Mapping[str, str]:
        return {kind: held for executor in self._executors for kind, held in sorted(executor.isolation.items())}

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome | None:
        """How it ended, if it is work that is done on the spot; None: `run` it."""
        if payload.WhichOneof("executor") != "builtin":
            return None
        executor = self._at_once.get(needs_of(payload))
        return executor.run_at_once(payload) if executor is not None else None

    async def run(self, work: Work) -> Outcome:
        """See Executor. A payload that none of them can run ends with ExecutionFailed."""
        try:
            label = needs_of(work.payload)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, "none")
        executor = self._by_label.get(label) or self._live.get(work.payload.WhichOneof("executor") or "")
        if executor is None:
            offered = ", ".join(self.offers) or "nothing"
            return failed("ExecutionFailed", f"this host does not run {label!r}; it runs {offered}", "none")
        return await executor.run(work)

    def _check_new(self, label: str) -> None:
        if label in self._by_label or label in self._at_once:
            raise ValueError(f"two executors offer {label!r}")

    def close(self) -> None:
        for executor in self._executors:
            executor.close()
        if self._groups is not None:
            self._groups.close()


class Offered(Sequence[str]):
    """What a pool offers at the moment that one looks."""

    def __init__(self, pool: ExecutorPool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool.offers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._pool.offers[index]

    def __contains__(self, label: object) -> bool:
        return self._pool.has(label)
