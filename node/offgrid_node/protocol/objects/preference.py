"""Which of several hosts is to be preferred: the three policies of placement, and who gets nothing new at all.

`balanced` is weighted rendezvous hashing (Schindelhauer and Schomaker 2005; Thaler and Ravishankar 1998 with equal
weights): a host's share of all objects is its share of the room, and a host more or less moves no others. `latency` and
`bandwidth` take hosts by what was measured of them, in steps of a factor of two: those of one step are alike, and share
what comes as in `balanced`, so that noise decides nothing and no host is asked for everything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from enum import StrEnum
from statistics import median_low

import msgspec

NEAR_MS = 4  # within it all hosts are equally near: what is measured there is this machine's own scheduling


class Policy(StrEnum):
    """What is preferred among hosts that fail apart equally well."""

    BALANCED = "balanced"
    LATENCY = "latency"
    BANDWIDTH = "bandwidth"


class Refusal(StrEnum):
    """Why a host gets nothing new."""

    NOT_ALIVE = "not alive"
    NOT_CHOSEN = "not chosen"
    STORAGE_OFF = "storage off"
    DRAINED = "drained"
    NO_ROOM = "no room"


class Facts(msgspec.Struct, frozen=True):
    """What a host said of itself to this node as an owner, and what was measured on the way; None is not known.

    `room_bytes` is what it would still take of this owner. `drained`: its owner empties it."""

    takes: bool = True
    drained: bool = False
    room_bytes: int | None = None
    round_trip_ms: int | None = None
    bytes_per_s: int | None = None


UNKNOWN = Facts()


class Host(msgspec.Struct, frozen=True):
    """`domain` names what it fails together with; "" is nothing but itself. `chosen`: this node's config lets it hold
    objects of this node's."""

    node_id: str
    weight_milli: int
    domain: str
    alive: bool
    facts: Facts = UNKNOWN
    chosen: bool = True

    @property
    def fails_with(self) -> str:
        """Equal for hosts of one domain alone."""
        return f"domain {self.domain}" if self.domain else self.node_id


def refusal(host: Host, size_bytes: int) -> Refusal | None:
    """Why `host` cannot be given `size_bytes` more; None when it can, as far as this node knows."""
    facts = host.facts
    if not host.alive:
        return Refusal.NOT_ALIVE
    if not host.chosen:
        return Refusal.NOT_CHOSEN
    if not facts.takes:
        return Refusal.STORAGE_OFF
    if facts.drained:
        return Refusal.DRAINED
    return Refusal.NO_ROOM if facts.room_bytes is not None and facts.room_bytes < size_bytes else None


class Preference:
    """The order of `hosts` for one object. A host whose room is not known counts as the middle one of the others."""

    def __init__(self, policy: Policy, object_id: str, hosts: Iterable[Host]) -> None:
        self._policy, self._object_id = policy, object_id
        rooms = [host.facts.room_bytes for host in hosts if host.facts.room_bytes is not None]
        self._usual_bytes = median_low(rooms) if rooms else 1

    def rank(self, host: Host) -> tuple[float, float]:
        """The lowest is preferred."""
        return self._step(host.facts), self._draw(host)

    def _step(self, facts: Facts) -> float:
        if self._policy is Policy.LATENCY:
            return math.inf if facts.round_trip_ms is None else max(NEAR_MS, facts.round_trip_ms).bit_length()
        if self._policy is Policy.BANDWIDTH:
            # One that was never measured comes first: nothing else would ever measure it.
            return -math.inf if facts.bytes_per_s is None else -facts.bytes_per_s.bit_length()
        return 0

    def _draw(self, host: Host) -> float:
        """Of all hosts the least of exponential draws, each as fast as the host has room."""
        room = self._usual_bytes if host.facts.room_bytes is None else host.facts.room_bytes
        return -math.log1p(-_chance(self._object_id, host.node_id)) / max(1, room)


def _chance(object_id: str, node_id: str) -> float:
    """Above 0 and below 1, evenly; every node works out the same."""
    name = f"{object_id}/{node_id}".encode()
    score = int.from_bytes(hashlib.blake2b(name, digest_size=8, person=b"og.place.v1").digest(), "big")
    return ((score >> 12) + 0.5) / 2**52
