"""Those whom a node knows how to reach, the calls that wait for a session with each, and the hellos under way."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import msgspec

from offgrid_transports.bound import Bound
from offgrid_transports.calls import Done, End, Reply
from offgrid_transports.handshake import HELLO_BYTES, SID_BYTES, Hello, Own
from offgrid_transports.messages import request
from offgrid_transports.noise import HandshakeFailed, Keys
from offgrid_transports.packing import NEWEST, Packing, Words
from offgrid_transports.path import Path
from offgrid_transports.records import whole_head
from offgrid_transports.sealing import Suite
from offgrid_transports.steering import Steering
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Priority, Transport

PEERS_MAX = 4096
WAITING_MAX = 1024  # calls to one peer until there is a session: as many as one then takes
TRIES_MAX = 12
TRIES_OF_ROAD = 2  # then another one is tried
TRIES_ALIKE = 3  # then the next ones wait twice as long
DOUBLINGS_MAX = 5


class Waiting(NamedTuple):
    """A call that was asked for."""

    method: int
    body: bytes
    asked_ms: float
    deadline_ms: float
    done: Done
    priority: Priority


class Peer(msgspec.Struct):
    name: str
    public: bytes
    path: Path
    chosen: bool
    """Somebody has said so; else it is where the peer was heard last."""
    bound: Bound | None = None
    hello: Hello | None = None
    tries: int = 0
    waiting: deque[Waiting] = msgspec.field(default_factory=deque)
    greeted: set[Path] = msgspec.field(default_factory=set)
    """Where the last hello went."""
    early: Waiting | None = None
    """A call that left with the hello: the first of the session that this comes to, and of no other."""
    renewed_ms: float = -math.inf


class Welcomed(NamedTuple):
    """What a handshake came to, for who began it. `spoke`: a call left with the hello; `early` is that call, unless it
    was given up since."""

    peer: Peer
    ours: int
    theirs: int
    suite: Suite
    keys: Keys
    spoke: bool
    early: Waiting | None


class Peers:
    """`send` queues a frame of a handshake, `finish` has a call's end told."""

    def __init__(
        self,
        own: Own,
        timers: Timers,
        rng: Random,
        stamp: Callable[[], int],
        steering: Steering,
        send: Callable[[Path, bytes, str], None],
        finish: Callable[[Done, Reply], None],
        packing: Packing,
    ) -> None:
        self._own, self._timers, self._rng, self._stamp = own, timers, rng, stamp
        self._send, self._finish, self._packing = send, finish, packing
        self._steering = steering
        self._peers: OrderedDict[str, Peer] = OrderedDict()
        self._hellos: dict[int, Peer] = {}  # by the number that this side gives the session

    def __contains__(self, name: str) -> bool:
        return name in self._peers

    def get(self, name: str) -> Peer | None:
        return self._peers.get(name)

    @property
    def busy_links(self) -> set[Transport]:
        """On which a session with one of them begins."""
        return {peer.path.transport for peer in self._peers.values() if peer.hello is not None or peer.waiting}

    def saying_hello(self, sid: int) -> bool:
        return sid in self._hellos

    def meet(self, name: str, public: bytes, path: Path, *, chosen: bool) -> Peer:
        """In the place of one of that name."""
        if name in self._peers:
            self._forget(name, "its key is another one now")
        peer = self._peers[name] = Peer(name, public, path, chosen)
        if len(self._peers) > PEERS_MAX:
            self._forget(next(iter(self._peers)), "there are too many peers")
        return peer

    def wait(self, peer: Peer, call: Waiting) -> bool:
        """Until there is a session; False for one too many."""
        if len(peer.waiting) >= WAITING_MAX:
            return False
        peer.waiting.append(call)
        self._set_deadline(peer)
        return True

    def greet(self, now_ms: float, peer: Peer, new_sid: Callable[[], int]) -> None:
        """Says hello, unless that is under way."""
        if peer.hello is not None:
            return
        if peer.bound is not None and not peer.chosen:
            peer.path = peer.bound.session.path
        suite = Suite.AES_CCM_8 if peer.path.shared else Suite.CHACHA20_POLY1305
        try:
            sid, stamp = new_sid(), self._stamp()
            peer.hello = Hello(self._own, peer.public, suite, sid, stamp, self._early(peer), dictionary=NEWEST)
        except HandshakeFailed as error:
            self._fail(peer, str(error))
            return
        self._hellos[peer.hello.sid] = peer
        peer.tries, peer.greeted = 0, set()
        self._say(now_ms, peer, peer.hello)

    def on_welcome(self, frame: bytes) -> Welcomed | None:
        """None for somebody else's. Raises HandshakeFailed."""
        sid = int.from_bytes(frame[1 : 1 + SID_BYTES])
        peer = self._hellos.get(sid)
        if peer is None or peer.hello is None:
            return None
        theirs, keys = peer.hello.welcomed(frame)
        hello, early, peer.early = peer.hello, peer.early, None
        self._end_hello(peer)
        return Welcomed(peer, sid, theirs, hello.suite, keys, hello.speaks, early)

    def take_waiting(self, peer: Peer) -> list[Waiting]:
        """The calls that have waited for a session, whichever it is."""
        waited = list(peer.waiting)
        peer.waiting.clear()
        self._set_deadline(peer)
        return waited

    def on_timer(self, now_ms: float, what: str, name: str) -> None:
        """`what`: "hello" or "waiting"."""
        peer = self._peers.get(name)
        if peer is not None and what == "hello":
            self._on_no_welcome(now_ms, peer)
        elif peer is not None:
            self._on_waited(now_ms, peer)

    def close(self, detail: str) -> None:
        for name in list(self._peers):
            self._forget(name, detail)

    # ---- inside

    def _say(self, now_ms: float, peer: Peer, hello: Hello) -> None:
        path, length = peer.path, len(hello.frame)
        peer.greeted.add(path)
        self._send(path, hello.frame, peer.name)
        wait_ms = path.answered_ms(length, Priority.CONTROL) + path.transport.airtime_ms(length) + path.guess_ms
        wait_ms *= self._rng.uniform(1.0, 1.25) * (1 << min(peer.tries // TRIES_ALIKE, DOUBLINGS_MAX))
        peer.tries += 1
        self._timers.set(("hello", peer.name), math.ceil(now_ms + wait_ms))

    def _on_no_welcome(self, now_ms: float, peer: Peer) -> None:
        if peer.hello is None:
            return
        if peer.tries < TRIES_MAX:
            if not peer.tries % TRIES_OF_ROAD:
                peer.path = self._steering.after(now_ms, peer.name, peer.path, len(peer.hello.frame))
            self._say(now_ms, peer, peer.hello)
            return
        self._end_hello(peer)
        self._fail(peer, f"{peer.name} does not answer")

    def _end_hello(self, peer: Peer) -> None:
        if peer.hello is not None:
            self._hellos.pop(peer.hello.sid, None)
        if peer.early is not None:
            self._finish(
                peer.early.done, Reply(End.UNKNOWN, detail=f"{peer.name} did not answer the hello it left with")
            )
        peer.hello, peer.early, peer.tries = None, None, 0
        self._set_deadline(peer)
        self._timers.set(("hello", peer.name), None)

    def _on_waited(self, now_ms: float, peer: Peer) -> None:
        late = [call for call in peer.waiting if call.deadline_ms <= now_ms]
        peer.waiting = deque(call for call in peer.waiting if call.deadline_ms > now_ms)
        for call in late:
            self._finish(call.done, Reply(End.REFUSED, detail="no session within the time given"))
        if peer.early is not None and peer.early.deadline_ms <= now_ms:
            self._finish(peer.early.done, Reply(End.UNKNOWN, detail="no answer within the time given"))
            peer.early = None
        self._set_deadline(peer)

    def _set_deadline(self, peer: Peer) -> None:
        early = () if peer.early is None else (peer.early,)
        due_ms = min((call.deadline_ms for call in (*peer.waiting, *early)), default=None)
        self._timers.set(("waiting", peer.name), None if due_ms is None else math.ceil(due_ms))

    def _fail(self, peer: Peer, detail: str) -> None:
        """Nothing that waits for a session gets one."""
        for call in peer.waiting:
            self._finish(call.done, Reply(End.REFUSED, detail=detail))
        self.take_waiting(peer)

    def _forget(self, name: str, detail: str) -> None:
        peer = self._peers.pop(name)
        self._steering.forget(name)
        self._fail(peer, detail)
        self._end_hello(peer)

    def _early(self, peer: Peer) -> bytes:
        """The first call that waits, as what leaves with the hello, if it fits: the session's first."""
        if not peer.waiting:
            return b""
        call = peer.waiting[0]
        body, packed = Words(self._packing).shorten(call.body) if peer.path.shared else (call.body, False)
        message = request(call.method, math.ceil(call.deadline_ms - call.asked_ms), body, packed=packed)
        record = whole_head(request=True, call=1, flags=message.flags) + message.rest
        if HELLO_BYTES + len(record) > min(
            peer.path.frame_bytes, self._steering.frame_bytes(peer.name) or peer.path.frame_bytes
        ):
            return b""
        peer.early = peer.waiting.popleft()
        return record
