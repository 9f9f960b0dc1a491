"""The comments of our .proto files, which generated modules leave out. The files lie beside those modules.

Only what `buf format` leaves is read: one declaration a line, its comment on the lines before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources

from offgrid.api import PACKAGE

_BLOCK = re.compile(r"(?:message|enum|service|oneof)\s+(\w+)\s*\{")
_RPC = re.compile(r"rpc\s+(\w+)\s*\(")
_FIELD = re.compile(r"(?:(?:optional|repeated)\s+)?[\w.]+(?:<[^>]*>)?\s+(\w+)\s*=\s*\d+")
_VALUE = re.compile(r"([A-Z][A-Z0-9_]*)\s*=\s*-?\d+")


def comments() -> dict[str, str]:
    """By full name ("offgrid.v1.Job.job_id", "offgrid.v1.JobService.GetJob"), of all that has one, in one line each."""
    found: dict[str, str] = {}
    for file in resources.files(PACKAGE).iterdir():
        if file.name.endswith(".proto"):
            found.update(comments_of(file.read_text(encoding="utf-8").splitlines()))
    return found


def comments_of(lines: Iterable[str]) -> dict[str, str]:
    """Those of one file."""
    found: dict[str, str] = {}
    rooms: list[str] = []  # what is open around a line; "" for what has no name of its own in a path
    said: list[str] = []
    for raw in lines:
        line = raw.strip()
        if line.startswith("//"):
            said.append(line.removeprefix("//").strip())
            continue
        block, is_oneof = _BLOCK.match(line), line.startswith("oneof")
        named = block or _RPC.match(line) or _VALUE.match(line) or _FIELD.match(line)
        if named is not None and said and not is_oneof:
            found[".".join([PACKAGE, *filter(None, rooms), named[1]])] = " ".join(said)
        said = []
        opened, closed = line.count("{"), line.count("}")
        if opened > closed:
            rooms.append(block[1] if block is not None and not is_oneof else "")
            rooms += [""] * (opened - closed - 1)
        elif closed > opened:
            del rooms[opened - closed :]
    return found
