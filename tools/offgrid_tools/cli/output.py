"""What people read: facts, tables, times. On a terminal a table fits it; elsewhere columns are as wide as they are.

Text that came from the mesh never reaches a terminal with control characters in it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import clean, terminal_columns

if TYPE_CHECKING:
    from typing import Protocol

    class Enum(Protocol):
        """A generated enum, by what is asked of it."""

        @property
        def DESCRIPTOR(self) -> EnumDescriptor: ...  # noqa: N802 - protobuf's name

    from google.protobuf.descriptor import EnumDescriptor

ID_CHARS = 12  # of a node id in tables; --json has all of it
NAME_CHARS_SHOWN = 40
PREVIEW_CHARS_MAX = 4_000  # of a job's output on a terminal
GAP = "  "
WORDS_COLUMNS_MIN = 20


def cut(name: str) -> str:
    """A name for a table, which one long name would make too wide to read; --json and `info` have all of it."""
    return name if len(name) <= NAME_CHARS_SHOWN else f"{name[: NAME_CHARS_SHOWN - 1]}…"


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, aligned; pairs without a value are left out. A terminal gets long ones wrapped."""
    shown = [(name, clean(str(value), lines=True)) for name, value in pairs if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    columns = terminal_columns() - width - len(GAP) if sys.stdout.isatty() else 0
    for name, value in shown:
        lines = [part for line in value.split("\n") for part in (_wrapped(line, columns) if columns > 0 else [line])]
        body = ("\n" + " " * (width + len(GAP))).join(lines)
        click.echo(click.style(name.ljust(width), dim=True) + GAP + body, color=_colour())


def say(sentence: str) -> None:
    """A line of its own; a terminal gets it wrapped between words."""
    click.echo("\n".join(_wrapped(sentence, terminal_columns())) if sys.stdout.isatty() else sentence)


def _wrapped(line: str, columns: int) -> list[str]:
    """Between words only: ids and paths stay whole, to be copied."""
    if len(line) <= columns:
        return [line]
    import textwrap

    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line, max(columns, WORDS_COLUMNS_MIN), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [line]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows below their headings, or the sentence `empty` when there are none."""
    if sys.stdout.isatty():
        for line in drawn(columns, rows, terminal_columns(), empty=empty):
            click.echo(line, color=_colour())
        return
    cells = _cells(rows)
    if not cells:
        click.echo(empty)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [[column.upper() for column in columns], *cells]:
        click.echo(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def drawn(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int, *, empty: str) -> Sequence[str]:
    """The lines of the same for a terminal of that width, in colour."""
    from offgrid_tools.cli.fitting import wrap

    cells = _cells(rows)
    return [*fitting(columns, cells, width)] if cells else wrap(empty, width)


def _cells(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    return [[clean(str(cell)) for cell in row] for row in rows]


def fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Lines that a terminal of that width shows whole."""
    from itertools import zip_longest

    from offgrid_tools.cli.fitting import fitted, width_of, wrap

    made = fitted(columns, cells, width)

    def line(parts: Sequence[str], style: Callable[[str], str]) -> str:
        padded = ((part, " " * (width - width_of(part))) for part, width in zip(parts, made.widths, strict=True))
        return GAP.join(style(part) + space for part, space in padded).rstrip()

    yield line(made.columns, lambda part: click.style(part, dim=True) if part else "")
    for row in made.rows:
        for parts in zip_longest(*row, fillvalue=""):
            yield line(parts, lambda part: click.style(part, fg=STYLES[part]) if part in STYLES else part)
    if made.left_out:
        told = f"no room here for {', '.join(made.left_out)}: --json has all"
        yield from (click.style(part, dim=True) for part in wrap(told, width))


STYLES: Mapping[str, str] = {
    "alive": "green",
    "completed": "green",
    "suspect": "yellow",
    "running": "cyan",
    "awarded": "cyan",
    "queued": "yellow",
    "dead": "red",
    "failed": "red",
    "cancelled": "yellow",
    "expired": "red",
    "wins": "green",
    "unable": "red",
    "removed": "red",
}


def _colour() -> bool | None:
    """None leaves it to click, which looks whether there is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def when(us: int) -> str:
    """A stamp in this machine's local time, to the millisecond."""
    if not us:
        return ""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(us / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        return f"{us} µs"  # a clock that lies this much is shown as it is


def duration(ms: float) -> str:
    """A length of time in its most natural unit."""
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if ms >= unit_ms:
            return f"{ms / unit_ms:.1f} {unit}"
    return f"{ms:.1f} ms"


def number(value: float) -> str:
    """A quantity to six places, never in powers of ten: prices and work are counted in millionths."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def size(count: int) -> str:
    """Bytes, exact below a kilobyte."""
    for unit_bytes, unit in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if count >= unit_bytes:
            return f"{count / unit_bytes:.1f} {unit}"
    return "1 byte" if count == 1 else f"{count} bytes"


def word(enum: Enum, number: int) -> str:
    """An enum's value for people: (JobState, 4) → "running"; one that this version does not know as its number."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        return str(number)
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.DESCRIPTOR.name).upper() + "_"
    short = known.name.removeprefix(prefix).lower().replace("_", " ")
    return "" if short == "unspecified" else short


def preview(output: bytes, all_of_it: str) -> str:
    """The beginning of a job's output or log as text; `all_of_it` says where the rest is."""
    text = output.decode("utf-8", "replace")
    shown = clean(text[:PREVIEW_CHARS_MAX], lines=True).rstrip("\n")
    left = len(text) - PREVIEW_CHARS_MAX
    return f"{shown}\n… {left:,} characters more; {all_of_it}" if left > 0 else shown
