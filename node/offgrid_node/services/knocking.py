"""The door on links: who knocks with an invite of this node's is told how to say hello, and then calls Join as anybody
may. What is told is sealed with the invite's secret, so it says nothing to others who listen.

A knock may be a recording. So answers to one invite's are further apart each time, all of them take a part in
DOOR_SHARE of a link's time at most, and they leave nothing untouched that is kept for what is more urgent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary

import msgspec

from offgrid_node.protocol.errors import PeerFault, PermissionDenied
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, unbase32
from offgrid_node.services.join import Seal
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.knocks import is_knock_of, read_knock, write_door
from offgrid_transports.path import Path
from offgrid_transports.transport import Priority, Transport

PUBLIC_BYTES = 32
APART_MS, APART_MS_MAX = 2_000, 16_000  # answers to one invite's knocks
CALM_MS = 600_000  # without a knock that was answered, after which they begin anew
DOOR_SHARE = 50
KNOWN_MAX = 256


class _Answered(msgspec.Struct, frozen=True):
    at_ms: float
    apart_ms: int


class Door:
    """`secret_of` gives an invite's secret, None for one that is none of this node's."""

    def __init__(
        self,
        endpoint: Endpoint,
        mesh_id: Callable[[], str],
        public: bytes,
        secret_of: Callable[[bytes], bytes | None],
        seal: Seal,
    ) -> None:
        self._endpoint, self._mesh_id, self._public = endpoint, mesh_id, public
        self._secret_of, self._seal = secret_of, seal
        self._answered: OrderedDict[bytes, _Answered] = OrderedDict()
        self._link_ms: WeakKeyDictionary[Transport, float] = WeakKeyDictionary()  # when it may be used for that again
        endpoint.on_knock = self._on_knock

    def _on_knock(self, path: Path, frame: bytes) -> None:
        invite, now_ms = read_knock(frame), self._endpoint.now_ms()
        secret = self._secret_of(invite) if invite is not None else None
        if invite is None or secret is None or not is_knock_of(secret, frame):
            return
        before, apart_ms = self._answered.get(invite), APART_MS
        if before is not None and now_ms < before.at_ms + CALM_MS:
            apart_ms = min(APART_MS_MAX, 2 * before.apart_ms)
        early = before is not None and now_ms < before.at_ms + before.apart_ms
        if early or now_ms < self._link_ms.get(path.transport, now_ms):
            return
        self._answered.pop(invite, None)
        self._answered[invite] = _Answered(now_ms, apart_ms)
        if len(self._answered) > KNOWN_MAX:
            self._answered.popitem(last=False)
        told = unbase32(self._mesh_id()) + self._public
        door = write_door(invite, self._seal(secret, door_context(invite), told))
        self._link_ms[path.transport] = now_ms + DOOR_SHARE * path.transport.airtime_ms(len(door))
        self._endpoint.spread(path.transport, door, Priority.JOB)


def door_context(invite: bytes) -> bytes:
    """The seal's context for what a door says."""
    return b"og.door.v1" + invite


def open_door(secret: bytes, invite: bytes, sealed: bytes, open_sealed: Seal) -> tuple[str, bytes]:
    """The mesh's id and the inviter's public key for links. Raises PeerFault (BadDoor)."""
    try:
        told = open_sealed(secret, door_context(invite), sealed)
    except PermissionDenied as fault:
        raise PeerFault("a door's answer is not under this invite's secret", reason="BadDoor") from fault
    if len(told) != NODE_ID_BYTES + PUBLIC_BYTES:
        raise PeerFault(f"a door's answer has {len(told)} bytes", reason="BadDoor")
    return base32(told[:NODE_ID_BYTES]), told[NODE_ID_BYTES:]
