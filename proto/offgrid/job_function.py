"""`@offgrid.job`: a function that may run here or, submitted, on a host of the mesh.

    @offgrid.job(requirements="cpus >= 4", timeout_s=60)
    def primes(below: int) -> list[int]: ...

    primes(100)                             here and now
    with offgrid.connect() as client:
        primes.submit(client, 10**7).result()   where a host has room
        list(primes.map(client, [10, 100, 1000]))

Importing this, and decorating, loads neither gRPC nor pickling.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.client.futures import Future
    from offgrid.client.options import JobOptions

    class FunctionOptions(JobOptions, total=False):
        """Of a function beyond what every job may have.

        executor    "python", or "dask": then its first argument is the `distributed.Client` of a host's cluster
        trusted     its results may hold more than plain data: whoever runs it could run any code here
        task_id     the task that its jobs join; else one of the client's own
        mode        "auto", "offgrid" or "disabled"; else as the node's config says
        """

        executor: Literal["python", "dask"]
        trusted: bool
        task_id: str
        mode: str
else:

    class FunctionOptions(TypedDict):
        """What it has is for type checkers; at run time it would need the wire."""


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class JobFunction(Generic[P, R]):
    """Called, it is the function; submitted, a job. `options` are those of the decorator."""

    def __init__(self, function: Callable[P, R], options: FunctionOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job function {getattr(self.function, '__qualname__', self.function)}>"

    @overload
    def submit(
        self: JobFunction[P, Coroutine[Any, Any, T]], client: Client, /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def submit(self, client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def submit(self, client: Client, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The call as a job; its future has what the function returns."""
        return client.submit(functools.partial(self, *args, **kwargs))

    def map(self, client: Client, /, *iterables: Iterable[Any], in_flight: int = 1_024) -> Iterator[R]:
        """As `client.map`."""
        return cast("Iterator[R]", client.map(self, *iterables, in_flight=in_flight))

    def with_options(self, **options: Unpack[FunctionOptions]) -> JobFunction[P, R]:
        """The same function with these options instead."""
        return JobFunction(self.function, cast("FunctionOptions", {**self.options, **options}))


@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...
@overload
def job(**options: Unpack[FunctionOptions]) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...
def job(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Makes a function, `def` or `async def`, one that can be submitted; with or without options (JobOptions,
    FunctionOptions)."""
    if function is not None:
        return JobFunction(function, {})
    return lambda decorated: JobFunction(decorated, cast("FunctionOptions", options))
