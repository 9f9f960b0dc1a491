"""What `offgrid put` says on standard error while it waits: how many have acked, and what keeps the others from it; and
`offgrid get`, when no host gives what it reads.

A spinner on a terminal, else a line per change. With --json the trouble alone, one document a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import weight_of
from offgrid_tools.cli.bars import Recent
from offgrid_tools.cli.output import size
from offgrid_tools.cli.settings import settings

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import Object, OutboxEntry

HINT = "it goes on its way by itself: --no-wait does not wait for that, `offgrid outbox --open` shows what is missing"


def acks_of(of: Object | OutboxEntry) -> str:
    """Such as "1.0 of 2.0": weights are decimals for people and thousandths everywhere else."""
    return f"{weight_of(of.acked_milli)} of {weight_of(of.required_milli)}"


@contextmanager
def waiting() -> Iterator[Waiting]:
    """Of what `wait_durable` tells."""
    if settings().json:
        yield Waiting(_say_nothing, _document)
    elif sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        with console.status("waiting for acks") as shown:
            warn = _lines(lambda line: console.print(line, markup=False, soft_wrap=True))
            yield Waiting(shown.update, warn, live=True)
    else:
        yield Waiting(_say, _lines(_say))


def reading_waits(made: Object, timeout_s: float) -> Callable[[str], None]:
    """What `fetch` tells of when nothing comes, each time that it changes."""
    hint = f"asked for again for {timeout_s:g} s; --timeout says how long"
    waiting = Waiting(_say_nothing, _document if settings().json else _lines(_say), hint)
    return lambda why: waiting.on_change(_troubled(made, why))


def _troubled(made: Object, why: str) -> Object:
    from offgrid.v1.objects_pb2 import Object

    told = Object()
    told.CopyFrom(made)
    told.trouble = why
    return told


class Waiting:
    """Tells changes of the acks and of the trouble apart, and each trouble once however often it comes and goes; where
    what is said is `live`, how much was sent and how fast as well."""

    def __init__(
        self, say: Callable[[str], None], warn: Callable[[Object, str], None], hint: str = HINT, *, live: bool = False
    ) -> None:
        self._say, self._warn = say, warn
        self._acked_milli, self._trouble, self._acks = -1, "", ""
        self._hint, self._live, self._recent = hint, live, Recent()

    def on_change(self, made: Object) -> None:
        if made.acked_milli != self._acked_milli:
            self._acked_milli = made.acked_milli
            self._acks, self._recent = f"acks: {acks_of(made)}", Recent()
            self._say(f"{made.object_id} is kept here; {self._acks}")
        if made.trouble not in ("", self._trouble):
            self._trouble = made.trouble
            self._warn(made, self._hint)
            self._hint = ""  # once is enough

    def on_progress(self, sent: int, of: int) -> None:
        if self._live:
            now_s = time.monotonic()
            self._recent.on_done(sent, now_s)
            per_s = self._recent.per_s(now_s)
            rate = "" if per_s is None else f", {size(round(per_s))}/s"
            self._say(f"{self._acks}; {size(sent)} of {size(of)} sent{rate}")


def _lines(say: Callable[[str], None]) -> Callable[[Object, str], None]:
    from offgrid.command_line.terminal import clean

    def warn(made: Object, hint: str) -> None:
        say(f"{made.object_id} waits: {clean(made.trouble)}")
        if hint:
            say(f"  → {hint}")

    return warn


def _document(made: Object, hint: str) -> None:
    import json

    about = {"object_id": made.object_id, "acked_milli": made.acked_milli, "required_milli": made.required_milli}
    document = {"waiting": {**about, "trouble": made.trouble, "hint": hint}}
    click.echo(json.dumps(document, ensure_ascii=False), err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_nothing(line: str) -> None:
    """Scripts get the end of it."""
