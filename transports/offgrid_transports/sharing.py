"""Says once what several peers on one radio channel are to be asked alike.

Calls with the same method and body that come within GATHER_MS are put together. The body goes out once, in coded
frames; then each peer is asked by the body's digest, in its session, and answers as ever, or with how much it is
missing. What anybody misses is made good by as many more coded frames as the worst off needs, since each of them serves
all. Who still does not have it after ROUNDS_MAX is asked by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from offgrid_transports.calls import CallRefused, Done, End, Reply
from offgrid_transports.coding import CodingError, Encoder
from offgrid_transports.endpoint import Endpoint, UnknownPeer
from offgrid_transports.long_messages import Trouble, digest_of
from offgrid_transports.shared_frames import (
    ASK_SHARED,
    HEAD_BYTES,
    ID_BYTES,
    MAC_BYTES,
    SHARED_BYTES_MAX,
    SHARED_BYTES_MIN,
    AskShared,
    Coded,
    crypt,
    write_ask,
    write_coded,
)
from offgrid_transports.transport import BROADCAST, Priority, Transport

GATHER_MS = 20
GROUPS_MAX, CALLS_MAX = 64, 256  # of one group
EXTRA = 3  # one coded frame more for so many
ROUNDS_MAX = 3
REPORT_BYTES = 40  # of a frame that says what is missing


class Shared(msgspec.Struct, eq=False):
    """A call that may be put together with others."""

    peer: str
    method: int
    body: bytes
    deadline_ms: float
    done: Done
    priority: Priority
    rounds: int = 0


class _Group(msgspec.Struct, eq=False):
    """Of calls on one link: `lacking` are those that miss so many symbols."""

    transport: Transport
    calls: list[Shared] = msgspec.field(default_factory=list)
    lacking: dict[Shared, int] = msgspec.field(default_factory=dict)
    id: bytes = b""
    digest: bytes = b""
    encoder: Encoder | None = None
    number: int = 0


class Sharing:
    """`alone` makes a call by itself."""

    def __init__(self, endpoint: Endpoint, alone: Callable[[Shared], None]) -> None:
        self._endpoint, self._alone = endpoint, alone
        self._groups: dict[tuple[Transport, int, bytes], _Group] = {}

    def takes(self, call: Shared) -> bool:
        """Whether it is kept for a moment, to see whether others are to be asked the same."""
        session = self._endpoint.session_of(call.peer)
        if session is None or not session.path.shared or session.path.address != BROADCAST:
            return False
        if not SHARED_BYTES_MIN <= len(call.body) <= SHARED_BYTES_MAX:
            return False
        transport = session.path.transport
        key = transport, call.method, call.body
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                return False
            group = self._groups[key] = _Group(transport)
            self._endpoint.later(GATHER_MS, lambda: self._go(self._groups.pop(key)))
        if len(group.calls) >= CALLS_MAX:
            return False
        group.calls.append(call)
        return True

    # ---- inside

    def _go(self, group: _Group) -> None:
        peers = {call.peer for call in group.calls}
        if len(peers) == 1:
            for call in group.calls:
                self._alone(call)
            return
        endpoint, body = self._endpoint, group.calls[0].body
        sessions = [endpoint.session_of(peer) for peer in peers]
        known = min(session.words.known if session is not None else 0 for session in sessions)
        packed = endpoint.packing.pack(body, known)
        clear = b"\0" + body if packed is None else b"\1" + packed
        group.digest, group.id = digest_of(body), endpoint.rng.randbytes(ID_BYTES)
        room = group.transport.mtu_bytes() - HEAD_BYTES - MAC_BYTES
        try:
            group.encoder = Encoder(group.id, crypt(endpoint.own.psk, group.digest, group.id, clear), room)
        except CodingError:  # the link's frames are too short for it
            for call in group.calls:
                self._alone(call)
            return
        group.lacking = dict.fromkeys(group.calls, group.encoder.count + group.encoder.count // EXTRA)
        self._say(group)

    def _say(self, group: _Group) -> None:
        """As many symbols as somebody lacks and the link has room for, and then the question to all of them."""
        lacking, group.lacking = group.lacking, {}
        assert group.encoder is not None
        priority = min(call.priority for call in lacking)
        for _ in range(max(lacking.values())):
            coded = Coded(group.id, group.encoder.length, group.number, group.encoder.symbol(group.number))
            if not self._endpoint.spread(group.transport, write_coded(self._endpoint.own.psk, coded), priority):
                break
            group.number += 1
        for call in lacking:
            call.rounds += 1
            self._ask(group, call)

    def _ask(self, group: _Group, call: Shared) -> None:
        endpoint, on_reply = self._endpoint, partial(self._on_reply, group, call)
        left_ms, asked = call.deadline_ms - endpoint.now_ms(), AskShared(group.digest, group.id, call.method)
        try:
            endpoint.call(call.peer, ASK_SHARED, write_ask(asked), left_ms, on_reply, priority=call.priority)
        except (UnknownPeer, CallRefused) as error:
            refused = Reply(End.REFUSED, detail=str(error))
            endpoint.later(0, lambda: call.done(refused))

    def _on_reply(self, group: _Group, call: Shared, reply: Reply) -> None:
        if not (reply.end is End.ERROR and reply.partial):
            call.done(reply)
            return
        gone = len(reply.body) == 2 and reply.body[0] == Trouble.GONE
        if not gone or call.rounds >= ROUNDS_MAX or not 0 < reply.body[1] <= group.encoder.count:  # type: ignore[union-attr]
            self._alone(call)
            return
        if not group.lacking:
            transport = group.transport
            report_ms = transport.access_ms + transport.airtime_ms(REPORT_BYTES)
            self._endpoint.later(int(2 * report_ms * len(group.calls)), lambda: self._say(group))
        group.lacking[call] = reply.body[1]
