"""A node's packet links: opened as its owner wants them, its peers found on them, calls in and out over them.

A node says in beacons where it is: when a link comes up, when a neighbour comes, and now and then; on a slow link more
seldom, so that beacons take a five-hundredth of its time at most. What gRPC reaches goes by gRPC; packet links are
tried after it. A member that no link reaches is looked for over others, and what others ask for is handed on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import Message
from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519
from nacl.exceptions import RuntimeError as SodiumError

from offgrid_node.protocol.errors import NO_ROAD, Unavailable
from offgrid_node.services.client import Done
from offgrid_node.services.packet_road import PacketRoad
from offgrid_transports.beacons import BEACON_BYTES, Beacon, read_beacon, tag_of, write_beacon
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.path import Path
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.relay.frames import hop_of
from offgrid_transports.relay.relay import Relay
from offgrid_transports.transport import BadSpec, LinkHost, Transport, TransportError

BEACON_MS = 10_000
BEACON_SHARE = 500  # of a link's time one part is theirs

_log = logging.getLogger(__name__)


class Roll(Protocol):
    """The members of the mesh."""

    revision: int

    @property
    def mesh_id(self) -> str: ...

    def all_ids(self) -> list[str]: ...

    def is_member(self, node_id: str) -> bool: ...

    def current_key(self, node_id: str) -> bytes | None: ...


class PacketLinks:
    """A `services.client.Road`, which reaches nobody before it is started. Belongs to the runtime's thread."""

    def __init__(
        self, secret: bytes, node_id: str, roll: Callable[[], Roll], host: LinkHost, *, relays: bool = True
    ) -> None:
        """`secret` is the node's key as X25519 knows it; `host` is what its links are given; `relays`: for others."""
        self._node_id, self._roll, self._host, self._relays = node_id, roll, host, relays
        self._static = X25519PrivateKey.from_private_bytes(secret)
        self._public = self._static.public_key().public_bytes_raw()
        self._psk = b""
        self._endpoint: Endpoint | None = None
        self._relay: Relay | None = None
        self._road: PacketRoad | None = None
        self._transports: list[Transport] = []
        self._texts: dict[Transport, str] = {}
        self._said_ms: dict[int, int] = {}  # the last beacon, by the place of its link
        self._revision = -1
        self._exchange: dict[bytes, bytes | None] = {}  # members' keys as X25519 knows them
        self._ids: dict[bytes, str] = {}
        self._publics: dict[str, bytes] = {}
        self._tags: dict[bytes, str] = {}

    def start(self, stamp: Callable[[], int]) -> Endpoint:
        """Once the mesh's members are known. `stamp` is a time in milliseconds that only rises."""
        self._stamp, self._psk = stamp, secret_of(self._roll().mesh_id)
        host = self._host
        endpoint = Endpoint(Own(self._static, self._psk), self._member_of, host.now_ms, host.schedule, host.rng, stamp)
        endpoint.on_beacon, endpoint.on_change = self._on_beacon, self._on_change
        self._endpoint, self._road = endpoint, PacketRoad(endpoint)
        self._relay = Relay(
            endpoint, self._public, self._psk, host.now_ms, host.schedule, host.rng, hands_on=self._relays
        )
        self._beacons()
        return endpoint

    def open(self, descriptions: Iterable[str], registry: TransportRegistry) -> None:
        """Behind `start`. Raises TransportError for one that cannot be opened; those before it are open then."""
        assert self._relay is not None
        host = replace(self._host, hello=tag_of(self._psk) + tag_of(self._public))
        for text in descriptions:
            price, transport = registry.price(text), registry.open(text, host)
            if transport.shared:
                transport.close()
                raise BadSpec(f"{text}: nodes do not use radio channels yet: they say too much to each other")
            self._transports.append(transport)
            self._texts[transport] = text
            self._relay.attach(transport, price)
            self._said_ms[len(self._transports) - 1] = host.now_ms() - BEACON_MS
            self._say(len(self._transports) - 1, transport)
            _log.info("link %s", text)

    def close(self) -> None:
        endpoint, self._endpoint, self._road = self._endpoint, None, None
        if self._relay is not None:
            self._relay.close()
        if endpoint is not None:
            endpoint.close()

    # ---- what there is

    @property
    def endpoint(self) -> Endpoint | None:
        """None before the start, and at the end."""
        return self._endpoint

    @property
    def opened(self) -> Mapping[Transport, str]:
        """The links and how `[links]` describes them, in the order they were opened."""
        return self._texts

    # ---- as a road

    @property
    def name(self) -> str:
        return "links"

    def ready(self, node: str) -> bool:
        return self._road is not None and self._road.ready(node)

    def reaches(self, node: str) -> bool:
        """By a link, or perhaps over others."""
        if self._endpoint is None:
            return False
        return self._endpoint.reaches(node) or self._over_others(node) is not None

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        if self._road is None:
            done(Unavailable(f"no packet link leads to {node}", reason=NO_ROAD))
        else:
            self._look_further(node)
            self._road.call(node, method, request, timeout_ms, done)

    def hops_to(self, node: str) -> list[str] | None:
        """The members on the way over others that is known, `?` for one that is none; None without such a way."""
        self._learn()
        public = self._publics.get(node)
        hops = self._relay.hops_to(public) if self._relay is not None and public is not None else None
        names = {hop_of(tag): member for tag, member in self._tags.items()}
        return None if hops is None else [names.get(hop, "?") for hop in hops]

    def _over_others(self, node: str) -> bytes | None:
        """The public key of a member to whom others may lead."""
        self._learn()
        public = self._publics.get(node) if node != self._node_id else None
        known = public is not None and self._relay is not None and self._relay.may_reach(public)
        return public if known else None

    def _look_further(self, node: str) -> None:
        """Where no link brings word of a member, others may."""
        assert self._endpoint is not None
        assert self._relay is not None
        if any(road.usable for road in self._endpoint.roads(node)):
            return
        if (public := self._over_others(node)) is not None:
            with suppress(TransportError):
                self._endpoint.learn(node, public, self._relay.path_to(public))

    # ---- members

    def _member_of(self, public: bytes) -> str | None:
        self._learn()
        return self._ids.get(public)

    def _learn(self) -> None:
        """The keys of all members in the form that handshakes have them in, when there is another one."""
        roll = self._roll()
        if roll.revision == self._revision:
            return
        before, self._exchange, self._publics = self._exchange, {}, {}
        for node_id in roll.all_ids():
            key = roll.current_key(node_id) if roll.is_member(node_id) else None
            if key is None:
                continue
            public = before[key] if key in before else exchange_key(key)
            self._exchange[key] = public
            if public is not None:
                self._publics[node_id] = public
        self._ids = {public: node_id for node_id, public in self._publics.items()}
        self._tags = {tag_of(public): node_id for node_id, public in self._publics.items()}
        self._revision = roll.revision

    # ---- beacons

    def _beacons(self) -> None:
        if self._endpoint is None:
            return
        for place, transport in enumerate(self._transports):
            often_ms = max(BEACON_MS, BEACON_SHARE * transport.airtime_ms(BEACON_BYTES))
            if self._host.now_ms() - self._said_ms[place] >= often_ms:
                self._say(place, transport)
        self._host.schedule(BEACON_MS, self._beacons)

    def _on_change(self, transport: Transport) -> None:
        if transport in self._transports:
            self._say(self._transports.index(transport), transport)

    def _say(self, place: int, transport: Transport) -> None:
        if self._endpoint is not None and transport.up:
            self._said_ms[place] = self._host.now_ms()
            self._endpoint.broadcast(transport, write_beacon(self._psk, Beacon(tag_of(self._public), self._stamp())))

    def _on_beacon(self, path: Path, frame: bytes) -> None:
        beacon = read_beacon(self._psk, frame)
        self._learn()
        node = self._tags.get(beacon.tag) if beacon is not None else None
        endpoint = self._endpoint
        if node is None or node == self._node_id or endpoint is None:
            return
        endpoint.learn(node, self._publics[node], path)


def secret_of(mesh_id: str) -> bytes:
    """What only those know who know the mesh."""
    return hashlib.blake2s(mesh_id.encode(), person=b"og.psk").digest()


def exchange_key(key: bytes) -> bytes | None:
    """An Ed25519 public key in its Montgomery form (RFC 7748); None for one that has none."""
    try:
        return bytes(crypto_sign_ed25519_pk_to_curve25519(key))
    except (SodiumError, ValueError):
        return None
