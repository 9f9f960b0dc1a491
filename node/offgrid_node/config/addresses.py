"""Network addresses as the configuration has them: `host:port`, IPv6 in brackets, and gateways' HTTP URLs."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from .tree import Config

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - by what this machine reaches itself there
HOST_CHARS_MAX = 253
URL_CHARS_MAX = 2048
PORT_MAX = 65535
ADDRESS_RULE = "host:port, an IPv6 address in brackets, port 1 to 65535"
LISTEN_RULE = "host:port, an IPv6 address in brackets, port 0 (any free) to 65535"
URL_RULE = "an http:// or https:// URL without user, password, '?' and '#'"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?\Z")
_DOTTED_NUMBER = re.compile(r"[0-9.]+\Z")


class BadAddress(ValueError):
    """What is wrong with an address, and what may have been meant ("" when unknown)."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def split_address(text: str, *, port_min: int = 1) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port`; raises `BadAddress`."""
    if "://" in text:
        raise BadAddress("is a URL, not host:port", _if_good(_netloc(text), port_min))
    host, colon, port = text.rpartition(":")
    if text.startswith("["):
        if not host.endswith("]"):
            whole = text if text.endswith("]") else ""
            raise BadAddress("has no port behind ']'", _if_good(f"{whole}:7440", port_min))
        host = host[1:-1]
        _check_ip6(host)
    elif not colon:
        raise BadAddress("has no port", _if_good(f"{text}:7440", port_min))
    elif ":" in host:
        guess = _if_good(f"[{host}]:{port}" if _is_ip6(host) else f"[{text}]:7440", port_min)
        raise BadAddress("is an IPv6 address without brackets" if guess else "has more than one ':'", guess)
    else:
        check_host(host)
    return host, _port(port, port_min)


def check_host(host: str) -> None:
    """Raises `BadAddress` unless `host` is an IPv4 address or a name that DNS could hold."""
    if _DOTTED_NUMBER.match(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise BadAddress(f"has a bad IPv4 address '{host}'") from None
    elif not _HOST.match(host) or len(host) > HOST_CHARS_MAX:
        raise BadAddress("has no host" if not host else f"has a bad host name '{host}'")


def check_url(text: str) -> None:
    """Raises `BadAddress` unless `text` is a gateway's URL. The message never repeats a password."""
    if len(text) > URL_CHARS_MAX:
        raise BadAddress(f"is longer than {URL_CHARS_MAX} characters")
    if not text.isprintable() or any(char.isspace() for char in text):
        raise BadAddress("has spaces or unprintable characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadAddress("is not a URL that can be read") from None
    if "@" in parts.netloc:
        raise BadAddress("must not hold a user or password")
    if parts.scheme not in ("http", "https"):
        scheme_missing = "://" not in text and "@" not in text
        raise BadAddress("is not an HTTP URL", _if_good_url(f"http://{text}") if scheme_missing else "")
    if parts.query or parts.fragment:
        raise BadAddress("has a query or fragment")
    if port == 0:
        raise BadAddress("has port 0")
    host = parts.hostname or ""
    if ":" in host:
        _check_ip6(host)
    else:
        check_host(host)


def place_of(url: str) -> str:
    """Scheme, host and port: of many a service the path is what lets one in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _netloc(text: str) -> str:
    try:
        netloc = urlsplit(text).netloc
    except ValueError:
        return ""
    return "" if "@" in netloc else netloc


def _port(text: str, port_min: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise BadAddress(f"has a bad port '{text}'" if text else "has no port")
    port = int(text)
    if not port_min <= port <= PORT_MAX:
        raise BadAddress(f"has port {port}, out of range")
    return port


def _is_ip6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_ip6(host: str) -> None:
    if not _is_ip6(host):
        raise BadAddress(f"has a bad IPv6 address '{host}'")


def _if_good(guess: str, port_min: int) -> str:
    try:
        split_address(guess, port_min=port_min)
    except BadAddress:
        return ""
    return guess


def _if_good_url(guess: str) -> str:
    try:
        check_url(guess)
    except BadAddress:
        return ""
    return guess


def admin_socket(config: Config) -> Path | None:
    """The unix socket of local administration; None where it is a loopback port."""
    if config.admin.address:
        scheme, _, path = config.admin.address.partition("unix:")
        return None if scheme else Path(path)
    return None if sys.platform == "win32" else config.node.data_dir / "offgrid.sock"
