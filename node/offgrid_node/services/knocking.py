"""The door on links: who knocks with an invite of this node's is told how to say hello, and then calls Join as anybody
may. What is told is sealed with the invite's secret, so it says nothing to others who listen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from offgrid_node.protocol.errors import PeerFault, PermissionDenied
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, unbase32
from offgrid_node.services.join import Seal
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.knocks import read_knock, write_door
from offgrid_transports.path import Path

PUBLIC_BYTES = 32
APART_MS = 2_000  # answers to one invite's knocks
KNOWN_MAX = 256


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
        self._answered_ms: OrderedDict[bytes, float] = OrderedDict()
        endpoint.on_knock = self._on_knock

    def _on_knock(self, path: Path, frame: bytes) -> None:
        invite, now_ms = read_knock(frame), self._endpoint.now_ms()
        secret = self._secret_of(invite) if invite is not None else None
        if invite is None or secret is None or now_ms < self._answered_ms.get(invite, now_ms - APART_MS) + APART_MS:
            return
        self._answered_ms[invite] = now_ms
        if len(self._answered_ms) > KNOWN_MAX:
            self._answered_ms.popitem(last=False)
        told = unbase32(self._mesh_id()) + self._public
        self._endpoint.broadcast(path.transport, write_door(invite, self._seal(secret, door_context(invite), told)))


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
