"""A UDP network that is as bad as it is told to be, between a port that it listens on and a target.

    python -m offgrid_tools.emulators udp-proxy 127.0.0.1:7801 127.0.0.1:7700 loss=0.05 delay_ms=10

Each client has a socket of its own towards the target, so the target tells them apart. Conditions hold for each
direction alone: a delay of 10 ms is a round trip of 20. What becomes of the n-th datagram of a direction depends on the
seed alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import sys
from collections import OrderedDict
from functools import partial
from random import Random

import msgspec
from msgspec.structs import fields, replace

from offgrid_transports.transport import FRAME_BYTES_MAX
from offgrid_transports.udp_sockets import Listening, Sockaddr, name_of, open_socket, parse_address

CLIENTS_MAX = 256
WAITING_MAX = 200_000
EARLY_MS = 0.5  # the loop wakes up to a millisecond late; so much early evens it out


class Conditions(msgspec.Struct, frozen=True):
    """Probabilities are per datagram; `rate` is in bytes a millisecond with `buffer` bytes before it, 0 without."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """How many are held back another `reorder_ms`; jitter alone keeps the order."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder_ms: float = 5.0
    rate: float = 0.0
    buffer: float = 250_000.0
    mtu: int = FRAME_BYTES_MAX
    """Longer ones are swallowed without a word."""


class Way:
    """What becomes of datagrams in one direction; pure. `conditions` may be changed while it runs."""

    def __init__(self, conditions: Conditions, rng: Random) -> None:
        self.conditions = conditions
        self.carried = self.lost = 0
        self._rng = rng
        self._free_ms = self._last_ms = 0.0

    def take(self, now_ms: float, length: int) -> tuple[float, ...]:
        """When a datagram that comes now leaves: once, twice or not at all."""
        weather, draws = self.conditions, [self._rng.random() for _ in range(4)]
        waits_ms = max(0.0, self._free_ms - now_ms)
        full = weather.rate and waits_ms * weather.rate + length > weather.buffer
        if full or length > weather.mtu or draws[0] < weather.loss:
            self.lost += 1
            return ()
        self.carried += 1
        if weather.rate:
            self._free_ms = now_ms + waits_ms + length / weather.rate
        due_ms = max(self._free_ms, now_ms) + weather.delay_ms + draws[1] * weather.jitter_ms
        self._last_ms = due_ms = max(due_ms, self._last_ms)
        if draws[2] < weather.reorder:
            due_ms += weather.reorder_ms
        return (due_ms, due_ms) if draws[3] < weather.duplicate else (due_ms,)


class UdpProxy:
    """Runs in the running loop from when it is made until `close`."""

    def __init__(self, listen: str, target: str, conditions: Conditions, seed: int = 1) -> None:
        """Raises ValueError for what is no address, OSError for one that cannot be listened on."""
        self.out = Way(conditions, Random(seed))  # noqa: S311
        self.back = Way(conditions, Random(seed + 1))  # noqa: S311
        self._loop = asyncio.get_running_loop()
        self._target = parse_address(target)
        self._near = open_socket(parse_address(listen))
        self._near_listening = Listening(self._near, self._from_client)
        self._far: OrderedDict[Sockaddr, Listening] = OrderedDict()
        self._waiting: list[tuple[float, int, Listening, bytes, Sockaddr]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self.address = name_of(self._near.getsockname())

    def set(self, conditions: Conditions) -> None:
        """Has the weather change, both ways."""
        self.out.conditions = self.back.conditions = conditions

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        for listening in (self._near_listening, *self._far.values()):
            listening.close()
        self._far.clear()

    def _from_client(self, data: bytes, client: Sockaddr) -> None:
        far = self._far.get(client)
        if far is None:
            if len(self._far) >= CLIENTS_MAX:
                self._far.popitem(last=False)[1].close()
            anywhere = "" if self._target.host not in ("127.0.0.1", "::1") else self._target.host
            own = replace(self._target, host=anywhere, port=0)
            far = Listening(open_socket(own), partial(self._from_target, client))
            self._far[client] = far
        self._carry(self.out, far, data, self._target.sockaddr)

    def _from_target(self, client: Sockaddr, data: bytes, source: Sockaddr) -> None:
        self._carry(self.back, self._near_listening, data, client)

    def _carry(self, way: Way, leaves_by: Listening, data: bytes, to: Sockaddr) -> None:
        for due_ms in way.take(self._loop.time() * 1000, len(data)):
            if len(self._waiting) >= WAITING_MAX:
                way.lost += 1
                return
            heapq.heappush(self._waiting, (due_ms, next(self._order), leaves_by, data, to))
            if self._waiting[0][0] == due_ms:
                self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at((self._waiting[0][0] - EARLY_MS) / 1000, self._leave)

    def _leave(self) -> None:
        waiting, until_ms = self._waiting, self._loop.time() * 1000 + EARLY_MS
        while waiting and waiting[0][0] <= until_ms:
            _, _, leaves_by, data, to = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # gone, or full: lost, as on any network
                leaves_by.sock.sendto(data, to)
        if waiting:
            self._wake()


def parse_conditions(words: list[str]) -> tuple[Conditions, int]:
    """Conditions and the seed from "name=value"; raises ValueError with what is allowed."""
    names = [field.name for field in fields(Conditions)]
    given: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or name not in (*names, "seed") or not 0 <= given[name] < 1e12:
            raise ValueError(f"{word!r}: allowed: {', '.join(names)}, seed, each as name=number")
        if name in ("loss", "duplicate", "reorder") and given[name] > 1:
            raise ValueError(f"{word!r}: allowed: 0 to 1")
    seed = int(given.pop("seed", 1))
    mtu = int(given.pop("mtu", FRAME_BYTES_MAX))
    return Conditions(**given, mtu=mtu), seed


async def run(listen: str, target: str, conditions: Conditions, seed: int) -> None:
    proxy = UdpProxy(listen, target, conditions, seed)
    sys.stdout.write(f"{proxy.address} -> {target}\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        ways = {"out": proxy.out, "back": proxy.back}
        for name, way in ways.items():
            sys.stdout.write(f"{name}: {way.carried} carried, {way.lost} lost\n")
        proxy.close()


def main(arguments: list[str]) -> int:
    try:
        listen, target, *words = arguments
        conditions, seed = parse_conditions(words)
        asyncio.run(run(listen, target, conditions, seed))
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError) as error:
        sys.stderr.write(f"udp-proxy LISTEN TARGET [name=number ...]: {error}\n")
        return 2
    return 0
