"""Where a gateway listens that is told no address, which addresses only this machine can reach, and how long a secret
must be that is not guessed over them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress

AUTO, OFF = "auto", "off"  # besides addresses, of gateway.listen
PORTS_MORE = 20  # tried after the first
SECRET_CHARS_MIN = 16
_FIRST_PORTS = {"core": 8001, "host": 8081, "broker": 9000}  # as the prototype's scripts expect


def auto_ports(roles: Sequence[str]) -> range:
    """The ports that "auto" tries, in this order."""
    first = _FIRST_PORTS[roles[0]]
    return range(first, first + 1 + PORTS_MORE)


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine to itself alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower().rstrip(".") == "localhost"
