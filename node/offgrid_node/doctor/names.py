"""Names of machines that the config has, and which addresses they have by DNS or the system's own table."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.doctor.findings import Check, Said, command, fault, not_applicable
from offgrid_node.doctor.subject import Subject

ANSWER_S = 1.5  # a server that is out of reach keeps a question for much longer
NAMES_MAX = 32

Ask = Callable[[str], Iterable[str]]


def ips_of(name: str) -> list[str]:
    """Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def resolve(names: Iterable[str], ask: Ask = ips_of, answer_s: float = ANSWER_S) -> Mapping[str, tuple[str, ...]]:
    """What each name has; those without, or without an answer in time, are not in it. Who hangs is left behind."""
    found = dict[str, tuple[str, ...]]()

    def look(name: str) -> None:
        with suppress(OSError, UnicodeError):
            found[name] = tuple(ask(name))

    ends = time.monotonic() + answer_s
    threads = [
        threading.Thread(target=look, args=(name,), daemon=True) for name in list(dict.fromkeys(names))[:NAMES_MAX]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return {name: ips for name, ips in list(found.items()) if ips}


def by_ip(subject: Subject, places: Iterable[str]) -> Iterator[str]:
    """ "host:port"s with the first address of each name; names that have none are left out."""
    for place in places:
        host, port = split_address(place)
        ips = (host,) if _is_ip(host) else _known(subject).get(host, ())
        yield from (join_address(ip, port) for ip in ips[:1])


def _known(subject: Subject) -> Mapping[str, tuple[str, ...]]:
    return subject.once("names", lambda: resolve(_names(subject)))


def _names(subject: Subject) -> list[str]:
    """Each once, and no more of them than are asked for."""
    hosts = (split_address(each)[0] for each in subject.config.mesh.peers)
    return list(dict.fromkeys(host for host in hosts if not _is_ip(host)))[:NAMES_MAX]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _peers(subject: Subject) -> Iterator[Said]:
    names = _names(subject)
    if not names:
        yield not_applicable("mesh.peers has no names")
        return
    for name in names:
        if name not in _known(subject):
            yield fault(
                f"mesh.peers: {name} has no address (no answer of DNS, or none that knows it): is it mistyped?",
                command("getent", "hosts", name),
            )


CHECKS = (Check("names", "the names in mesh.peers have addresses", _peers),)
