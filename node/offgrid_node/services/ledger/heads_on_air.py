"""Members on a slow link whose ledgers differ find that out by their beacons, and settle it by symbols that all hear.

A beacon says in four bytes which heads its node has. Who hears another's and has other ones, and has had them for a
while, says coded symbols of its own to all (protocol/ledger/beacon.py): once for however many lack something, in a part
in SYMBOLS_SHARE of the link's time at most, and not when somebody with the same heads has just done so. Whoever
knows from them what it lacks asks the one that spoke.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random
from weakref import WeakKeyDictionary

import msgspec

from offgrid_node.protocol.errors import Fault, PeerFault
from offgrid_node.protocol.ledger.beacon import Beacon, Listener
from offgrid_node.protocol.ledger.commands import HeadsHeard
from offgrid_node.protocol.ledger.heads import SUMMARY_BYTES
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_transports.tellings import TELLING_BYTES_MAX
from offgrid_transports.transport import Schedule, Transport

MARK_BYTES = 4
SYMBOLS_SHARE = 200
CALM_MS = 20_000  # what a payment changes is told to each as it comes: only what stays different is looked into
WAIT_FRAMES = 20  # as long as so many take a node waits at random, lest all speak at once
LISTENERS_MAX = 64

Tell = Callable[[Transport, bytes], None]
Deliver = Callable[[HeadsHeard], None]


class _Link(msgspec.Struct):
    next_ms: float = 0.0
    waits: bool = False
    marks: OrderedDict[str, bytes] = msgspec.field(default_factory=OrderedDict)  # members', as last heard


class HeadsOnAir:
    """Of one node. `ledger` raises a Fault while the node's machines are loaded; `tell` says something to all who hear
    a link, `deliver` brings the machine what it is to know."""

    def __init__(
        self,
        ledger: Callable[[], LedgerMachine],
        tell: Tell,
        deliver: Deliver,
        now_ms: Callable[[], float],
        schedule: Schedule,
        rng: Random,
    ) -> None:
        self._ledger, self._tell, self._deliver = ledger, tell, deliver
        self._now_ms, self._schedule, self._rng = now_ms, schedule, rng
        self._links: WeakKeyDictionary[Transport, _Link] = WeakKeyDictionary()
        self._speaks: tuple[LedgerMachine, Beacon] | None = None
        self._listeners: OrderedDict[str, tuple[LedgerMachine, Listener]] = OrderedDict()
        self._own, self._own_ms = b"", 0.0

    def mark(self) -> bytes:
        """What this node's beacons say of its heads; nothing where it has no ledger, or is loading it."""
        try:
            own = self._ledger().heads_summary[:MARK_BYTES]
        except Fault:
            own = b""
        if own != self._own:
            self._own, self._own_ms = own, self._now_ms()
        return own

    def on_mark(self, node: str, link: Transport, mark: bytes) -> None:
        """A member's beacon, on a slow link, has said so."""
        own, here = self.mark(), self._links.setdefault(link, _Link())
        if len(mark) != MARK_BYTES:
            return
        here.marks.pop(node, None)
        here.marks[node] = mark
        if len(here.marks) > LISTENERS_MAX:
            here.marks.popitem(last=False)
        if own and mark != own and not here.waits:
            here.waits = True
            frame_ms = link.airtime_ms(TELLING_BYTES_MAX)
            wait_ms = max(0.0, here.next_ms - self._now_ms()) + WAIT_FRAMES * frame_ms * self._rng.random()
            self._schedule(max(1, int(wait_ms)), lambda: self._speak(link, here))

    def on_said(self, node: str, link: Transport, said: bytes) -> None:
        """A member has said symbols to all."""
        try:
            ledger = self._ledger()
        except Fault:
            return
        if not ledger.heads_summary:
            return
        if said[:SUMMARY_BYTES] == ledger.heads_summary:
            self._pause(link)
        known = self._listeners.pop(node, None)
        if known is None or known[0] is not ledger:
            known = ledger, ledger.listener()
        self._listeners[node] = known
        if len(self._listeners) > LISTENERS_MAX:
            self._listeners.popitem(last=False)
        try:
            heard = known[1].on_frame(said)
        except PeerFault:
            return
        if heard is not None and not heard.in_sync:
            self._deliver(HeadsHeard(node, heard))

    # ---- inside

    def _speak(self, link: Transport, here: _Link) -> None:
        here.waits = False
        own, now_ms = self.mark(), self._now_ms()
        differs = any(mark != own for mark in here.marks.values())
        if not own or not differs or not link.up or now_ms < here.next_ms or now_ms < self._own_ms + CALM_MS:
            return
        ledger = self._ledger()
        if self._speaks is None or self._speaks[0] is not ledger:
            self._speaks = ledger, ledger.beacon()
        self._pause(link)
        self._tell(link, self._speaks[1].take(self._rng))

    def _pause(self, link: Transport) -> None:
        here = self._links.setdefault(link, _Link())
        here.next_ms = self._now_ms() + SYMBOLS_SHARE * link.airtime_ms(TELLING_BYTES_MAX)
