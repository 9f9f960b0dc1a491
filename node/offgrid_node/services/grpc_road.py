"""The road over gRPC: one channel per node and address, trusting that node's certificate and nothing else.

A request leaves only over a connection that is ready. That is what makes `Unavailable` true: whatever fails before was
never sent, and what fails afterwards is an unknown outcome, whatever gRPC calls it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.pieces import read_known
from offgrid_node.config import split_address
from offgrid_node.keys import NodeTls
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import (
    CONNECTION_REFUSED,
    NO_ROAD,
    Exhausted,
    Fault,
    Internal,
    InvalidRequest,
    OutcomeUnknown,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services import grpc_options
from offgrid_node.services.client import Done
from offgrid_node.services.grpc_lane import Lane
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX
from offgrid_node.services.router import METHODS, Method
from offgrid_node.services.status import fault_of
from offgrid_node.services.tls import channel_credentials

CALLS_MAX = 4_096  # under way at once, each by itself
CALLS_OF_NODE_MAX = 1_024  # of those: a peer that answers nothing keeps nobody else's from leaving
LANE_RETRY_S = 5.0
CHANNELS_MAX = 512
ADDRESSES_MAX = 8  # tried for one call
ADDRESS_SHARE_MIN_S = 0.1  # what one address gets of a short deadline before the next is tried
WHY_TIMEOUT_S = 0.25
WHY_CHARS_MAX = 200
RETRY_MS = 500

_READY, _FAILED = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
HUNG_UP = "it hung up, as it does on those whom it does not know as members"
# What gRPC says in passing, and what it means here; only people read it.
NOBODY_LISTENS = "nobody listens there"
_PLAIN = (
    ("handshake failed", "the node that answers there is not the one we know"),
    ("Socket closed", HUNG_UP),
    ("Connection refused", NOBODY_LISTENS),
)
_log = logging.getLogger(__name__)


class DirectoryView(Protocol):
    """Where members are, as membership has it now."""

    def addresses(self, node: str) -> Sequence[str]:
        """ "host:port" of its mesh port, best first; empty for who is no member."""
        ...

    def certificate(self, node: str) -> bytes | None:
        """Its identity certificate, DER; None for who is no member."""
        ...


class _Link(msgspec.Struct):
    certificate: bytes
    channel: grpc.aio.Channel
    calls: int = 0
    lane_after_s: float = 0.0  # when a lane may be tried again


class GrpcRoad:
    """Implements `services.client.Road`. Make it and use it in the loop's thread."""

    def __init__(
        self,
        tls: NodeTls,
        directory: Callable[[], DirectoryView],
        on_framed: Callable[[str, str, int], object] = lambda node, host, port: None,
        on_lost: Callable[[str], object] = lambda node: None,
        before: NodeTls | None = None,
    ) -> None:
        """`directory` is asked at each call, but for those on lanes; say `refresh` when it changed, so that old
        connections go at once. `on_framed` is told of the host and port where a node says that it takes calls too,
        `on_lost` of a node whose lane has ended though this side goes on. `before`: what this node showed before its
        identity key was replaced; whoever hangs up may not have heard of that, and is shown it in turns."""
        self._tls_before = before
        self._shown_before: set[str] = set()
        self._tls = tls
        self._directory = directory
        self._on_framed, self._on_lost = on_framed, on_lost
        self._links: dict[tuple[str, str], _Link] = {}  # the longest unused first
        self._calls: set[asyncio.Task[None]] = set()
        self._calls_of: Counter[str] = Counter()  # by node
        self._closing: set[asyncio.Task[None]] = set()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lane_of: dict[str, tuple[str, str]] = {}  # by node
        self._running: set[asyncio.Task[None]] = set()  # of lanes
        self._closed_to_us: set[str] = set()
        self._closed = False

    @property
    def closed_to_us(self) -> int:
        """How many members hung up on this node when it last tried to connect."""
        return len(self._closed_to_us)

    @property
    def lanes(self) -> int:
        """How many lanes are open."""
        return sum(lane.is_open for lane in self._lanes.values())

    @property
    def singles(self) -> int:
        """How many calls are under way by themselves."""
        return len(self._calls)

    @property
    def name(self) -> str:
        return "grpc"

    @property
    def kin(self) -> str:
        return "ip"

    def reaches(self, node: str) -> bool:
        view = self._directory()
        return not self._closed and bool(view.addresses(node)) and view.certificate(node) is not None

    def ready(self, node: str) -> bool:
        return any(key[0] == node and link.channel.get_state() is _READY for key, link in self._links.items())

    def pace(self, node: str) -> Pace:
        return FREE

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """As Road has it: `done` is called exactly once, in the loop's thread."""
        known = METHODS.get(method)
        if self._closed:
            done(Unavailable("this node is stopping", reason="Stopping"))
        elif known is None or known.streaming:
            done(InvalidRequest(f"{method} is no unary method", reason="UnknownMethod"))
        elif len(self._calls) >= CALLS_MAX:
            done(Unavailable(f"{CALLS_MAX} calls are under way already", reason="RoadBusy", retry_ms=RETRY_MS))
        else:
            self._bring(node, known, request.SerializeToString(), timeout_ms / 1000, done)

    def refresh(self) -> None:
        """Closes connections to members that are gone, or whose certificate or addresses have changed."""
        view = self._directory()
        for (node, address), link in list(self._links.items()):
            if link.certificate != view.certificate(node) or address not in view.addresses(node):
                self._drop((node, address))
        self._closed_to_us = {node for node in self._closed_to_us if view.certificate(node) is not None}

    def retry(self, node: str) -> None:
        """The node is heard of: where connecting to it has failed, the next call tries afresh. A node that comes back
        at its old address would else be out of reach until gRPC's pause is over, RECONNECT_MAX_MS at worst; and while
        no lane is tried its next death would be noticed late."""
        for key, link in list(self._links.items()):
            if key[0] != node:
                continue
            link.lane_after_s = 0.0
            if link.channel.get_state() is _FAILED:
                del self._links[key]
                self._keep(self._closing, link.channel.close(2 * WHY_TIMEOUT_S))  # somebody may just be asking it why

    async def close(self) -> None:
        """Ends every call that is under way (its outcome is unknown) and every connection."""
        self._closed = True
        for key in list(self._links):
            self._drop(key)
        await asyncio.gather(*self._closing, *self._calls, *self._running, return_exceptions=True)

    # ---- one call

    def _bring(self, node: str, method: Method, data: bytes, timeout_s: float, done: Done) -> None:
        """Over an open lane, else by itself."""
        if len(data) <= LANE_CALL_BYTES_MAX and self._by_lane(node, method, data, timeout_s, done):
            return
        if len(data) > grpc_options.MESSAGE_BYTES_MAX:
            said = f"{len(data)} bytes, a message has at most {grpc_options.MESSAGE_BYTES_MAX}"
            done(Exhausted(f"{method.name}: {said}", reason="RequestTooLarge"))
        elif self._calls_of[node] >= CALLS_OF_NODE_MAX:
            text = f"{CALLS_OF_NODE_MAX} calls to {node} are under way already"
            done(Unavailable(text, reason="RoadBusy", retry_ms=RETRY_MS))
        else:
            self._calls_of[node] += 1
            self._keep(self._calls, self._carry(node, method, data, timeout_s, done))

    def _by_lane(self, node: str, method: Method, data: bytes, timeout_s: float, done: Done) -> bool:
        """Whether an open lane has taken the call."""
        key = self._lane_of.get(node, (node, ""))
        lane = self._lanes.get(key)
        if key not in self._links or lane is None or not lane.has_room:
            return False
        self._links[key] = self._links.pop(key)  # it is in use
        lane.call(method, (data, b""), timeout_s, done)
        return True

    async def _carry(self, node: str, method: Method, data: bytes, timeout_s: float, done: Done) -> None:
        outcome: Message | Fault
        try:
            outcome = await self._answer(node, method, data, timeout_s)
        except Fault as fault:
            outcome = fault.bare()
        except Exception as error:  # noqa: BLE001 - the caller is owed an end, whatever broke
            _log.exception("a call to a peer failed", extra=fields("call_failed", method=method.name, peer=node))
            outcome = Internal(f"{method.name} to {node} failed: {type(error).__name__}", reason="RoadFailed")
        finally:
            self._calls_of[node] -= 1
            if not self._calls_of[node]:
                del self._calls_of[node]
        done(outcome)

    async def _answer(self, node: str, method: Method, data: bytes, timeout_s: float) -> Message:
        deadline_s = time.monotonic() + timeout_s
        link = await self._ready_link(node, deadline_s)
        self._closed_to_us.discard(node)
        link.calls += 1
        try:
            raw = await _unary(link.channel, f"/{method.name}", data, max(0.001, deadline_s - time.monotonic()))
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error
        except grpc.aio.UsageError as error:
            raise _closed(node) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # It was not we who were cancelled, but the call, when its channel was closed.
            raise OutcomeUnknown(f"the connection to {node} was closed", reason="CallCancelled") from error
        finally:
            link.calls -= 1
        self._open_lane(node, link)
        return _decode(method.name, method.response, raw)

    async def _ready_link(self, node: str, deadline_s: float) -> _Link:
        """A connection that is ready, by the best address that answers. Raises Unavailable: nothing was sent."""
        view = self._directory()
        certificate, addresses = view.certificate(node), view.addresses(node)[:ADDRESSES_MAX]
        if certificate is None or not addresses:
            raise Unavailable(f"no address of {node} is known", reason=NO_ROAD, retry_ms=RETRY_MS)
        for address in addresses:
            link = self._links.get((node, address))
            if link is not None and link.certificate == certificate and link.channel.get_state() is _READY:
                return self._link(node, address, certificate)
        refusals, gone = [], True
        for index, address in enumerate(addresses):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            link = self._link(node, address, certificate)
            share_s = min(left_s, max(left_s / (len(addresses) - index), ADDRESS_SHARE_MIN_S))
            if await _connect(link.channel, share_s):
                return link
            why = await _why(link.channel)
            if why.startswith(HUNG_UP):
                self._closed_to_us.add(node)
                self._show_other(node)
            gone = gone and why.startswith(NOBODY_LISTENS)
            refusals.append(f"{address}: {why}")
        raise Unavailable(
            f"{node} cannot be reached: {'; '.join(refusals) or 'no time was left'}",
            reason=CONNECTION_REFUSED if gone and len(refusals) == len(addresses) else "NotConnected",
            retry_ms=RETRY_MS,
        )

    # ---- connections

    def _link(self, node: str, address: str, certificate: bytes) -> _Link:
        key = (node, address)
        link = self._links.pop(key, None)
        if link is not None and link.certificate != certificate:
            self._close(link)
            link = None
        if link is None:
            self._make_room()
            shown = self._tls_before if self._tls_before and node in self._shown_before else self._tls
            credentials, options = channel_credentials(shown, certificate)
            channel = grpc.aio.secure_channel(address, credentials, (*grpc_options.CHANNEL, *options))
            link = _Link(certificate, channel)
        self._links[key] = link
        return link

    def _show_other(self, node: str) -> None:
        """At the next try the node sees this one's other identity."""
        if self._tls_before is None:
            return
        self._shown_before ^= {node}
        for key in [key for key in self._links if key[0] == node]:
            self._drop(key)

    def _open_lane(self, node: str, link: _Link) -> None:
        """For the calls that follow, over a connection that has just worked."""
        key = next((key for key, known in self._links.items() if known is link), None)
        if key is None or node in self._lane_of or time.monotonic() < link.lane_after_s or self._closed:
            return
        link.lane_after_s = time.monotonic() + LANE_RETRY_S
        lane = self._lanes[key] = Lane(node)
        self._lane_of[node] = key
        opened = False

        def on_open() -> None:
            nonlocal opened
            opened = True
            self._on_open(node, key[1], lane.framed_port)

        lane.on_open = on_open

        async def run() -> None:
            try:
                await lane.run(link.channel)
            finally:
                del self._lanes[key], self._lane_of[node]
                if opened and not self._closed:
                    self._on_lost(node)

        self._keep(self._running, run())

    def _on_open(self, node: str, address: str, framed_port: int) -> None:
        if framed_port:
            self._on_framed(node, split_address(address)[0], framed_port)

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _make_room(self) -> None:
        while len(self._links) >= CHANNELS_MAX:
            idle = next((key for key in self._links if not self._is_busy(key)), next(iter(self._links)))
            self._drop(idle)

    def _is_busy(self, key: tuple[str, str]) -> bool:
        return bool(self._links[key].calls or self._lanes.get(key))

    def _drop(self, key: tuple[str, str]) -> None:
        self._close(self._links.pop(key))

    def _close(self, link: _Link) -> None:
        self._keep(self._closing, link.channel.close())


async def _connect(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether the channel became ready; False once an attempt has failed or the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            state = channel.get_state(try_to_connect=True)
            while state not in (_READY, _FAILED, grpc.ChannelConnectivity.SHUTDOWN):
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except (TimeoutError, grpc.aio.UsageError):
        return False
    return state is _READY


async def _unary(channel: grpc.aio.Channel, path: str, data: bytes, timeout_s: float) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return await call(data, timeout=timeout_s)


async def _why(channel: grpc.aio.Channel) -> str:
    """What keeps the channel from connecting. gRPC tells only those who call, so we make a harmless call."""
    try:
        await _unary(channel, "/grpc.health.v1.Health/Check", b"", WHY_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "no answer"
        said = (error.details() or "no reason given").rpartition("last error: ")[2][:WHY_CHARS_MAX]
        return next((f"{plain} ({said})" for words, plain in _PLAIN if words in said), said)
    except grpc.aio.UsageError:
        return "the connection was closed"
    return "it answered too late"


def _closed(node: str) -> Unavailable:
    return Unavailable(f"the connection to {node} was closed", reason="NotConnected", retry_ms=RETRY_MS)


def _decode(method: str, response: type[Message], raw: bytes) -> Message:
    try:
        return read_known(response, raw)
    except DecodeError as error:
        what = response.DESCRIPTOR.full_name
        raise PeerFault(f"{method}: the answer is no {what}", reason="MalformedResponse") from error
