"""What can be asked of a host, by name: the one table that parser, matcher and manual share.

What a profile does not say is 0, an empty text or an empty list: no attribute is ever missing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

import msgspec

from offgrid.v1 import jobs_pb2

Value: TypeAlias = object  # an int or Decimal, a text, or a tuple of either
Profile: TypeAlias = jobs_pb2.HostProfile


class Kind(Enum):
    """The types of the language. A NAME is a text that a host answers to by either of two."""

    NUMBER = "number"
    TEXT = "text"
    NAME = "name"
    TEXTS = "list of texts"
    NUMBERS = "list of numbers"


class Attribute(msgspec.Struct, frozen=True):
    """`read` gives what `kind` says: NAME and TEXTS as tuples of texts."""

    name: str
    kind: Kind
    read: Callable[[Profile], Value]
    summary: str


ATTRIBUTES = {
    each.name: each
    for each in (
        Attribute("memory_mb", Kind.NUMBER, lambda p: p.memory_mb, "memory in MiB"),
        Attribute("cpus", Kind.NUMBER, lambda p: p.cpus, "processors"),
        Attribute("slots", Kind.NUMBER, lambda p: p.slots, "jobs that it takes at a time"),
        Attribute("gpu.count", Kind.NUMBER, lambda p: len(p.gpus), "graphics cards"),
        Attribute(
            "gpu.memory_mb",
            Kind.NUMBER,
            lambda p: max((gpu.memory_mb for gpu in p.gpus), default=0),
            "memory of its largest graphics card, in MiB",
        ),
        Attribute("gpu.model", Kind.TEXTS, lambda p: tuple(gpu.model for gpu in p.gpus), "its graphics cards' models"),
        Attribute("models", Kind.TEXTS, lambda p: tuple(p.models), "language models that its endpoint lists"),
        Attribute("executors", Kind.TEXTS, lambda p: tuple(p.executors), 'what it runs: "wasm", "process:wc", …'),
        Attribute("platform", Kind.TEXT, lambda p: p.platform, 'system and processor: "linux/x86_64"'),
        Attribute("domain", Kind.TEXT, lambda p: p.failure_domain, "failure domain, as its membership record says"),
        Attribute("host", Kind.NAME, lambda p: (p.host, p.name), "the host itself, by node id or name"),
    )
}
PREFIXES = ("label", "isolation")  # followed by a name of the owner's, or of an executor
NAME_CHARS_MAX = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


def find(name: str) -> Attribute | None:
    """The attribute of that name; of `label.` and `isolation.` there is one for every name behind the dot."""
    known = ATTRIBUTES.get(name)
    if known is not None:
        return known
    prefix, _, rest = name.partition(".")
    if not _NAME.match(rest):
        return None
    if prefix == "label":
        return Attribute(name, Kind.TEXT, lambda p: p.labels.get(rest, ""), "")
    if prefix == "isolation":
        return Attribute(name, Kind.TEXT, lambda p: p.isolation.get(rest, ""), "")
    return None


def allowed() -> str:
    """For error messages."""
    return ", ".join([*sorted(ATTRIBUTES), *(f"{prefix}.NAME" for prefix in PREFIXES)])


def suggestion(name: str) -> str:
    """The attribute that was probably meant; empty when none is near."""
    near = difflib.get_close_matches(name.lower(), list(ATTRIBUTES), n=1, cutoff=0.6)
    if near:
        return near[0]
    prefix, dot, rest = name.partition(".")
    near = difflib.get_close_matches(prefix.lower(), PREFIXES, n=1, cutoff=0.6)
    return f"{near[0]}.{rest}" if near and dot and _NAME.match(rest) else ""
