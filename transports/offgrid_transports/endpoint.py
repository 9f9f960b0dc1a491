"""One node's end of all its links: who its peers are, a session with each, and what leaves next on which link.

Knows neither thread nor event loop: `schedule` is the loop's `call_later` in the daemon, and a simulator's heap in
virtual time. Everything is bounded: peers, sessions, strangers among them, calls that wait for a session, bytes half
received.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from offgrid_transports.answers import Kept, Request
from offgrid_transports.beacons import BEACON
from offgrid_transports.bound import Bound
from offgrid_transports.calls import CallRefused, Done, End, Reply
from offgrid_transports.deadlines import Deadlines
from offgrid_transports.dispatch import Dispatch
from offgrid_transports.gathering import Gathering, NoRoom
from offgrid_transports.handshake import HELLO, SID_BYTES, WELCOME, Door, Own
from offgrid_transports.knocks import KNOCK
from offgrid_transports.noise import HandshakeFailed
from offgrid_transports.packing import Packing
from offgrid_transports.path import Path
from offgrid_transports.peers import WAITING_MAX, Peer, Peers, Waiting
from offgrid_transports.pump import Pump
from offgrid_transports.reception import Reception
from offgrid_transports.records import Echo, RecordError
from offgrid_transports.roads import Road
from offgrid_transports.sealing import NotOpened
from offgrid_transports.session import FRAME_TYPE, Content, Session
from offgrid_transports.sessions import Sessions
from offgrid_transports.shared_frames import CODED
from offgrid_transports.spending import Spending
from offgrid_transports.steering import Steering
from offgrid_transports.tellings import TELLING
from offgrid_transports.timers import Timers
from offgrid_transports.transport import BROADCAST, Priority, Schedule, Transport, TransportError


class UnknownPeer(TransportError):
    """Nobody has said how to reach it."""


class Endpoint:
    """`identify` says who has that static public key, None: nobody that is known. `stamp` is a time in milliseconds
    that only rises, over restarts as well as it can."""

    def __init__(
        self,
        own: Own,
        identify: Callable[[bytes], str | None],
        now_ms: Callable[[], float],
        schedule: Schedule,
        rng: Random,
        stamp: Callable[[], int],
        *,
        gathering: Gathering | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.stamp = stamp
        self.counts: Counter[str] = Counter()
        """What was dropped or refused, by reason."""
        self.on_request: Callable[[Request], None] = lambda request: None
        self.on_beacon: Callable[[Path, bytes], None] = lambda path, frame: None
        """A frame that says to be one."""
        self.on_knock: Callable[[Path, bytes], None] = lambda path, frame: None
        """Somebody who is invited, perhaps, looks for its inviter."""
        self.on_telling: Callable[[Path, bytes], None] = lambda path, frame: None
        """A member, as it says, says something to all."""
        self.on_change: Callable[[Transport], None] = lambda transport: None
        """A link came up or went, or has other neighbours."""
        self.is_taken: Callable[[int], bool] = lambda number: False
        """No session gets such a number: it is a label of this node's."""
        self.on_opened: Callable[[Path], None] = lambda path: None
        """A frame of a session came there, and was from its peer."""
        self.on_coded: Callable[[bytes], None] = lambda frame: None
        """A frame that is for all who hear it. May raise RecordError."""
        self.own, self.rng, self.packing = own, rng, Packing()
        self._now_ms, self._rng = now_ms, rng
        self.now_ms: Callable[[], float] = now_ms
        self.later: Schedule = schedule
        self._timers = Timers()
        self._dispatch = Dispatch()
        self._pump = Pump(now_ms, schedule, self._timers, self._dispatch)
        self._steering = Steering(self._timers, rng, self._dispatch.queue, self._pump.owe, self._touch)
        queue = self._dispatch.queue
        self._peers = Peers(own, self._timers, rng, stamp, self._steering, queue, self._finish, self.packing)
        self._sessions = Sessions(
            self._peers, self._steering, self._timers, self._dispatch, gathering or Gathering(), kept or Kept(), now_ms
        )
        self._deadlines = Deadlines(self._peers, self._sessions, self._steering, self._new_sid)
        self._pump.on_timer = self._deadlines.on_timer
        self._reception = Reception(
            Door(own, self._new_sid),
            identify,
            self._peers,
            self._sessions,
            self._steering,
            self._timers,
            self.packing,
            queue,
            self._on_contents,
            self._call,
        )

    # ---- links and peers

    def attach(self, transport: Transport, price: float | None = None) -> None:
        """From now on it is this endpoint's. `price` of a millisecond of its air, in milliseconds that a message would
        rather wait; a shared medium has one unless it is given."""
        self._dispatch.attach(transport)
        self._steering.set_price(transport, price)

        def on_room() -> None:
            self._dispatch.on_room(transport)
            self._pump.turn()

        transport.on_frame = lambda address, frame: self._on_frame(transport, address, frame)

        def on_change() -> None:
            self._pump.owe(lambda: self.on_change(transport))
            self._on_change(transport)
            on_room()

        transport.on_room, transport.on_change = on_room, on_change

    def detach(self, transport: Transport) -> None:
        """Nothing is under way there. Sessions that went there may go on there later."""
        self._dispatch.detach(transport)

    @property
    def busy_links(self) -> set[Transport]:
        """On which something is under way, or about to be."""
        return self._sessions.busy_links | self._peers.busy_links

    def knows_number(self, number: int) -> bool:
        """Frames that bear it are for a session here, or for one that begins."""
        return number in self._sessions or self._peers.saying_hello(number)

    def number_for(self, is_peer: Callable[[bytes], bool], theirs: int) -> int | None:
        """This side's number of the session to which the peer with such a public key has given that other one."""
        return self._sessions.number_for(is_peer, theirs)

    def introduce(self, name: str, public: bytes, path: Path) -> None:
        """How to reach a peer, and what it proves itself by."""
        peer = self._met(name, public, path, chosen=True)
        peer.path, peer.chosen = path, True
        if peer.bound is not None and peer.bound.session.path != path:
            peer.bound.session.move(path)
            self._touch(peer.bound)
        self._pump.turn()

    def learn(self, name: str, public: bytes, path: Path) -> None:
        """It says that it is there: one more road to it, taken where it is the best."""
        peer = self._met(name, public, path, chosen=False)
        if peer.bound is not None:
            self._steering.steer(self._now_ms(), peer.bound)
        elif peer.hello is None:
            peer.path = self._steering.first(name, peer.path)
        self._pump.turn()

    def call(
        self,
        name: str,
        method: int,
        body: bytes,
        timeout_ms: float,
        done: Done,
        *,
        priority: Priority = Priority.JOB,
    ) -> None:
        """`done` is called once, never from within. Raises UnknownPeer, CallRefused."""
        now_ms, peer = self._now_ms(), self._peers.get(name)
        if peer is None:
            raise UnknownPeer(f"no link is known to lead to {name}")
        call = Waiting(method, body, now_ms, now_ms + timeout_ms, done, priority)
        if peer.bound is not None and peer.bound.carries(now_ms):
            peer.bound.used = True
            self._steering.steer(now_ms, peer.bound, len(body), priority)
            self._call(now_ms, peer.bound, call)
        elif self._peers.wait(peer, call):
            if peer.hello is None:
                peer.path = self._steering.first(name, peer.path)
            self._peers.greet(now_ms, peer, self._new_sid)
        else:
            self._finish(done, Reply(End.REFUSED, detail=f"{WAITING_MAX} calls wait for a session already"))
        self._pump.turn()

    def respond(
        self,
        request: Request,
        body: bytes,
        *,
        error: bool = False,
        partial: bool = False,
        priority: Priority = Priority.JOB,
    ) -> bool:
        """Answers a request, once; False when nobody waits for it any more. Raises MessageTooLarge."""
        bound = self._sessions.get(request.session)
        if bound is None or bound.session.peer != request.peer:
            return False
        now_ms = self._now_ms()
        taken = bound.answers.respond(now_ms, request.call, body, error=error, partial=partial, priority=priority)
        self._touch(bound)
        self._pump.turn()
        return taken

    def broadcast(self, transport: Transport, frame: bytes) -> None:
        """A beacon."""
        self._dispatch.queue(Path(transport, BROADCAST), frame, "beacons")
        self._pump.turn()

    def spread(self, transport: Transport, frame: bytes, priority: Priority) -> bool:
        """A frame for all who hear it. False where it was refused: too many wait already, or the link is
        down."""
        taken = self._dispatch.spread(Path(transport, BROADCAST), frame, priority)
        self.counts["spread_refused"] += not taken
        self._pump.turn()
        return taken

    def reaches(self, name: str) -> bool:
        """A road is known, and its link is up."""
        peer = self._peers.get(name)
        return peer is not None and (peer.path.transport.up or any(road.path.transport.up for road in self.roads(name)))

    def roads(self, name: str) -> list[Road]:
        """To a peer, the best first."""
        return self._steering.roads(name, self.session_of(name))

    def echo(self, name: str, path: Path, done: Callable[[float | None], None], timeout_ms: float) -> None:
        """Asks for an echo over that path, whichever is in use; `done` is told the round trip in milliseconds, None
        when there is no answer in that time. Raises UnknownPeer where there is no session."""
        peer = self._peers.get(name)
        if peer is None or peer.bound is None:
            raise UnknownPeer(f"there is no session with {name}")
        self._steering.ask(self._now_ms(), peer.bound.session, path, done, timeout_ms)
        self._pump.turn()

    def spending(self, transport: Transport) -> Spending:
        """Who uses that link's time."""
        return self._dispatch.spending(transport)

    def path_to(self, name: str) -> Path | None:
        """Where it is reached; None where that is not known, or its link is down."""
        peer = self._peers.get(name)
        if peer is None:
            return None
        path = peer.bound.session.path if peer.bound is not None else peer.path
        return path if path.transport.up else None

    def session_of(self, name: str) -> Session | None:
        peer = self._peers.get(name)
        return peer.bound.session if peer is not None and peer.bound is not None else None

    def close(self) -> None:
        """Ends what is open as unknown, and closes the links."""
        now_ms = self._now_ms()
        for transport in self._dispatch.transports:
            transport.close()
        for bound in self._sessions:
            self._sessions.end(now_ms, bound, "the links were closed")
        self._peers.close("the links were closed")
        self._pump.tell()

    def _met(self, name: str, public: bytes, path: Path, *, chosen: bool) -> Peer:
        peer = self._peers.get(name)
        if peer is None or peer.public != public:
            peer = self._peers.meet(name, public, path, chosen=chosen)
        self._steering.heard(self._now_ms(), name, path, proved=False)
        return peer

    def _on_change(self, transport: Transport) -> None:
        """What went over a link that is down goes on over another one."""
        for bound in self._sessions:
            if bound.session.path.transport is transport and not transport.up:
                self._steering.on_failed(self._now_ms(), bound)

    # ---- frames in

    def _on_frame(self, transport: Transport, address: str, frame: bytes) -> None:
        now_ms, kind = self._now_ms(), frame[0] & 0xF0 if frame else -1
        path = Path(transport, address)
        try:
            if kind == FRAME_TYPE:
                self._on_session_frame(now_ms, path, frame)
            elif kind == HELLO:
                if not self._reception.on_hello(now_ms, path, frame):
                    self.counts["frames_of_others"] += 1
            elif kind == WELCOME:
                if not self._reception.on_welcome(now_ms, path, frame):
                    self.counts["frames_of_others"] += 1
            elif kind == BEACON:
                self._pump.owe(lambda: self.on_beacon(path, frame))
            elif kind == TELLING:
                self._pump.owe(lambda: self.on_telling(path, frame))
            elif kind == KNOCK:
                self._pump.owe(lambda: self.on_knock(path, frame))
            elif kind == CODED and transport.shared:
                self.on_coded(frame)
            else:
                self.counts["frames_unknown"] += 1
        except NotOpened:
            self.counts["frames_not_opened"] += 1
        except RecordError:
            self.counts["frames_malformed"] += 1
        except HandshakeFailed:
            self.counts["handshakes_failed"] += 1
        self._pump.turn()

    def _on_session_frame(self, now_ms: float, path: Path, frame: bytes) -> None:
        bound = self._sessions.get(int.from_bytes(frame[1 : 1 + SID_BYTES]))
        if bound is None:
            self.counts["frames_of_others"] += 1
            return
        try:
            count, contents = bound.session.on_frame(now_ms, frame, path)
        finally:
            self._deadlines.renew(now_ms, bound)
        self._sessions.used(now_ms, bound)
        self.on_opened(path)
        self._steering.heard(now_ms, bound.session.peer, path, proved=path == bound.session.path)
        echoes = [content for content in contents if isinstance(content, Echo)]
        for echo in echoes:
            self._steering.on_echo(now_ms, bound, path, echo)
        if path != bound.session.path and bound.session.is_newest(count) and not echoes:
            self._follow(now_ms, bound, path)
        if not bound.confirmed:
            self._reception.confirm(now_ms, bound)
        self._on_contents(now_ms, bound, contents, count)
        bound.on_arrived(now_ms)
        self._touch(bound)

    def _follow(self, now_ms: float, bound: Bound, path: Path) -> None:
        """Its peer speaks from elsewhere now: there it is answered, unless this side has chosen the path."""
        peer = self._peers.get(bound.session.peer)
        if peer is not None and (not peer.chosen or path == peer.path or bound.session.unanswered):
            self._steering.follow(now_ms, bound, path)

    def _on_contents(self, now_ms: float, bound: Bound, contents: Iterable[Content], count: int) -> None:
        for content in contents:
            try:
                request = bound.take(now_ms, content)
            except NoRoom:
                self.counts["frames_without_room"] += 1
                bound.session.unhear(count)
            else:
                self._owe(request)

    def _owe(self, request: Request | None) -> None:
        """It is carried out in the next turn."""
        if request is not None:
            self._pump.owe(lambda: self.on_request(request))

    def _touch(self, bound: Bound) -> None:
        """It may have something to send."""
        self._dispatch.add(bound.session)

    # ---- sessions and calls

    def _call(self, now_ms: float, bound: Bound, call: Waiting, *, early: bool = False) -> None:
        done, left_ms = call.done, call.deadline_ms - now_ms
        try:
            bound.calls.call(
                now_ms,
                call.method,
                call.body,
                left_ms,
                lambda reply: self._finish(done, reply),
                priority=call.priority,
                early=early,
            )
        except CallRefused as refused:
            self._finish(done, Reply(End.REFUSED, detail=str(refused)))
        self._touch(bound)

    def _finish(self, done: Done, reply: Reply) -> None:
        self._pump.owe(lambda: done(reply))

    def _new_sid(self) -> int:
        while True:
            sid = self._rng.getrandbits(8 * SID_BYTES)
            if sid and not self.knows_number(sid) and not self.is_taken(sid):
                return sid
