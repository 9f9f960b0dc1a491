"""An executor that is made with its first job: a node that is no host has work of its own to do here now and then at
most, and should not hold what that takes until it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from offgrid_node.executors.executor import Executor, Outcome, Work


class LateExecutor:
    """An Executor: says what `make`'s one would say."""

    def __init__(self, offers: Sequence[str], isolation: Mapping[str, str], make: Callable[[], Executor]) -> None:
        self._offers, self._isolation, self._make = tuple(offers), isolation, make
        self._made: Executor | None = None

    @property
    def offers(self) -> tuple[str, ...]:
        return self._offers

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._made.problems) if self._made is not None else ()

    @property
    def isolation(self) -> Mapping[str, str]:
        return self._isolation

    async def run(self, work: Work) -> Outcome:
        """See Executor."""
        if self._made is None:
            self._made = self._make()
        return await self._made.run(work)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
