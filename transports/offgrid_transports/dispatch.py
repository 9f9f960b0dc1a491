"""What leaves next on which link: of all that wait the most urgent, in turn where that is equal.

A session is asked for a frame only when its link has room for it, so whatever becomes urgent meanwhile goes first.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import NamedTuple

from offgrid_transports.path import Path
from offgrid_transports.session import Session
from offgrid_transports.spending import Spending
from offgrid_transports.transport import Priority, Transport, own_link

SINGLES_MAX = 64  # frames of no session's queue that wait at a link; of those for one the oldest give way
AT_ONCE_MAX = 64  # frames that leave in one go


class _Ready(NamedTuple):
    """A frame for a link, and on whose behalf it uses its time."""

    address: str
    frame: bytes
    priority: Priority
    who: str


class _Link:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.full = False
        self.stuck: _Ready | None = None  # sealed, and refused by a full link
        self.singles: deque[_Ready] = deque(maxlen=SINGLES_MAX)
        self.spread: deque[_Ready] = deque()
        self.ready: OrderedDict[int, Session] = OrderedDict()  # the one that was served longest ago first
        self.spending = Spending()

    def send(self, now_ms: float, ready: _Ready) -> bool:
        try:
            sent = self.transport.send(ready.address, ready.frame, ready.priority)
        except ValueError:  # longer than the link takes by now
            return True
        if sent:
            self.spending.add(now_ms, ready.who, ready.priority, self.transport.airtime_ms(len(ready.frame)))
        else:
            self.full, self.stuck = True, ready
        return sent


class Dispatch:
    """Of all links of a node."""

    def __init__(self) -> None:
        self._links: list[_Link] = []
        self._listening: dict[Transport, Session] = {}  # by the radio on which its answer comes
        self.wake_ms = math.inf
        """When `send` has something to do that waits for nothing but the time."""

    def attach(self, transport: Transport) -> None:
        self._links.append(_Link(transport))

    def detach(self, transport: Transport) -> None:
        self._links = [link for link in self._links if link.transport is not transport]

    @property
    def transports(self) -> list[Transport]:
        return [link.transport for link in self._links]

    def on_room(self, transport: Transport) -> None:
        self._link(transport).full = False

    def spending(self, transport: Transport) -> Spending:
        """Who uses that link's time."""
        return self._link(transport).spending

    def queue(self, path: Path, frame: bytes, who: str) -> None:
        """A single frame: of a handshake, a beacon, an echo. `who` has its time counted."""
        self._link(path.transport).singles.append(_Ready(path.address, frame, Priority.CONTROL, who))

    def spread(self, path: Path, frame: bytes, priority: Priority) -> bool:
        """A frame for all, which begins something: it waits as a session would. False where too many wait, or the link
        is down: when it comes up, nobody waits for that frame any more."""
        waiting = self._link(path.transport).spread
        if not path.transport.up or len(waiting) >= SINGLES_MAX:
            return False
        waiting.append(_Ready(path.address, frame, priority, "all"))
        return True

    def add(self, session: Session) -> None:
        """It may have something to send."""
        self._link(session.path.transport).ready[session.ours] = session

    def drop(self, session: Session) -> None:
        for link in self._links:
            link.ready.pop(session.ours, None)

    def send(self, now_ms: float) -> tuple[list[Session], bool]:
        """Sends what may leave now. The sessions that were asked and have nothing more for now, and whether to go on at
        once."""
        rested, more, self.wake_ms = list[Session](), False, math.inf
        for link in self._links:
            more |= self._send_on(now_ms, link, rested)
        return rested, more

    # ---- inside

    def _listens_ms(self, now_ms: float, link: _Link) -> float:
        """Until when nothing new is begun there; in the past for at once. Who asks one and goes on to ask another does
        not hear the first one's answer, asks again, and so do all, until nobody gets through."""
        if not self._listening:
            return -math.inf
        radio = own_link(link.transport)
        session = self._listening.get(radio)
        if session is None or session.listens_ms <= now_ms:
            self._listening.pop(radio, None)
            return -math.inf
        return session.listens_ms

    def _link(self, transport: Transport) -> _Link:
        link = next((link for link in self._links if link.transport is transport), None)
        if link is None:  # a session goes on over one that had made room
            self.attach(transport)
            return self._links[-1]
        return link

    def _send_on(self, now_ms: float, link: _Link, rested: list[Session]) -> bool:
        if not link.transport.up:
            link.spread.clear()
            return False
        if link.full:
            return False
        if link.stuck is not None:
            stuck, link.stuck = link.stuck, None
            if not link.send(now_ms, stuck):
                return False
        while link.singles:
            if not link.send(now_ms, link.singles.popleft()):
                return False
        while link.spread:
            if (until_ms := self._listens_ms(now_ms, link)) > now_ms:
                self.wake_ms = min(self.wake_ms, until_ms)
                break
            if not link.send(now_ms, link.spread.popleft()):
                return False
        for _ in range(AT_ONCE_MAX):
            if (session := self._next(now_ms, link)) is None:
                return False
            urgency = session.urgency(now_ms)
            frame = session.next_frame(now_ms) if session.path.transport is link.transport else None
            if frame is None:
                del link.ready[session.ours]
                rested.append(session)
                continue
            link.ready.move_to_end(session.ours)
            priority = Priority.BULK if urgency is None else urgency
            sent = link.send(now_ms, _Ready(session.path.address, frame, priority, session.peer))
            if session.listens_ms > now_ms and (radio := own_link(link.transport)).shared:
                self._listening[radio] = session
            if not sent:
                return False
        return True

    def _next(self, now_ms: float, link: _Link) -> Session | None:
        """The most urgent; of those that would begin something none while an answer may come."""
        until_ms = self._listens_ms(now_ms, link)
        found, least, idle = None, math.inf, None
        for session in link.ready.values():
            still_ms = max(until_ms, session.rests_ms)
            if still_ms > now_ms and session.begins(now_ms):
                self.wake_ms = min(self.wake_ms, still_ms)
                continue
            urgency = session.urgency(now_ms)
            if urgency is None:
                idle = idle or session
            elif urgency < least:
                found, least = session, urgency
        return found or idle
