"""The local network: whether this machine has one, whether multicast passes, and whether somebody else is this node."""

from __future__ import annotations

import re
import secrets
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr
import msgspec

from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import join_address, ranked_ips
from offgrid_node.discovery.hosts_file import HostsFile
from offgrid_node.doctor.findings import Check, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.meeting import meet
from offgrid_node.doctor.names import by_ip
from offgrid_node.doctor.subject import Subject
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.protocol.ids import node_id_of

GROUP, MDNS_PORT = "224.0.0.251", 5353
LISTEN_S, AGAIN_S = 1.0, 0.3
PACKET_BYTES_MAX = 9_000
HEARD_MAX = 256
NAME = b"\x08_offgrid\x04_tcp\x05local\x00"
PTR, IN = 12, 1
TXT_ID, TXT_PORT = re.compile(rb"id=([a-z2-7]{32})"), re.compile(rb"port=([0-9]{1,5})")
PEEKS_MAX = 16
FIREWALL = "sudo ufw allow 5353/udp"  # the one that most machines have; `iptables -I INPUT` says it elsewhere


class Heard(msgspec.Struct):
    """What came back of a question sent by multicast. Addresses are IPs."""

    own: bool = False
    refused: str = ""
    nodes: dict[str, set[str]] = msgspec.field(default_factory=dict)
    """node id → "host:port" of its mesh port."""


def ask_by_multicast(addresses: list[str], listen_s: float = LISTEN_S) -> Heard:
    """Asks who is there (RFC 6762) at each of this machine's addresses, and hears itself where multicast passes. Raises
    OSError where nothing can be sent at all."""
    heard = Heard()
    question = secrets.token_bytes(2) + struct.pack("!5H", 0, 1, 0, 0, 0) + NAME + struct.pack("!2H", PTR, IN)
    with ExitStack() as stack:
        ear = stack.enter_context(_socket())
        ear.bind(("", MDNS_PORT))
        for address in addresses:
            ear.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(address)
            )
        ends = time.monotonic() + listen_s
        ask_at = 0.0
        while (now := time.monotonic()) < ends:
            if now >= ask_at:
                _ask(question, addresses, heard)
                ask_at = now + AGAIN_S
            ready, _, _ = select.select([ear], [], [], max(0.0, min(ends, ask_at) - now))
            if ready:
                packet, (source, _) = ear.recvfrom(PACKET_BYTES_MAX)
                _take(packet, source, question, heard)
    return heard


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def _ask(question: bytes, addresses: list[str], heard: Heard) -> None:
    for address in addresses:
        with _socket() as mouth:
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            try:
                mouth.bind(("", MDNS_PORT))  # answers to questions from elsewhere come by unicast
                mouth.sendto(question, (GROUP, MDNS_PORT))
            except OSError as error:
                heard.refused = error.strerror or str(error)


def _take(packet: bytes, source: str, question: bytes, heard: Heard) -> None:
    if packet == question:
        heard.own = True
        return
    found, port = TXT_ID.search(packet), TXT_PORT.search(packet)
    if found and port and len(heard.nodes) < HEARD_MAX:
        address = join_address(source, int(port[1]))
        heard.nodes.setdefault(found[1].decode(), set()).add(address)


def own_ips() -> list[str]:
    """IPv4, without loopback where there is anything else."""
    return [str(ip) for ip in ranked_ips(ifaddr.get_adapters(), ip6=False)]


def _network(subject: Subject) -> Iterator[Said]:
    listen, ips = split_address(subject.config.mesh.listen, port_min=0)[0], own_ips()
    only_loopback = all(ip.startswith("127.") for ip in ips)
    if only_loopback and not listen.startswith("127.") and listen != "::1":
        yield warning("this machine is in no network: no other machine can reach it", command("ip", "address"))


def heard_here(subject: Subject) -> Heard | None:
    """What multicast brings at this machine; None where it is in no network or mDNS is off."""
    ips = [ip for ip in own_ips() if not ip.startswith("127.")]
    return subject.once("mdns", lambda: ask_by_multicast(ips)) if ips and subject.config.mesh.mdns else None


def _mdns(subject: Subject) -> Iterator[Said]:
    if not subject.config.mesh.mdns:
        yield not_applicable("mesh.mdns = false: nodes are not looked for by multicast")
        return
    heard = heard_here(subject)
    if heard is None:
        yield not_applicable("this machine is in no network")
        return
    if heard.refused:
        yield fault(f"mDNS cannot be sent, so nobody finds this node by itself: {heard.refused}", FIREWALL)
    elif not heard.own:
        yield fault(
            "mDNS is not let in (UDP port 5353, IPv4): this node finds nobody by itself, or by IPv6 alone", FIREWALL
        )


def _hosts_file(subject: Subject) -> Iterator[Said]:
    path = subject.config.mesh.hosts_file
    if not path.exists():
        yield not_applicable(f"there is no {path.name}")
        return
    try:
        HostsFile(path).entries()
    except InvalidRequest as error:
        yield fault(error.message, command("python3", "-m", "json.tool", path))


def _identity(subject: Subject) -> Iterator[Said]:
    """Whoever shows this node's key somewhere else is a copy of its folder."""
    try:
        key = NodeKey.load(subject.folder.keys_path)
    except Fault:
        yield not_applicable("this node's key cannot be read")
        return
    heard = heard_here(subject) or Heard()
    places = [*subject.config.mesh.peers, *heard.nodes.get(key.node_id, ())]
    places += [address for peer in subject.peers if peer.self for address in peer.addresses] if subject.status else []
    ips, ports = ranked_ips(ifaddr.get_adapters(), ip6=True), _own_ports(subject)
    others = (place for place in dict.fromkeys(by_ip(subject, places)) if not _is_here(place, ips, ports))
    asked = [place for place in others if place not in subject.config.mesh.advertise][:PEEKS_MAX]
    with ThreadPoolExecutor(max_workers=PEEKS_MAX) as threads:
        shown = [fingerprint for _, fingerprint in threads.map(meet, asked)]
    mine = node_id_of(key.public_key)
    for place, fingerprint in zip(asked, shown, strict=True):
        if fingerprint == mine:
            yield fault(
                f"another process is this very node, at {place}: was its folder copied? Stop one of them, and give "
                "that machine an identity of its own",
                command("offgrid-node", "join", "TOKEN", "--dir", "ANOTHER-FOLDER"),
            )


def _is_here(place: str, ips: Collection[IPv4Address | IPv6Address], ports: Collection[int]) -> bool:
    """Whether this machine itself is behind the "ip:port", and the node. 127.0.1.1 is many a machine's own name."""
    host, port = split_address(place)
    ip = ip_address(host.partition("%")[0])
    return port in ports and (ip.is_loopback or ip in ips)


def _own_ports(subject: Subject) -> list[int]:
    """On which the node listens, as far as is known here."""
    ports = [split_address(subject.config.mesh.listen, port_min=0)[1]]
    if subject.status is not None:
        ports += [split_address(address)[1] for peer in subject.peers if peer.self for address in peer.addresses]
    return ports


CHECKS = (
    Check("network", "this machine is in a network", _network),
    Check("mdns", "questions by multicast leave this machine and come in", _mdns),
    Check("hosts-file", "mesh.hosts_file can be read", _hosts_file),
    Check("identity", "nobody else is this node", _identity),
)
