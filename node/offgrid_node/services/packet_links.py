"""A node's packet links: opened as its owner wants them, its peers found on them, calls in and out over them.

Members find each other there by beacons (beaconing.py). What gRPC reaches goes by gRPC; packet links are tried after
it. A member that no link reaches is looked for over others, and what others ask for is handed on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import Message
from msgspec.structs import replace
from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519
from nacl.exceptions import RuntimeError as SodiumError

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import NO_ROAD, Fault, Unavailable
from offgrid_node.protocol.mesh.quiet import is_quick
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.beaconing import Beaconing, Heard
from offgrid_node.services.client import Done
from offgrid_node.services.packet_road import PacketRoad, pace_of
from offgrid_transports.beacons import tag_of
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.path import Path
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.relay.frames import hop_of
from offgrid_transports.relay.link import WAYS
from offgrid_transports.relay.relay import Relay
from offgrid_transports.spending import Spent
from offgrid_transports.stamps import Newest
from offgrid_transports.tellings import Telling, read_telling, write_telling
from offgrid_transports.transport import BROADCAST, LinkHost, Priority, Transport, TransportError, own_link

_log = logging.getLogger(__name__)


class Roll(Protocol):
    """The members of the mesh."""

    revision: int

    @property
    def mesh_id(self) -> str: ...

    @property
    def mesh_tag(self) -> bytes: ...

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
        self._static = static_of(secret)
        self._public = self._static.public_key().public_bytes_raw()
        self._psk = b""
        self._endpoint: Endpoint | None = None
        self._relay: Relay | None = None
        self._road: PacketRoad | None = None
        self._transports: list[Transport] = []
        self._texts: dict[Transport, str] = {}
        self._beaconing: Beaconing | None = None
        self._revision = -1
        self._exchange: dict[bytes, bytes | None] = {}  # members' keys as X25519 knows them
        self._ids: dict[bytes, str] = {}
        self._publics: dict[str, bytes] = {}
        self._tags: dict[bytes, str] = {}
        self.on_said: Callable[[str, Transport, bytes], None] = lambda node, transport, said: None
        """A member has said something to all who hear that link. It may have been made up by whoever knows the mesh."""

    def start(
        self,
        stamp: Callable[[], int],
        told: Callable[[], bytes] = bytes,
        on_heard: Callable[[str, Heard], None] = lambda node, heard: None,
    ) -> Endpoint:
        """Once the mesh's members are known. `stamp` is a time in milliseconds that only rises, `told` what beacons say
        of this node, TOLD_BYTES_MAX at most; `on_heard` gets what a member's says."""
        self._tell_of, self._stamp, self._told = on_heard, stamp, Newest(stamp)
        self._psk = secret_of(self._roll().mesh_id)
        host = self._host
        endpoint = Endpoint(Own(self._static, self._psk), self._member_of, host.now_ms, host.schedule, host.rng, stamp)
        self._endpoint, self._road = endpoint, PacketRoad(endpoint)
        self._relay = Relay(
            endpoint,
            self._public,
            self._psk,
            host.now_ms,
            host.schedule,
            host.rng,
            hands_on=self._relays,
            is_member=lambda tag: self._node_of(tag) is not None,
        )
        endpoint.on_telling = self._on_telling
        self._beaconing = Beaconing(
            self._psk, tag_of(self._public), endpoint, host, stamp, told, self._node_of, self._on_heard
        )
        return endpoint

    def open(self, descriptions: Iterable[str], registry: TransportRegistry) -> None:
        """Behind `start`. Raises TransportError for one that cannot be opened; those before it are open then."""
        assert self._relay is not None
        host = replace(self._host, hello=mark_of(self._roll().mesh_tag) + tag_of(self._public))
        for text in descriptions:
            self.attach(registry.open(text, host), text, registry.price(text))
            _log.info("a link is opened", extra=fields("link_opened", link=text))

    def attach(self, transport: Transport, text: str, price: float | None = None) -> None:
        """A link that is open, `text` is its description; behind `start`."""
        assert self._relay is not None
        assert self._beaconing is not None
        self._transports.append(transport)
        self._texts[transport] = text
        self._relay.attach(transport, price)
        self._beaconing.begin(transport)

    def close(self) -> None:
        if self._beaconing is not None:
            self._beaconing.close()
        endpoint, self._endpoint, self._road = self._endpoint, None, None
        if self._relay is not None:
            self._relay.close()
        if endpoint is not None:
            endpoint.close()

    def tell(self, transport: Transport, said: bytes) -> None:
        """Says so to all who hear that link, when nothing more urgent is to be said; SAID_BYTES_MAX at most."""
        if self._endpoint is not None:
            frame = write_telling(self._psk, Telling(tag_of(self._public), self._stamp(), said))
            self._endpoint.spread(transport, frame, Priority.BULK)

    # ---- what there is

    @property
    def public(self) -> bytes:
        """This node's key on links."""
        return self._public

    @property
    def host(self) -> LinkHost:
        """What its links are given."""
        return self._host

    @property
    def endpoint(self) -> Endpoint | None:
        """None before the start, and at the end."""
        return self._endpoint

    @property
    def opened(self) -> Mapping[Transport, str]:
        """The links and how `[links]` describes them, in the order they were opened."""
        return self._texts

    def via(self, transport: Transport) -> str:
        """How `[links]` describes a link; of a way over others who they are."""
        if (text := self._texts.get(transport)) is not None:
            return text
        node = self._relay.node_behind(transport) if self._relay is not None else None
        member = next((each for tag, each in self._tags.items() if tag.startswith(node)), "") if node else ""
        hops = self.hops_to(member)
        return "a link that is gone" if node is None else "over " + ("others" if hops is None else ", ".join(hops))

    def spent(self, transport: Transport, now_ms: float) -> Spent:
        """Whom that link's time has gone to in the last hour. Frames that were handed on count for the neighbour from
        whom they came, as `relayed for` and its id."""
        assert self._endpoint is not None
        assert self._relay is not None
        self._learn()
        found: Spent = dict(self._endpoint.spending(transport).last_hour(now_ms))
        for (who, priority), air_ms in self._relay.spending(transport).last_hour(now_ms).items():
            key = self._whose(who), priority
            found[key] = found.get(key, 0.0) + air_ms
        return found

    def _whose(self, who: str) -> str:
        """A member's id in the place of what relays call it."""
        before, _, name = who.rpartition(" ")
        known = (member for tag, member in self._tags.items() if tag.hex().startswith(name))
        return who if who == WAYS else f"{before} {next(known, '?')}".strip()

    # ---- as a road

    @property
    def name(self) -> str:
        return "links"

    @property
    def kin(self) -> str:
        return "links"

    def ready(self, node: str) -> bool:
        return self._road is not None and self._road.ready(node)

    def reaches(self, node: str) -> bool:
        """By a link, or perhaps over others."""
        if self._endpoint is None:
            return False
        return self._endpoint.reaches(node) or self._over_others(node) is not None

    def pace(self, node: str) -> Pace:
        """Of the road there; of one that is to be looked for over others that of the slowest link."""
        if self._endpoint is None or self._beaconing is None:
            return FREE
        path = self._endpoint.path_to(node)
        if path is not None:
            own = own_link(path.transport)
            over = self._relay.over(own) if self._relay is not None else 0
            return replace(pace_of(path), peers=max(1, self._beaconing.near(own) + over))
        if self._over_others(node) is None:
            return FREE
        paces = [pace_of(Path(transport, BROADCAST)) for transport in self._transports if transport.up]
        return max(paces, key=lambda pace: pace.byte_us, default=FREE)

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
        assert self._beaconing is not None
        roads = self._endpoint.roads(node)
        if self._beaconing.hears(node) or any(road.usable for road in roads):
            return  # a channel on which many speak at once brings no word for a while either
        links = [transport for transport in self._transports if transport.up]
        if links and all(map(self._beaconing.begins, links)):
            return  # it may be in reach
        if (public := self._over_others(node)) is not None:
            with suppress(TransportError):
                self._endpoint.learn(node, public, self._relay.path_to(public))

    # ---- members

    def _member_of(self, public: bytes) -> str | None:
        self._learn()
        return self._ids.get(public)

    def _learn(self) -> None:
        """The keys of all members in the form that handshakes have them in, when there is another one. While the node
        loads what it knows they are those of before."""
        try:
            roll = self._roll()
        except Fault:
            return
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

    def _node_of(self, tag: bytes) -> str | None:
        self._learn()
        node = self._tags.get(tag)
        return node if node != self._node_id else None

    def _on_heard(self, node: str, path: Path, heard: Heard) -> None:
        endpoint = self._endpoint
        if endpoint is None:
            return
        endpoint.learn(node, self._publics[node], path)
        self._tell_of(node, heard)

    def _on_telling(self, path: Path, frame: bytes) -> None:
        if is_quick(pace_of(path)):
            return  # nobody says such things there, and whoever makes them up could have this node do nothing else
        telling = read_telling(self._psk, frame)
        node = self._node_of(telling.tag) if telling is not None else None
        if telling is not None and node is not None and self._told.is_new(self._host.now_ms(), node, telling.stamp):
            self.on_said(node, path.transport, telling.said)


def static_of(secret: bytes) -> X25519PrivateKey:
    """A node's key on links, from its secret as X25519 knows it."""
    return X25519PrivateKey.from_private_bytes(secret)


def mark_of(mesh_tag: bytes) -> bytes:
    """What links with advertisements show, so that those of one mesh connect; who is invited knows the tag."""
    return tag_of(mesh_tag)


def secret_of(mesh_id: str) -> bytes:
    """What only those know who know the mesh."""
    return hashlib.blake2s(mesh_id.encode(), person=b"og.psk").digest()


def exchange_key(key: bytes) -> bytes | None:
    """An Ed25519 public key in its Montgomery form (RFC 7748); None for one that has none."""
    try:
        return bytes(crypto_sign_ed25519_pk_to_curve25519(key))
    except (SodiumError, ValueError):
        return None
