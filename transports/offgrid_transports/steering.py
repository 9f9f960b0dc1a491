"""Over which road a session goes: another one when the present one brings no word, or a better one is there.

A road that seems better is tried with an echo before it is taken, and so is one by which the peer speaks all at once
(RFC 9000, 9.3: it may be a copy, sent from elsewhere); until the echo is back, the session keeps to its path. Those
that lie idle beside the one in use are tried now and then; on a shared medium only when it would be taken. Pure: the
caller gives the time, as monotonic milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import msgspec

from offgrid_transports.bound import Bound
from offgrid_transports.path import SHORT_BYTES, Path
from offgrid_transports.records import CALL_MAX, Echo
from offgrid_transports.roads import PRICE_SHARED, Measured, Road, Roads
from offgrid_transports.session import HEAD_BYTES, Session
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Priority, Transport

FAILED_WAITS = 2  # in a row without any word, after which another road is taken
CHECK_MS = 30_000.0  # between looks at the roads beside the one in use
SETTLED_MS = 10_000.0  # that long a session stays where it went, while word comes there
ECHOES_MAX = 256
FOLLOWED_MAX = 4  # paths to which one session may be about to follow its peer
ECHO_BYTES = HEAD_BYTES + 2 + 1 + 5 + 16  # with the counter, kind, number and tag

Done = Callable[[float | None], None]


class _Asked(msgspec.Struct):
    ours: int
    path: Path
    sent_ms: float
    done: Done | None
    follows: bool = False
    """The peer speaks there: when the echo is back the session goes there, be it better or not."""


class Steering:
    """`queue` sends a frame by itself, `finish` has a callback called, `touch` has a session looked at."""

    def __init__(
        self,
        timers: Timers,
        rng: Random,
        queue: Callable[[Path, bytes, str], None],
        finish: Callable[[Callable[[], object]], None],
        touch: Callable[[Bound], None],
    ) -> None:
        self._timers, self._rng = timers, rng
        self._queue, self._finish, self._touch = queue, finish, touch
        self._prices: dict[Transport, float] = {}  # that somebody has set
        self._roads: dict[str, Roads] = {}
        self._asked: dict[int, _Asked] = {}
        self._moved_ms: dict[int, float] = {}  # by session

    def set_price(self, transport: Transport, price: float | None) -> None:
        """Of a millisecond of its air, in milliseconds; None for what its kind costs as a rule."""
        if price is not None:
            self._prices[transport] = price

    # ---- what is known

    def heard(self, now_ms: float, peer: str, path: Path, *, proved: bool) -> None:
        """A frame of that peer came there, `proved`: in answer to what was sent there."""
        self._of(peer).heard(now_ms, path, proved=proved)

    def roads(self, peer: str, session: Session | None) -> list[Road]:
        """The best first."""
        self._note(peer, session)
        return self._of(peer).all()

    def first(self, peer: str, path: Path) -> Path:
        """To begin a session with; `path` where nothing better is known."""
        return self._of(peer).first() or path

    def frame_bytes(self, peer: str) -> int:
        """What every road to it takes."""
        return min((road.path.frame_bytes for road in self._of(peer).all()), default=0)

    def forget(self, peer: str) -> None:
        self._roads.pop(peer, None)
        self._timers.set(("roads", peer), None)

    def forget_session(self, session: Session) -> None:
        self._moved_ms.pop(session.ours, None)
        for number in [number for number, asked in self._asked.items() if asked.ours == session.ours]:
            self._end(number, None)

    # ---- choice

    def steer(self, now_ms: float, bound: Bound, length: int = SHORT_BYTES, priority: Priority = Priority.JOB) -> None:
        """Something is to be sent, or another road is known now."""
        session = bound.session
        roads = self._of(session.peer)
        if len(roads) < 2:
            return
        if ("roads", session.peer) not in self._timers:
            self._timers.set(("roads", session.peer), math.ceil(now_ms + CHECK_MS * self._rng.uniform(0.75, 1.25)))
        self._note(session.peer, session)
        better = roads.better(session.path, length, priority)
        if better is None:
            return
        own = roads.get(session.path)
        if own is not None and not own.usable:
            self._move(now_ms, bound, better)
        elif now_ms - self._moved_ms.get(session.ours, -math.inf) >= SETTLED_MS:
            self._ask(now_ms, session, better, None)

    def follow(self, now_ms: float, bound: Bound, path: Path) -> None:
        """Its peer speaks from elsewhere now: once an echo has come back from there, that is where it is answered. At
        most one echo leaves for each frame that came, and is no more than three times as long."""
        session = bound.session
        under_way = {
            each.path: number for number, each in self._asked.items() if each.ours == session.ours and each.follows
        }
        number = under_way.get(path)
        if number is None and len(under_way) >= FOLLOWED_MAX:
            return
        if number is not None:
            if now_ms < self._asked[number].sent_ms + path.answered_ms(ECHO_BYTES, Priority.CONTROL) + path.guess_ms:
                return
            self._end(number, None)
        self._ask(now_ms, session, path, None, follows=True)

    def on_silence(self, now_ms: float, bound: Bound) -> None:
        """A wait has brought no word."""
        session = bound.session
        if session.silent_here >= FAILED_WAITS:
            self.on_failed(now_ms, bound)

    def on_failed(self, now_ms: float, bound: Bound) -> None:
        """Its road leads nowhere; what is under way goes on over another one, if there is one."""
        session = bound.session
        after = self.after(now_ms, session.peer, session.path)
        if after != session.path:
            self._move(now_ms, bound, after)

    def after(self, now_ms: float, peer: str, path: Path, length: int = 0) -> Path:
        """`path` has brought no word: which to try then, for a frame of `length` bytes."""
        roads = self._of(peer)
        roads.failed(now_ms, path)
        best = roads.best()
        return best if best is not None and length <= best.frame_bytes else path

    def on_timer(self, now_ms: float, peer: str, bound: Bound | None) -> None:
        """It is time to look at the roads that lie idle."""
        roads = self._of(peer)
        if bound is None or len(roads) < 2 or not bound.used:
            return
        bound.used = False
        self._timers.set(("roads", peer), math.ceil(now_ms + CHECK_MS * self._rng.uniform(0.75, 1.25)))
        for road in roads.all():
            path = road.path
            if path != bound.session.path and path.transport.up and not path.shared:
                self._ask(now_ms, bound.session, path, None)

    # ---- echoes

    def ask(self, now_ms: float, session: Session, path: Path, done: Done, timeout_ms: float) -> None:
        """Has `done` told the round trip in milliseconds, or None when there was no answer by then."""
        self._ask(now_ms, session, path, done, timeout_ms)

    def on_echo(self, now_ms: float, bound: Bound, path: Path, echo: Echo) -> None:
        session = bound.session
        if not echo.answers:
            self._queue(path, session.echo(answers=True, number=echo.number), session.peer)
            return
        asked = self._asked.get(echo.number)
        if asked is None or asked.ours != session.ours or asked.path != path:
            return
        rtt_ms = now_ms - asked.sent_ms
        own_ms = 2 * (path.transport.airtime_ms(ECHO_BYTES) + path.transport.access_ms)
        roads = self._of(session.peer)
        road = roads.get(path)
        if road is not None and path != session.path:
            roads.measured(path, (road.measured or Measured(0.0))._replace(delay_ms=max(0.0, rtt_ms - own_ms)))
        self._end(echo.number, rtt_ms)
        roads.heard(now_ms, path, proved=True)
        if path != session.path and (asked.follows or (asked.done is None and roads.better(session.path) == path)):
            self._move(now_ms, bound, path)

    def on_no_echo(self, now_ms: float, number: int) -> None:
        asked = self._asked.get(number)
        if asked is not None:
            self._end(number, None)

    # ---- inside

    def _of(self, peer: str) -> Roads:
        roads = self._roads.get(peer)
        if roads is None:
            roads = self._roads[peer] = Roads(self._price)
        return roads

    def _price(self, transport: Transport) -> float:
        return self._prices.get(transport, PRICE_SHARED if transport.shared else 0.0)

    def _note(self, peer: str, session: Session | None) -> None:
        """What the session has seen of its path."""
        if session is not None and (measured := session.measured) is not None:
            self._of(peer).measured(session.path, measured)

    def _move(self, now_ms: float, bound: Bound, path: Path) -> None:
        self._note(bound.session.peer, bound.session)
        self._moved_ms[bound.session.ours] = now_ms
        bound.session.move(path)
        self._touch(bound)

    def _ask(
        self,
        now_ms: float,
        session: Session,
        path: Path,
        done: Done | None,
        timeout_ms: float | None = None,
        *,
        follows: bool = False,
    ) -> None:
        asked = [each for each in self._asked.values() if each.ours == session.ours and each.path == path]
        if done is None and not follows and asked:
            return
        if len(self._asked) >= ECHOES_MAX:
            self._end(next(iter(self._asked)), None)
        number = self._rng.randrange(CALL_MAX + 1)
        self._asked[number] = _Asked(session.ours, path, now_ms, done, follows)
        wait_ms = 2 * path.answered_ms(ECHO_BYTES, Priority.CONTROL) + 4 * path.guess_ms + 1_000.0
        self._timers.set(("echo", number), math.ceil(now_ms + (wait_ms if timeout_ms is None else timeout_ms)))
        self._queue(path, session.echo(answers=False, number=number), session.peer)

    def _end(self, number: int, rtt_ms: float | None) -> None:
        asked = self._asked.pop(number)
        self._timers.set(("echo", number), None)
        if (done := asked.done) is not None:
            self._finish(lambda: done(rtt_ms))
