"""When a node says on its links that it is there, and what is taken of what others say.

A beacon leaves when a link comes up (on a shared one twice), when it has other neighbours, soon after somebody new is
heard, and now and then: on a slow link more seldom, so that this node's take a part in NODE_SHARE of its time at most,
and those of all who share it one in CHANNEL_SHARE. Each says when the next one is due. One whose time does not lie
behind that of the last is a recording. That its node is there is believed for some times as long, where the link is too
slow to ask; what it says of that is believed as far as such a link makes it likely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from offgrid_node.protocol.mesh.quiet import is_quick
from offgrid_node.services.packet_road import pace_of
from offgrid_transports.beacons import AGAIN_S_MAX, BEACON_BYTES_MAX, Beacon, read_beacon, write_beacon
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.path import Path
from offgrid_transports.stamps import Newest
from offgrid_transports.transport import LinkHost, Transport, own_link

BEACON_MS = 10_000
NODE_SHARE, CHANNEL_SHARE = 500, 100
EARLY = 0.1  # at random up to so much sooner, lest those who once met always speak at once
GREETING_AFTER = 0.05  # of the time between two, which has to have passed since the last
GREETING_FRAMES = 10  # as long as so many take: within that a greeting leaves
FIRST_FRAMES = 60  # within as long as so many take the first one comes once more, on a shared link
BEGINS_MS_MAX = 60_000  # that long at most a link counts as one that has just come up, however slow it is
MISSED_MAX = 3  # of somebody's next ones, until it counts among those in reach no longer
AGAIN_FACTOR = 8  # who hears more others than this node does speaks so much more seldom at most
NEIGHBOURS_MAX = 4096


class Heard(NamedTuple):
    """A member is there, believed for `lasts_ms` (0: it is to be asked); what it tells of itself, and on which link."""

    lasts_ms: int
    told: bytes
    link: Transport


NodeOf = Callable[[bytes], str | None]
OnHeard = Callable[[str, Path, Heard], None]


class Beaconing:
    """Of one node. `node_of` says which member has that tag; `on_heard` gets a member's name with what it says."""

    def __init__(
        self,
        psk: bytes,
        tag: bytes,
        endpoint: Endpoint,
        host: LinkHost,
        stamp: Callable[[], int],
        told: Callable[[], bytes],
        node_of: NodeOf,
        on_heard: OnHeard,
    ) -> None:
        self._psk, self._tag, self._endpoint, self._host = psk, tag, endpoint, host
        self._stamp, self._told, self._node_of, self._on_heard = stamp, told, node_of, on_heard
        self._turns: dict[Transport, int] = {}  # counts beacons: a timer of before the last one is void
        self._said_ms: dict[Transport, int] = {}
        self._begun_ms: dict[Transport, int] = {}
        self._near: dict[Transport, dict[str, float]] = {}  # who is in reach, and until when
        self._newest = Newest(stamp)
        self._ended = False
        endpoint.on_beacon, endpoint.on_change = self._on_beacon, self._on_change

    def close(self) -> None:
        self._ended = True

    def begin(self, transport: Transport) -> None:
        """It has come up, or others are in reach. On a shared link the first one comes twice, lest those who begin
        together have all spoken at once."""
        self._begun_ms[transport] = self._host.now_ms()
        self.say(transport)
        if transport.shared and not self._ended:
            turn, frames = self._turns[transport], FIRST_FRAMES * self._host.rng.uniform(0.2, 1)
            again_ms = int(frames * transport.airtime_ms(BEACON_BYTES_MAX))
            self._host.schedule(max(1, again_ms), lambda: self._say_again(transport, turn))

    def _on_change(self, transport: Transport) -> None:
        if own_link(transport) is transport:  # whoever is over others hears none
            self.begin(transport)

    def begins(self, transport: Transport) -> bool:
        """Who is in reach there may not have been heard yet."""
        first_ms = min(BEGINS_MS_MAX, 2 * FIRST_FRAMES * transport.airtime_ms(BEACON_BYTES_MAX))
        now_ms = self._host.now_ms()
        return transport.shared and now_ms < self._begun_ms.get(transport, now_ms) + first_ms

    def say(self, transport: Transport) -> None:
        """Now, and from then on in its time."""
        if self._ended:
            return
        turn = self._turns[transport] = self._turns.get(transport, 0) + 1
        again_ms = self.again_ms(transport)
        self._said_ms[transport] = self._host.now_ms()
        if transport.up:
            again_s = min(AGAIN_S_MAX, -(-again_ms // 1_000))
            beacon = Beacon(self._tag, self._stamp(), again_s, self._told())
            self._endpoint.broadcast(transport, write_beacon(self._psk, beacon))
        early = 1 - EARLY * self._host.rng.random()
        self._host.schedule(int(again_ms * early), lambda: self._say_again(transport, turn))

    def near(self, transport: Transport) -> int:
        """How many members are in reach on that link, as far as they were heard of late."""
        return len(self._near.get(transport, ()))

    def hears(self, node: str) -> bool:
        """It is in reach on one of the links that are up."""
        now_ms = self._host.now_ms()
        return any(near.get(node, now_ms) > now_ms for link, near in self._near.items() if link.up)

    def again_ms(self, transport: Transport) -> int:
        """How far apart they are on that link."""
        near, now_ms = self._near.setdefault(transport, {}), self._host.now_ms()
        for node in [node for node, until_ms in near.items() if until_ms <= now_ms]:
            del near[node]
        share = max(NODE_SHARE, CHANNEL_SHARE * (len(near) + 1)) if transport.shared else NODE_SHARE
        return max(BEACON_MS, int(share * transport.airtime_ms(BEACON_BYTES_MAX)))

    def _greet(self, transport: Transport) -> None:
        """Who is new shall not have to wait for the next one; but many who come at once are greeted once."""
        again_ms, now_ms = self.again_ms(transport), self._host.now_ms()
        if now_ms - self._said_ms.get(transport, now_ms) < again_ms * GREETING_AFTER:
            return
        turn = self._turns.get(transport, 0)
        self._said_ms[transport] = now_ms
        wait_ms = GREETING_FRAMES * transport.airtime_ms(BEACON_BYTES_MAX) * self._host.rng.random()
        self._host.schedule(max(1, int(wait_ms)), lambda: self._say_again(transport, turn))

    def _say_again(self, transport: Transport, turn: int) -> None:
        if self._turns[transport] == turn:
            self.say(transport)

    def _on_beacon(self, path: Path, frame: bytes) -> None:
        beacon = read_beacon(self._psk, frame)
        node = self._node_of(beacon.tag) if beacon is not None else None
        if beacon is None or node is None or not self._newest.is_new(self._host.now_ms(), node, beacon.stamp):
            return
        near = self._near.setdefault(path.transport, {})
        if node not in near:
            self._greet(path.transport)
        missed_ms = MISSED_MAX * min(1_000 * beacon.again_s, AGAIN_FACTOR * self.again_ms(path.transport))
        if len(near) < NEIGHBOURS_MAX or node in near:
            near[node] = self._host.now_ms() + missed_ms
        self._on_heard(node, path, Heard(0 if is_quick(pace_of(path)) else missed_ms, beacon.told, path.transport))
