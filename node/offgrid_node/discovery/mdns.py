"""mDNS and DNS-SD (RFC 6762, 6763): announces this node and listens for others, by python-zeroconf.

A network without multicast is no error: the node goes on without and looks again. Interfaces that come and go are
noticed by polling; everything is then opened anew, which also empties zeroconf's cache when somebody floods it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

import zeroconf
from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from offgrid_node.discovery.hints import Hint, HintBook, read_hint
from offgrid_node.logs import fields

SERVICE_TYPE = "_offgrid._tcp.local."
POLL_S = 5.0  # how soon a new interface is noticed
RETRY_S = 15.0  # after multicast failed
ANNOUNCE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
RESOLVE_MS = 3000
RESOLVING_MAX = 16  # announcements whose missing records we ask for, at once
CACHE_NAMES_MAX = 4096  # beyond it somebody floods us: start over
DOORS_MAX = 16
SETTLE_S = 0.3  # after the first door is found, for the others

Interfaces = Sequence[str] | InterfaceChoice
OnFound = Callable[[Hint], None]
_FAILURES = (OSError, RuntimeError, zeroconf.Error, TimeoutError)  # zeroconf says RuntimeError when it has no interface

_log = logging.getLogger(__name__)


class Mdns:
    """Announces one node and tells of others of its mesh. Belongs to the thread of a running loop."""

    def __init__(
        self,
        hint: Callable[[], Hint],
        on_found: OnFound,
        *,
        interfaces: Interfaces = InterfaceChoice.All,
    ) -> None:
        """`hint` tells what to announce now; it is asked every POLL_S, so addresses and door may change. `on_found`
        is called in the loop's thread, at a bounded rate, for each new or changed hint of the same mesh."""
        self._hint = hint
        self._on_found = on_found
        self._interfaces = interfaces
        first = hint()
        self._book = HintBook(first.mesh_tag, first.node_id)
        self._stop = asyncio.Event()
        self._poke = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._as_us: tuple[str, ...] = ()
        self.announced = asyncio.Event()
        """Set once others can have heard of us."""

    @property
    def hints(self) -> tuple[Hint, ...]:
        """Everyone who is remembered, at most HINTS_MAX."""
        return self._book.hints

    @property
    def as_us(self) -> tuple[str, ...]:
        """ "host:port" where the latest announcement of this very node says that it is: our own, or a copy's."""
        return self._as_us

    def forget(self, as_us: tuple[str, ...]) -> None:
        """Nobody is there as this node: who announces so may be anybody."""
        if self._as_us == as_us:
            self._as_us = ()

    async def start(self) -> None:
        """Begins, and returns at once; whether multicast works shows only later."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="mdns")

    def refresh(self) -> None:
        """What `hint` tells has changed: announce it now."""
        self._poke.set()

    async def close(self) -> None:
        """Says goodbye and ends, within CLOSE_TIMEOUT_S; may be called twice."""
        self._stop.set()
        self._poke.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                async with _opened(self._interfaces) as ear:
                    await self._serve(ear)
            except _FAILURES as error:
                if not self._failing:
                    self._failing = True
                    why = f"{type(error).__name__}: {error}"
                    _log.warning("mDNS does not work here, static peers do", extra=fields("mdns_failing", why=why))
                await self._wait(RETRY_S)

    async def _serve(self, ear: AsyncZeroconf) -> None:
        """Announces and listens until everything should be opened anew."""
        said = self._hint()
        listener = _Listener(ear.zeroconf, self._heard, self._book.forget)
        try:
            info = _service_info(said)
            if said.addresses:
                async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
                    await (await ear.async_register_service(info, allow_name_change=True))
                self.announced.set()
            self._failing = False
            while not self._stop.is_set():
                await self._wait(POLL_S)
                now = self._hint()
                if now.addresses != said.addresses or len(ear.zeroconf.cache.cache) > CACHE_NAMES_MAX:
                    return
                if now != said:
                    said = now
                    changed = _service_info(said, info.name)
                    await (await ear.async_update_service(changed))
        finally:
            await listener.close()

    def _heard(self, label: str, hint: Hint) -> None:
        own = self._hint()
        if (hint.node_id, hint.mesh_tag) == (own.node_id, own.mesh_tag) and hint.mesh_addresses != own.mesh_addresses:
            self._as_us = hint.mesh_addresses
        if self._book.take(int(time.monotonic() * 1000), label, hint):
            self._on_found(hint)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._poke.wait()
        if not self._stop.is_set():
            self._poke.clear()


async def find_door(
    mesh_tag: bytes, timeout_s: float, *, interfaces: Interfaces = InterfaceChoice.All
) -> list[tuple[str, int]]:
    """(IP address, port) of doors of the mesh that are open, at most DOORS_MAX; empty when none answers in time.

    Never raises for the network's sake. Who stands behind a door, the invite's secret proves.
    """
    found: dict[tuple[str, int], None] = {}
    first = asyncio.Event()

    def heard(label: str, hint: Hint) -> None:
        if hint.mesh_tag != mesh_tag or hint.door_port is None:
            return
        for ip in hint.addresses:
            if len(found) < DOORS_MAX:
                found[ip, hint.door_port] = None
        first.set()

    with contextlib.suppress(*_FAILURES):
        async with asyncio.timeout(timeout_s), _opened(interfaces) as ear:
            listener = _Listener(ear.zeroconf, heard, lambda label: None)
            try:
                await first.wait()
                await asyncio.sleep(SETTLE_S)
            finally:
                await listener.close()
    return list(found)


class _Listener:
    """Turns zeroconf's events into hints; asks for missing records, a bounded number at once."""

    def __init__(self, zc: Zeroconf, heard: Callable[[str, Hint], None], gone: Callable[[str], None]) -> None:
        self._zc = zc
        self._heard = heard
        self._gone = gone
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._browser = AsyncServiceBrowser(zc, SERVICE_TYPE, handlers=[self._changed])

    async def close(self) -> None:
        await self._browser.async_cancel()
        tasks = list(self._resolving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self._gone(_label(name))
            return
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if info.load_from_cache(self._zc):
            self._tell(info)
        elif name not in self._resolving and len(self._resolving) < RESOLVING_MAX:
            task = self._resolving[name] = asyncio.create_task(self._resolve(info))
            task.add_done_callback(lambda done: self._resolving.pop(name, None))

    async def _resolve(self, info: AsyncServiceInfo) -> None:
        with contextlib.suppress(*_FAILURES):
            if await info.async_request(self._zc, RESOLVE_MS):
                self._tell(info)

    def _tell(self, info: AsyncServiceInfo) -> None:
        label = _label(info.name)
        hint = read_hint(label, info.properties, info.parsed_addresses(IPVersion.All))
        if hint is not None:
            self._heard(label, hint)


@contextlib.asynccontextmanager
async def _opened(interfaces: Interfaces) -> AsyncIterator[AsyncZeroconf]:
    ear = _open(interfaces)
    try:
        await ear.zeroconf.async_wait_for_start()
        yield ear
    finally:
        with contextlib.suppress(*_FAILURES):
            await ear.async_close()


def _open(interfaces: Interfaces) -> AsyncZeroconf:
    """IPv4 and IPv6, or IPv4 alone where there is no IPv6."""
    chosen = interfaces if isinstance(interfaces, InterfaceChoice) else list(interfaces)
    if not isinstance(chosen, InterfaceChoice):
        return AsyncZeroconf(interfaces=chosen)
    try:
        return AsyncZeroconf(interfaces=chosen, ip_version=IPVersion.All)
    except (OSError, RuntimeError):
        return AsyncZeroconf(interfaces=chosen, ip_version=IPVersion.V4Only)


def _service_info(hint: Hint, name: str | None = None) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE_TYPE,
        name or f"{hint.label}.{SERVICE_TYPE}",
        port=hint.mesh_port,
        properties=hint.txt(),
        server=f"{hint.node_id}.local.",
        parsed_addresses=list(hint.addresses),
    )


def _label(name: str) -> str:
    return name.removesuffix(f".{SERVICE_TYPE}")
