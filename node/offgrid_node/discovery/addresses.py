"""Which addresses to tell others when a node listens on all of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

import ifaddr

from offgrid_node.config.addresses import split_address

ADVERTISED_MAX = 8  # a peer tries them one after another; more would only make it slow
VIRTUAL_PREFIXES = ("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "lxc", "cni", "podman", "utun", "awdl")

Adapters = Callable[[], Iterable[ifaddr.Adapter]]
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def advertised(
    listen: str, advertise: Sequence[str] = (), *, adapters: Adapters = ifaddr.get_adapters
) -> tuple[str, ...]:
    """ "host:port" to tell peers, best first, at most ADVERTISED_MAX.

    `advertise` wins when it names any. Else `listen` itself; when that is 0.0.0.0 (or [::]) every IPv4 (or any)
    address of this machine with its port: real networks before virtual ones, link-local IPv4 after those (two
    machines on one cable have nothing else), loopback only when there is nothing else. Raises BadAddress.
    """
    if advertise:
        return tuple(advertise)[:ADVERTISED_MAX]
    host, port = split_address(listen, port_min=0)
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - it is recognised here, not bound
        return (join_address(host, port),)
    found = ranked_ips(adapters(), ip6=host == "::")
    return tuple(join_address(str(ip), port) for ip in found[:ADVERTISED_MAX])


def ip_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """The IP addresses among "host:port"s, without ports or names, each once: what mDNS can tell."""
    hosts = (split_address(address)[0] for address in addresses)
    return tuple(dict.fromkeys(host for host in hosts if _ip(host) is not None))


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ranked_ips(adapters: Iterable[ifaddr.Adapter], *, ip6: bool) -> list[Ip]:
    """This machine's addresses that another could reach it by, best first; loopback only when there is no other."""
    ranked: dict[Ip, tuple[int, int]] = {}
    for adapter in adapters:
        virtual = adapter.name.lower().startswith(VIRTUAL_PREFIXES)
        for found in adapter.ips:
            ip = _ip(found.ip if isinstance(found.ip, str) else found.ip[0])
            if ip is None or ip.is_unspecified or ip.is_multicast:
                continue
            if ip.version == 6 and (not ip6 or ip.is_link_local):  # IPv6 link-local means nothing on another machine
                continue
            rank = 3 if ip.is_loopback else 2 if ip.is_link_local else int(virtual)
            ranked.setdefault(ip, (rank, ip.version))
    best = sorted(ranked, key=lambda ip: ranked[ip])
    return [ip for ip in best if not ip.is_loopback] or best


def _ip(text: str) -> Ip | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
