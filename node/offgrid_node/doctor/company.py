"""How the members and this node see each other: who is away and why, who cannot come in, whose clock differs."""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ifaddr

from offgrid.v1.links_pb2 import PeerCheck
from offgrid.v1.mesh_pb2 import Peer
from offgrid.verdicts import away
from offgrid_node.config import split_address
from offgrid_node.config.http_ports import is_loopback
from offgrid_node.doctor.clock import NOTABLE_US, SET, off_by
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.lan import heard_here
from offgrid_node.doctor.live import is_removed, names_of, starting
from offgrid_node.doctor.meeting import Met, meet
from offgrid_node.doctor.subject import Subject

PROBED_MAX = 8
LOOPBACK_ALONE = "it tells no address but 127.0.0.1, which is each machine's own: it seems to be in no network"
CHECKED_S = 1.0
YOUNG_MS = 5_000  # a node that has just started has not been heard by all
BIG_PING = 1_372  # and its headers make 1,400 bytes, which all but few networks carry whole


def _members(subject: Subject) -> Iterator[Said]:
    others = [peer for peer in subject.peers if not peer.self]
    if not others:
        yield not_applicable("this mesh has no other member yet")
        return
    gone = away(others)
    if not gone or is_removed(subject):
        return
    with ThreadPoolExecutor(max_workers=PROBED_MAX) as threads:
        why = list(threads.map(lambda peer: _why_away(subject, peer), gone[:PROBED_MAX]))
    for peer, (sentence, remedy) in zip(gone, why, strict=False):
        say = fault if len(gone) == len(others) else warning
        yield say(f"{peer.member.name} is out of reach: {sentence}", remedy)
    if len(gone) > PROBED_MAX:
        yield warning(f"out of reach are {names_of(gone[PROBED_MAX:])}, too", subject.operator("peers"))


def _why_away(subject: Subject, peer: Peer) -> tuple[str, str]:
    """The best that is seen at its addresses, and what to type."""
    met = {address: meet(address) for address in peer.addresses[:2]}
    for kind in (Met.THERE, Met.NO_TLS, Met.OTHER, Met.NOBODY, Met.SILENCE):
        for address, (found, shown) in met.items():
            if found is not kind:
                continue
            host, port = split_address(address)
            remedy = {
                Met.NO_TLS: f"{command('ping', '-c', '3', '-M', 'do', '-s', BIG_PING, host)}   # if it answers, there: "
                "offgrid-node doctor",
                Met.SILENCE: f"{command('ping', '-c', '3', host)}   # if it answers, there: sudo ufw allow {port}/tcp",
            }.get(kind, starting(subject, peer))
            text = found.value
            if kind is Met.THERE and shown != peer.member.node_id and not peer.member.key_number:
                text = Met.OTHER.value
            if text == Met.OTHER.value and all(is_loopback(split_address(each)[0]) for each in peer.addresses):
                return LOOPBACK_ALONE, f"{command('ip', '-br', 'address')}   # on that machine"
            return f"{address}: {text}", remedy
    return "no address of it is known", starting(subject, peer)


def _checked(subject: Subject) -> tuple[PeerCheck, ...]:
    """Those that have answered."""
    told = subject.once("peer checks", lambda: subject.asked.links.check_peers(timeout_s=CHECKED_S).peers)
    return tuple(check for check in told if not check.trouble)


def _reached(subject: Subject) -> Iterator[Said]:
    checks = _checked(subject)
    if not checks:
        yield not_applicable("no other member answers")
        return
    shut_out = [check.name for check in checks if check.HasField("reaches_us") and not check.reaches_us]
    if not shut_out:
        return
    own = next((peer.addresses[0] for peer in subject.peers if peer.self and peer.addresses), "")
    port = split_address(own)[1] if own else 7440
    yield fault(
        f"{', '.join(shut_out[:4])} cannot call this node at {own or 'its mesh port'}, though it calls them: a "
        "firewall here drops what comes in",
        command("sudo", "ufw", "allow", f"{port}/tcp"),
    )


def _members_clocks(subject: Subject) -> Iterator[Said]:
    checks = [check for check in _checked(subject) if check.HasField("clock_ahead_us")]
    if not checks:
        yield not_applicable("no other member answers")
        return
    middle = statistics.median_low([check.clock_ahead_us for check in checks])
    if abs(middle) > NOTABLE_US:
        how = "behind" if middle > 0 else "ahead of"
        whose = "the members'" if len(checks) > 1 else f"that of {checks[0].name}"
        yield warning(f"this machine's clock is {off_by(middle)} {how} {whose}: which of them is right?", SET)
        return
    for check in checks:
        if abs(check.clock_ahead_us) > NOTABLE_US:
            how = "ahead of" if check.clock_ahead_us > 0 else "behind"
            there = f"{SET}   # at {check.name}"
            yield warning(f"the clock of {check.name} is {off_by(check.clock_ahead_us)} {how} this machine's", there)


def _heard(subject: Subject) -> Iterator[Said]:
    """By members in the same network, all of them: one alone may be deaf itself."""
    assert subject.status is not None
    near = _near(subject)
    checks = [check for check in _checked(subject) if check.node_id in near]
    if not subject.config.mesh.mdns or not checks or subject.status.uptime_ms < YOUNG_MS:
        yield not_applicable("no other member in this network answers, or nodes are not looked for by multicast")
        return
    here = heard_here(subject)
    if here is None or here.refused or not here.own:
        return  # said of this machine
    names, look = ", ".join(check.name for check in checks[:4]), command("offgrid-node", "doctor")
    if all(not check.heard for check in checks):
        yield warning(
            f"mDNS of {names} does not come in here, though they are in this network: is multicast held back by a "
            "switch, an access point (client isolation, IGMP snooping) or a firewall?",
            f"OFFGRID_MESH__PEERS={','.join(near.values())} {subject.node('run')}",
        )
    asked = [check for check in checks if check.HasField("hears_us")]
    if asked and all(not check.hears_us for check in asked):
        yield warning(
            f"mDNS of this node does not reach {names}, though they are in this network: is multicast held back by a "
            "switch, an access point (client isolation, IGMP snooping) or a firewall?",
            f"{look}   # there, too",
        )


def _near(subject: Subject) -> dict[str, str]:
    """Members with an address in a network of this machine: node id → that address."""
    networks = [
        ipaddress.ip_network(f"{found.ip}/{found.network_prefix}", strict=False)
        for adapter in ifaddr.get_adapters()
        for found in adapter.ips
        if isinstance(found.ip, str) and not found.ip.startswith("127.")
    ]
    near = dict[str, str]()
    for peer in subject.peers:
        for address in () if peer.self else peer.addresses:
            try:
                ip = ipaddress.ip_address(split_address(address)[0])
            except ValueError:
                continue
            if any(ip in network for network in networks):
                near.setdefault(peer.member.node_id, address)
    return near


CHECKS = (
    Check("members", "the other members are in reach", _members, Needs.RUNNING),
    Check("reached", "the other members reach this node", _reached, Needs.RUNNING),
    Check("clocks", "the members' clocks and this one agree", _members_clocks, Needs.RUNNING),
    Check("multicast", "members in this network hear each other by mDNS", _heard, Needs.RUNNING),
)
