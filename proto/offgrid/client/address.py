"""Where a node answers its own machine, and how that place is found.

A node's data folder holds `offgrid.sock` (a unix socket, mode 0600). Where there are none (Windows) it holds
`offgrid.token`, the secret that goes with each call, `offgrid.address`, the loopback "127.0.0.1:port" to call,
unless the config file names that in admin.address, and `offgrid.framed`, the same of the framed carrier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from offgrid.client.errors import OffgridError

SOCKET_NAME, CONFIG_NAME = "offgrid.sock", "offgrid.toml"
TOKEN_NAME, ADDRESS_NAME, FRAMED_NAME = "offgrid.token", "offgrid.address", "offgrid.framed"
SOCKET_PATH_BYTES_MAX = 103  # the least of the systems' sizes of sun_path, without its end (macOS)
FILE_BYTES_MAX = 1 << 20  # a config or token file larger than this is none
HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})\Z")
LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}|localhost|\[::1\]")


@dataclass(frozen=True, slots=True)
class Address:
    """A gRPC target of this machine, or the URL of a node's gateway; `token` is sent with each call unless it is ""."""

    target: str
    token: str = field(default="", repr=False)
    framed: str = ""
    """Where there are no unix sockets: "127.0.0.1:port" of the framed carrier, "" if the node has none."""


class NoNode(OffgridError):
    """No node was found; `tried` names every place that was looked at."""

    def __init__(self, tried: list[str]) -> None:
        places = "\n".join(f"  {place}" for place in dict.fromkeys(tried))
        super().__init__("UNAVAILABLE", "NoNode", f"no node was found on this machine. Looked at:\n{places}")
        self.tried = tuple(tried)

    @property
    def folder(self) -> Path | None:
        """Of a node that is to be in one of these places, and does not answer (yet)."""
        return next(filter(None, map(folder_near, self.tried)), None)


def folder_near(place: str) -> Path | None:
    """The node's folder that a socket or a config file of this path belongs to, if there is one."""
    return next((folder for folder in list(Path(place).parents)[:2] if (folder / CONFIG_NAME).is_file()), None)


def is_url(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def find(address: str | None = None, *, here: Path | None = None, home: Path | None = None) -> Address:
    """The address that `connect` describes. Raises NoNode, or OffgridError(INVALID_ARGUMENT) for an unusable one."""
    if address is not None and "://" in address and not address.startswith("unix:"):
        return _gateway(address)
    here, tried = here or Path.cwd(), list[str]()
    usual = (here / "data", here / CONFIG_NAME, (home or _home()) / ".offgrid" / "data")
    if address is None:
        places: Iterator[Address] = (found for place in usual for found in _look(place, tried))
    elif address.startswith("unix:"):
        path = address.removeprefix("unix:")
        places = _look(here / (path[2:] if path.startswith("///") else path), tried)
    elif match := HOST_PORT.match(address):
        return _loopback(address, match, [token for place in usual for token in _look(place, [])])
    else:
        places = _look(here / Path(address).expanduser(), tried)
    try:
        found = next(places, None)
        closed = next(filter(None, map(_closed, tried)), None) if found is None else None
    except PermissionError as error:
        found, closed = None, error.filename
    if closed is not None:
        text = f"{closed} is another user's of this machine, and so is a node there"
        raise OffgridError("PERMISSION_DENIED", "SocketDenied", text)
    if found is None:
        raise NoNode(tried)
    return found


def _closed(place: str) -> Path | None:
    """What keeps this user from seeing whether a node is there: a folder on the way to it, or its config."""
    above = list(Path(place).parents)
    config = next((each / CONFIG_NAME for each in above[:2] if (each / CONFIG_NAME).exists()), None)
    if config is not None and not _may(config, os.R_OK):
        return config
    return next((each for each in reversed(above[:3]) if each.is_dir() and not _may(each, os.X_OK)), None)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _gateway(url: str) -> Address:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        good = (
            is_url(url)
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or parts.username)
        )
    except ValueError:
        good = False
    if not good:
        text = f"{url} is no URL of a node's gateway; such is http://192.168.1.20:8001"
        raise OffgridError("INVALID_ARGUMENT", "BadUrl", text)
    return Address(url.rstrip("/"))


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry in the user database
        return Path()


def _loopback(address: str, match: re.Match[str], known: list[Address]) -> Address:
    if not LOOPBACK.fullmatch(match["host"]):
        raise OffgridError(
            "INVALID_ARGUMENT",
            "NotLocal",
            f"{address} is not on this machine; a node is administered over its socket or over 127.0.0.1 only",
        )
    return next((a for a in known if a.target == address), Address(address))


def _look(place: Path, tried: list[str]) -> Iterator[Address]:
    """What answers at a socket, by a config file, or in a folder that holds one of them."""
    if place.suffix == ".toml":
        yield from _by_config(place, tried)
    elif place.is_dir():
        yield from _in_folder(place, "", tried)
        if (place / CONFIG_NAME).is_file():
            yield from _by_config(place / CONFIG_NAME, tried)
    elif place.is_socket():
        yield _unix(place)
    else:
        tried.append(str(place))


def _in_folder(folder: Path, address: str, tried: list[str]) -> Iterator[Address]:
    """The socket of a data folder, or its token with `address` (else with the one that lies beside it)."""
    if (folder / SOCKET_NAME).is_socket():
        yield _unix(folder / SOCKET_NAME)
    else:
        tried.append(str(folder / SOCKET_NAME))
    token, address = _read(folder / TOKEN_NAME).strip(), address or _read(folder / ADDRESS_NAME).strip()
    if token and address:
        framed = _read(folder / FRAMED_NAME).strip()
        yield Address(address, token, framed if HOST_PORT.match(framed) else "")


def _by_config(path: Path, tried: list[str]) -> Iterator[Address]:
    import tomllib

    text = _read(path)
    if not text:
        tried.append(str(path))
        return
    try:
        config = tomllib.loads(text)
    except ValueError as error:
        tried.append(f"{path} (not TOML: {error})")
        return
    admin, folder = _text(config, "admin", "address"), path.parent / (_text(config, "node", "data_dir") or "data")
    if admin.startswith("unix:"):
        yield from _look(path.parent / admin.removeprefix("unix:"), tried)
    named = HOST_PORT.match(admin)  # port 0 is any free one: which, stands in the folder
    yield from _in_folder(folder, admin if named and int(named["port"]) else "", tried)


def _text(config: dict[str, object], table: str, key: str) -> str:
    section = config.get(table)
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, str) else ""


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(FILE_BYTES_MAX)
    except (OSError, ValueError):
        return ""


def _unix(path: Path) -> Address:
    """A relative spelling is used when the absolute path is longer than a socket's may be."""
    absolute = os.path.abspath(path)
    for spelling in (absolute, os.path.relpath(absolute)):
        if len(os.fsencode(spelling)) <= SOCKET_PATH_BYTES_MAX:
            return Address(f"unix:{spelling}")
    raise OffgridError(
        "INVALID_ARGUMENT",
        "SocketPathTooLong",
        f"{absolute} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may have",
    )
