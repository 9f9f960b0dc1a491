"""What an mDNS announcement says, taken with caution: bounded, cleaned and rationed. Pure.

Anybody in the local network can announce anything, thousands of times a second; so at most HINTS_MAX are remembered
and the node is told of new ones at a bounded rate.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from offgrid_node.discovery.addresses import join_address
from offgrid_node.protocol.ids import NODE_ID

MESH_TAG_BYTES = 8
HINTS_MAX = 256
TOLD_BURST = 32
TOLD_PER_S = 4.0
ADDRESSES_MAX = 8  # of one hint
TXT_VALUE_BYTES_MAX = 64
NAME_CHARS_MAX = 63
SHORT_ID_CHARS = 8

_UNCLEAN = re.compile(r"[^a-z0-9-]+")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,32}\Z")


class Hint(msgspec.Struct, frozen=True):
    """Somebody says that this node is there. `addresses` are IP addresses, `door_port` is None when it is closed."""

    node_id: str
    mesh_tag: bytes
    addresses: tuple[str, ...]
    mesh_port: int
    door_port: int | None = None
    name: str = ""
    version: str = ""

    @property
    def mesh_addresses(self) -> tuple[str, ...]:
        """ "host:port" of its mesh port."""
        return tuple(join_address(ip, self.mesh_port) for ip in self.addresses)

    def txt(self) -> dict[str, str]:
        """The announcement's TXT record."""
        door = {"door": str(self.door_port)} if self.door_port else {}
        return {"mesh": self.mesh_tag.hex(), "id": self.node_id, "port": str(self.mesh_port), "v": self.version, **door}

    @property
    def label(self) -> str:
        """The instance name under which it is announced: its name and the beginning of its id."""
        return f"{clean_name(self.name)[: NAME_CHARS_MAX - SHORT_ID_CHARS - 1]}-{self.node_id[:SHORT_ID_CHARS]}"


def clean_name(name: str) -> str:
    """What a stranger calls itself, cut down to letters, digits and hyphens; "node" when nothing is left."""
    return _UNCLEAN.sub("-", name[: 4 * NAME_CHARS_MAX].lower()).strip("-")[:NAME_CHARS_MAX] or "node"


def read_hint(label: str, txt: Mapping[bytes, bytes | None], addresses: Iterable[str]) -> Hint | None:
    """The hint that an announcement holds, or None when it holds none that could be used."""
    if any(value is not None and len(value) > TXT_VALUE_BYTES_MAX for value in txt.values()):
        return None
    fields = {key: (txt.get(key) or b"").decode("ascii", "replace") for key in (b"mesh", b"id", b"port", b"door", b"v")}
    tag, mesh_port = _tag(fields[b"mesh"]), _port(fields[b"port"])
    usable = _usable(addresses)
    if tag is None or mesh_port is None or not usable or not NODE_ID.match(fields[b"id"]):
        return None
    name, dash, short = label[: 4 * NAME_CHARS_MAX].rpartition("-")
    own = dash and fields[b"id"].startswith(short.lower())
    version = fields[b"v"] if _VERSION.match(fields[b"v"]) else ""
    door_port = _port(fields[b"door"])
    return Hint(fields[b"id"], tag, usable, mesh_port, door_port, clean_name(name if own else label), version)


class HintBook:
    """What was heard of one mesh, by the name under which it was announced; the longest unheard is forgotten first."""

    def __init__(self, mesh_tag: bytes, self_id: str = "") -> None:
        self._mesh_tag = mesh_tag
        self._self_id = self_id
        self._hints: OrderedDict[str, Hint] = OrderedDict()
        self._tokens = float(TOLD_BURST)
        self._filled_ms = 0

    @property
    def hints(self) -> tuple[Hint, ...]:
        """What is remembered, the latest heard last."""
        return tuple(self._hints.values())

    def take(self, now_ms: int, label: str, hint: Hint) -> bool:
        """True when this is news of this mesh, remembered now. What exceeds the rate is not: it may come again."""
        if hint.mesh_tag != self._mesh_tag or hint.node_id == self._self_id:
            return False
        if self._hints.get(label) == hint:
            self._hints.move_to_end(label)
            return False
        passed_ms = max(0, now_ms - self._filled_ms)
        self._tokens = min(float(TOLD_BURST), self._tokens + passed_ms * TOLD_PER_S / 1000)
        self._filled_ms = max(now_ms, self._filled_ms)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._hints[label] = hint
        self._hints.move_to_end(label)
        if len(self._hints) > HINTS_MAX:
            self._hints.popitem(last=False)
        return True

    def forget(self, label: str) -> None:
        """It said goodbye; should it come back, that is news."""
        self._hints.pop(label, None)


def _tag(text: str) -> bytes | None:
    if len(text) != 2 * MESH_TAG_BYTES or not re.fullmatch(r"[0-9a-f]+", text):
        return None
    return bytes.fromhex(text)


def _port(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,4}", text, re.ASCII) and int(text) <= 65_535 else None


def _usable(addresses: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in addresses:
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            continue
        if ip.is_multicast or ip.is_unspecified or ip == ipaddress.IPv4Address("255.255.255.255"):
            continue
        if ip.version == 6 and ip.is_link_local:
            continue
        found[str(ip)] = None
        if len(found) == ADDRESSES_MAX:
            break
    return tuple(found)
