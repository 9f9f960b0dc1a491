"""The packet links of a node that runs: those of `[links]`, in asyncio's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from offgrid_node.keys import NodeKey, seal
from offgrid_node.node import Node
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.mesh.commands import BeaconHeard
from offgrid_node.protocol.mesh.invites import find_invite
from offgrid_node.services.beaconing import Heard
from offgrid_node.services.knocking import Door
from offgrid_node.services.ledger.heads_on_air import HeadsOnAir
from offgrid_node.services.packet_links import PacketLinks
from offgrid_node.services.packet_server import PacketServer
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.keep import FolderKeep
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.stamps import Stamps
from offgrid_transports.transport import BadSpec, LinkHost, TransportError

if TYPE_CHECKING:
    from offgrid_node.config import Config

INCARNATION_BYTES, DIGEST_BYTES = 6, 4
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux; elsewhere nothing tells runs of the machine apart


def links_of(config: Config, key: NodeKey, node: Callable[[], Node]) -> PacketLinks:
    """Not started yet: a road that reaches nobody."""
    host, relays = link_host(config.node.data_dir), config.links.relay
    return PacketLinks(key.exchange_secret(), key.node_id, lambda: node().directory, host, relays=relays)


def wall_ms() -> int:
    """Of the clock that people set."""
    return time.time_ns() // 1_000_000


def link_host(data_dir: Path) -> LinkHost:
    """What links are given in the running loop; they note the airtime that they use in that folder."""
    loop = asyncio.get_running_loop()

    def schedule(delay_ms: int, callback: Callable[[], object]) -> None:
        loop.call_later(delay_ms / 1000, callback)

    clock = ""
    with suppress(OSError):
        clock = BOOT_ID.read_text("ascii").strip()
    keep = FolderKeep(data_dir / "links")
    return LinkHost(SystemRandom(), schedule, lambda: time.monotonic_ns() // 1_000_000, keep=keep, clock=clock)


def start_links(config: Config, links: PacketLinks, node: Node, clock: Clock) -> None:
    """Raises FailedPrecondition (reason BadLink) for one that cannot be opened."""
    endpoint = meet(links, node, Stamps(wall_ms, links.host.keep))
    PacketServer(endpoint, node.router, node.member_by_id, clock)
    Door(endpoint, lambda: node.directory.mesh_id, links.public, lambda invite: invited(node, invite), seal)
    try:
        links.open(config.links.open, TransportRegistry.installed())
    except TransportError as error:
        raise FailedPrecondition(f"links.open: {error}", reason="BadLink") from error


def invited(node: Node, invite_id: bytes) -> bytes | None:
    """An invite's secret, while it may be used, and afterwards for the one that used it."""
    invite = find_invite(node.runtime.store, invite_id)
    return invite.secret if invite is not None else None


def meet(links: PacketLinks, node: Node, stamp: Callable[[], int]) -> Endpoint:
    """Starts a node's links: members find each other there, and find out where their ledgers differ."""
    host = links.host
    heads = HeadsOnAir(
        lambda: node.ledger,
        links.tell,
        lambda heard: node.runtime.deliver("ledger", heard),
        host.now_ms,
        host.schedule,
        host.rng,
    )

    def on_heard(peer: str, heard: Heard) -> None:
        with suppress(Fault):  # the node loads what it knows: the next one will be heard
            _hear(node, heads, peer, heard)

    links.on_said = heads.on_said
    return links.start(stamp, lambda: _told_of(node, heads), on_heard)


def _told_of(node: Node, heads: HeadsOnAir) -> bytes:
    """What beacons say of a node: its incarnation, the first bytes of its directory's digest, and its heads' mark.
    Nothing while its machines are loaded."""
    try:
        mesh = node.mesh.incarnation.to_bytes(INCARNATION_BYTES) + node.directory.digest()[:DIGEST_BYTES]
    except Fault:
        return b""
    return mesh + heads.mark()


def _hear(node: Node, heads: HeadsOnAir, peer: str, heard: Heard) -> None:
    """A member's beacon has come. Whom a call reaches at once is asked, whatever else is heard of it."""
    told, mark_at = heard.told.ljust(INCARNATION_BYTES, b"\0"), INCARNATION_BYTES + DIGEST_BYTES
    incarnation, digest = int.from_bytes(told[:INCARNATION_BYTES]), told[INCARNATION_BYTES:mark_at]
    lasts_ms = 0 if node.asks_quickly(peer) else heard.lasts_ms
    node.runtime.deliver("mesh", BeaconHeard(peer, incarnation, lasts_ms, digest))
    if lasts_ms:
        heads.on_mark(peer, heard.link, told[mark_at:])


def link_problems(config: Config) -> tuple[str, ...]:
    """What is wrong with the links' descriptions, as far as that is seen without opening them."""
    registry, problems = TransportRegistry.installed(), list[str]()
    for text in config.links.open:
        try:
            registry.check(text)
        except BadSpec as error:
            problems.append(f"links.open: {error}")
    return tuple(problems)
