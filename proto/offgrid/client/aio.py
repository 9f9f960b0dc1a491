"""`client.aio`: the client where nothing may wait but by `await`.

A future of `client.submit` can be awaited as it is. `submit` itself waits only for its first task, for large inputs and
files, and for room when 16,384 jobs are under way; `client.aio.submit` waits elsewhere. Everything else that the client
can do goes through `call` and `stream`: in a thread, as calls are synchronous.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from offgrid.client.futures import Future
from offgrid.client.submitting import Submittable
from offgrid.job_function import FunctionOptions

if TYPE_CHECKING:
    from offgrid.client.client import Client

P = ParamSpec("P")
T = TypeVar("T")


class Aio:
    """See `Client.aio`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def submit(self, work: Submittable, /, *args: Any, **options: Unpack[FunctionOptions]) -> Future[Any]:
        """As `client.submit`: the job is on its way; await its future for what comes of it."""
        return await asyncio.to_thread(self._client.submit, work, *args, **options)

    async def run(self, work: Submittable, /, *args: Any, **options: Unpack[FunctionOptions]) -> Any:
        """The result. Whoever is cancelled while awaiting it gives the job up."""
        return await (await self.submit(work, *args, **options))

    async def map(
        self,
        work: Submittable,
        /,
        *iterables: Iterable[Any],
        in_flight: int = 1_024,
        **options: Unpack[FunctionOptions],
    ) -> AsyncIterator[Any]:
        """As `client.map`; what is under way when a result raises, or nobody wants more, is given up."""
        from offgrid.client.submitting import prepared, submit

        ready, under_way = prepared(work, options), deque[Future[Any]]()
        try:
            for args in zip(*iterables):  # noqa: B905 - as `map` itself, which ends with the shortest
                under_way.append(await asyncio.to_thread(submit, self._client.jobs, ready, args))
                if len(under_way) >= in_flight:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for future in under_way:
                future.cancel()

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Any call of the client's: `await client.aio.call(client.jobs.get, job_id)`."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def stream(
        self, function: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        """Any stream of the client's: `async for job in client.aio.stream(client.jobs.watch, job_id)`."""
        items = function(*args, **kwargs)
        while True:
            item = await asyncio.to_thread(next, items, END)
            if item is END:
                return
            yield item


END: Any = object()
