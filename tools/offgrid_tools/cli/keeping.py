"""How an object is to be kept, as the command line says it: a code as 4/7, a time to live as 30d."""

from __future__ import annotations

import re
from typing import Any

import click

SHARDS_MAX = 128
MS_OF = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
SPAN_MS_MAX = 100 * 366 * 86_400_000


class CodeParam(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only; 8.1 is allowed
    """Such as 4/7: needed and total."""

    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        said = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", str(value))
        needed, total = (int(said[1]), int(said[2])) if said else (0, 0)
        if not 0 < needed < total <= SHARDS_MAX:
            such = f"such is 4/7, the first at least 1, the second the larger and at most {SHARDS_MAX}"
            self.fail(f"{value[:40]!r} is no code; {such}", param, ctx)
        return needed, total


class Span(click.ParamType):  # type: ignore[type-arg]  # as above
    """Such as 90m, 12h, 30d: in milliseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        said = re.fullmatch(r"([0-9]{1,12})([smhdw])", str(value))
        span_ms = int(said[1]) * MS_OF[said[2]] if said else 0
        if not 0 < span_ms <= SPAN_MS_MAX:
            self.fail(f"{value[:40]!r} is no time; such are 90m, 12h, 30d and 52w, up to 100 years", param, ctx)
        return span_ms
