"""Handshakes as they come in: who says hello gets a session, and a session that was asked for begins.

What comes with a hello is taken at once from somebody known, unless it may be a recording; of anybody else, once a
frame under the new keys has come. So long this side's calls keep to another session, where they have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from offgrid_transports.bound import Bound
from offgrid_transports.handshake import Door, Greeted
from offgrid_transports.noise import HandshakeFailed
from offgrid_transports.packing import Packing, Words
from offgrid_transports.path import Path
from offgrid_transports.peers import Peer, Peers, Waiting
from offgrid_transports.records import Record, Whole, parse
from offgrid_transports.session import Content, Session
from offgrid_transports.sessions import STRANGER, Sessions, least
from offgrid_transports.steering import Steering
from offgrid_transports.timers import Timers

SESSIONS_PER_PEER = 4  # whether the other side has replaced one as well is not known, so some are kept
STRANGERS_MAX = 64
UNCONFIRMED_MS = 600_000.0  # a session is kept whose peer has sent nothing under its keys
HANDSHAKES = "handshakes"  # for whom time is counted that strangers have used


class Calling(Protocol):
    def __call__(self, now_ms: float, bound: Bound, call: Waiting, *, early: bool = False) -> None: ...


class Reception:
    """`queue` sends a frame by itself, `take` is given what a session brings, `call` makes a call there."""

    def __init__(
        self,
        door: Door,
        identify: Callable[[bytes], str | None],
        peers: Peers,
        sessions: Sessions,
        steering: Steering,
        timers: Timers,
        packing: Packing,
        queue: Callable[[Path, bytes, str], None],
        take: Callable[[float, Bound, Iterable[Content], int], None],
        call: Calling,
    ) -> None:
        self._door, self._identify, self._peers, self._sessions = door, identify, peers, sessions
        self._steering, self._timers, self._packing = steering, timers, packing
        self._queue, self._take, self._call = queue, take, call

    def on_hello(self, now_ms: float, path: Path, frame: bytes) -> bool:
        """False for one that is meant for somebody else. Raises HandshakeFailed, RecordError."""
        if not self._door.is_meant(frame):
            return False
        known = self._door.answered(frame)
        if known is not None and known[0] in self._sessions:
            self._queue(path, known[1], HANDSHAKES)
            return True
        greeted = self._door.greet(now_ms, frame)
        records = parse(greeted.records)
        name = self._identify(greeted.public)
        if name is None and self._sessions.strangers >= STRANGERS_MAX:
            raise HandshakeFailed(f"{STRANGERS_MAX} strangers are here already")
        self._welcome(now_ms, name, greeted, records, path, again=known is not None)
        self._door.keep(frame, greeted)
        self._queue(path, greeted.frame, name or HANDSHAKES)
        return True

    def on_welcome(self, now_ms: float, path: Path, frame: bytes) -> bool:
        """False for somebody else's. Raises HandshakeFailed."""
        welcomed = self._peers.on_welcome(frame)
        if welcomed is None:
            return False
        peer = welcomed.peer
        answers = path in peer.greeted
        self._steering.heard(now_ms, peer.name, path, proved=answers)
        words, used = Words(self._packing), path if answers else peer.path
        session = Session(peer.name, welcomed.ours, welcomed.theirs, welcomed.suite, welcomed.keys, used, words)
        bound = self._sessions.add(now_ms, session, confirmed=True)
        if welcomed.early is not None:
            self._call(now_ms, bound, welcomed.early, early=True)
        elif welcomed.spoke:
            bound.calls.skip()
        self._settle_in(now_ms, peer, bound)
        if not answers:
            self._steering.follow(now_ms, bound, path)
        return True

    def confirm(self, now_ms: float, bound: Bound) -> None:
        """A frame under its keys has come: its peer is there now."""
        bound.confirmed = True
        self._timers.set(("unconfirmed", bound.session.ours), None)
        held, bound.held = bound.held, []
        self._take(now_ms, bound, held, 0)
        peer = self._peers.get(bound.session.peer)
        if peer is not None:
            self._settle_in(now_ms, peer, bound)

    # ---- inside

    def _welcome(
        self, now_ms: float, known: str | None, greeted: Greeted, records: list[Record], path: Path, *, again: bool
    ) -> None:
        """`again`: it had a session before, which has ended; its call was carried out there, perhaps: not here."""
        name = known or f"{STRANGER}{greeted.public.hex()}"
        peer = self._peers.get(name)
        if peer is None or peer.public != greeted.public:
            peer = self._peers.meet(name, greeted.public, path, chosen=False)
        self._steering.heard(now_ms, name, path, proved=False)
        words = Words(self._packing, greeted.dictionary)
        session = Session(name, greeted.ours, greeted.theirs, greeted.suite, greeted.keys, path, words)
        bound = self._sessions.add(now_ms, session, confirmed=False)
        calls = [record for record in records if isinstance(record, Whole) and record.request]
        if again:
            for record in calls:
                bound.answers.close(now_ms, record.call)
        else:
            bound.held = calls
        trusted = known is not None and greeted.fresh
        if trusted:
            held, bound.held = bound.held, []
            self._take(now_ms, bound, held, 0)
        if not trusted:
            self._timers.set(("unconfirmed", session.ours), math.ceil(now_ms + UNCONFIRMED_MS))
        elif peer.bound is None:
            self._settle_in(now_ms, peer, bound)
        else:  # it may have got its answer and be silent for long, and then call again
            waiting = [*(each for each in self._sessions.others(bound) if not each.confirmed), bound]
            for each in waiting[:-SESSIONS_PER_PEER]:
                self._sessions.end(now_ms, each, "the peer began anew")

    def _settle_in(self, now_ms: float, peer: Peer, bound: Bound) -> None:
        """This session takes the place of the one before, which is kept for what its peer still says there."""
        before, peer.bound = peer.bound, bound
        if before is not None and before is not bound:
            before.session.wake(now_ms)
            self._sessions.touch(before)
        others = [each for each in self._sessions.others(bound) if each.confirmed]
        if len(others) >= SESSIONS_PER_PEER:
            self._sessions.end(now_ms, least(others), "the peer has begun anew repeatedly")
        for call in self._peers.take_waiting(peer):
            self._call(now_ms, bound, call)
