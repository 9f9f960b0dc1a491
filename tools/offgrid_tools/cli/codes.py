"""Codes as people write them: 12/20 is 12 shards needed of 20."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import click

SHARDS_MAX = 255

_CODE = re.compile(r"([0-9]{1,3})/([0-9]{1,3})\Z", re.ASCII)


class Code(NamedTuple):
    """`needed` shards of `total` give an object back."""

    needed: int
    total: int


class CodeParam(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only; 8.1 is allowed
    """K/N as a Code: at least one shard needed, and at least one more than needed."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Code:
        found = _CODE.match(value)
        if found is None or not 0 < int(found[1]) < int(found[2]) <= SHARDS_MAX:
            allowed = f"NEEDED/TOTAL such as 12/20, with fewer needed than there are, {SHARDS_MAX} at most"
            self.fail(f"{value[:40]!r} is no code; allowed is {allowed}", param, ctx)
        return Code(int(found[1]), int(found[2]))
