"""The client object: one attribute per domain, each loaded when it is first used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from offgrid.client.address import Address
from offgrid.client.calls import Calls
from offgrid.client.silence import RECONNECT_S, Say

if TYPE_CHECKING:
    from offgrid.client.aio import Aio
    from offgrid.client.backups import Backups
    from offgrid.client.catalogue import Missions, Tasks
    from offgrid.client.events import Events
    from offgrid.client.futures import Future
    from offgrid.client.host import Host
    from offgrid.client.jobs import Jobs, Market
    from offgrid.client.ledger import Ledger
    from offgrid.client.links import Links
    from offgrid.client.mail import Mail
    from offgrid.client.memory import Memory
    from offgrid.client.mesh import Mesh
    from offgrid.client.objects import Objects
    from offgrid.client.quorum import Quorum
    from offgrid.client.schedules import Schedules
    from offgrid.client.sessions import Session, Sessions
    from offgrid.client.submitting import Submittable
    from offgrid.job_function import FunctionOptions

DEFAULT_TIMEOUT_S = 10.0


class Client:
    """A connection to one node; `offgrid.connect` makes it. Thread-safe; every call may raise OffgridError."""

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
        on_silence: Say | None = None,
    ) -> None:
        self._calls = Calls(address, timeout_s, reconnect_s, on_silence)

    @property
    def address(self) -> Address:
        return self._calls.address

    @cached_property
    def mesh(self) -> Mesh:
        from offgrid.client.mesh import Mesh

        return Mesh(self._calls)

    @cached_property
    def links(self) -> Links:
        from offgrid.client.links import Links

        return Links(self._calls)

    @cached_property
    def missions(self) -> Missions:
        from offgrid.client.catalogue import Missions

        return Missions(self._calls)

    @cached_property
    def tasks(self) -> Tasks:
        from offgrid.client.catalogue import Tasks

        return Tasks(self._calls)

    @cached_property
    def jobs(self) -> Jobs:
        from offgrid.client.jobs import Jobs

        return Jobs(self._calls, self.missions, self.tasks, self.objects, self.mesh)

    @cached_property
    def schedules(self) -> Schedules:
        from offgrid.client.schedules import Schedules

        return Schedules(self._calls, self.jobs)

    @cached_property
    def host(self) -> Host:
        from offgrid.client.host import Host

        return Host(self._calls)

    @cached_property
    def market(self) -> Market:
        from offgrid.client.jobs import Market

        return Market(self._calls)

    @cached_property
    def events(self) -> Events:
        from offgrid.client.events import Events

        return Events(self._calls)

    @cached_property
    def objects(self) -> Objects:
        from offgrid.client.objects import Objects

        return Objects(self._calls)

    @cached_property
    def quorum(self) -> Quorum:
        from offgrid.client.quorum import Quorum

        return Quorum(self._calls)

    @cached_property
    def ledger(self) -> Ledger:
        from offgrid.client.ledger import Ledger

        return Ledger(self._calls)

    @cached_property
    def sessions(self) -> Sessions:
        from offgrid.client.sessions import Sessions

        return Sessions(self._calls)

    @cached_property
    def mail(self) -> Mail:
        from offgrid.client.mail import Mail

        return Mail(self._calls)

    @cached_property
    def memory(self) -> Memory:
        from offgrid.client.memory import Memory

        return Memory(self._calls)

    @cached_property
    def backups(self) -> Backups:
        from offgrid.client.backups import Backups

        return Backups(self._calls)

    def session(self, name: str) -> Session:
        """Records events: see offgrid.client.sessions."""
        return self.sessions.open(name)

    @cached_property
    def aio(self) -> Aio:
        """The client for asyncio."""
        from offgrid.client.aio import Aio

        return Aio(self)

    def submit(self, work: Submittable, /, *args: Any, **options: Unpack[FunctionOptions]) -> Future[Any]:
        """A job on its way: `work(*args)` for a function, `@offgrid.job` or not, or what a JobPayload or JobSpec says.

        The future has what the function returns, or the completed Job of a payload or spec; it raises what the function
        raised, JobFailed or OffgridError. Give keyword arguments by `functools.partial`, or to `submit` of an
        `@offgrid.job`; `options` are those of the job. Functions run where a host's owner allows them.
        """
        from offgrid.client.submitting import prepared, submit

        return submit(self.jobs, prepared(work, options), args)

    def map(
        self,
        work: Submittable,
        /,
        *iterables: Iterable[Any],
        in_flight: int = 1_024,
        **options: Unpack[FunctionOptions],
    ) -> Iterator[Any]:
        """The results of `work(*args)` for the args that the iterables give together, in their order.

        As many as `in_flight` are under way at once; those that are when a result raises, or nobody wants more, are
        given up."""
        from offgrid.client.submitting import in_order, prepared

        return in_order(self.jobs, prepared(work, options), zip(*iterables), in_flight)  # noqa: B905 - as `map` itself

    def close(self) -> None:
        """Ends every call that is still running, the threads behind `jobs.submit`, and recording: what waits there has
        two seconds."""
        if "sessions" in self.__dict__:
            self.sessions.close()
        if "jobs" in self.__dict__:
            self.jobs.close()
        self._calls.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aio.call(self.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
