"""`offgrid smoke`: everything once, on a live mesh, and a table of what works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid_tools.cli.smoke_frame import Line

CALL_S = 5.0


@click.command()
@click.option("--transfer", "with_transfer", is_flag=True,
              help="Pay 0.000001 into a lane of this node's own, too; that costs the ledger's fee.")  # fmt: skip
@common
def smoke(with_transfer: bool) -> int:
    """Try everything once on the running mesh, within 15 s, and say what works.

    A job at each host, an object put, read and removed, acks of a quorum, an event, a session, the ledger, the gateway.
    What it makes it takes back, but for the jobs, whose hosts are paid as for any: all runs have one mission,
    smoke, which is completed, and one quorum, offgrid-smoke. Ends with 1 when anything failed; what cannot be tried
    here is skipped, and says why.
    """
    from offgrid_tools.cli.smoke_checks import CHECKS
    from offgrid_tools.cli.smoke_frame import FAILED, begin, carry_out

    client = settings().connect(timeout_s=CALL_S)
    seen = begin(client, with_transfer=with_transfer)
    made: list[tuple[Line, float]] = []
    with _showing() as show:
        for name, check in CHECKS:
            show(name)
            made += carry_out(seen, name, check)
    failed = [line for line, _ in made if line.outcome == FAILED]
    if settings().json:
        _emit(made, ok=not failed)
    else:
        _show(made)
    return exits.FAILED if failed else exits.OK


def _emit(made: list[tuple[Line, float]], *, ok: bool) -> None:
    from offgrid_tools.cli.emitting import emit

    emit({"ok": ok, "checks": [{**line._asdict(), "took_ms": round(took_ms, 1)} for line, took_ms in made]})


def _show(made: list[tuple[Line, float]]) -> None:
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import duration, table
    from offgrid_tools.cli.smoke_frame import FAILED, OK, SKIPPED

    table(
        ("check", "of", "result", "took", "what was seen"),
        ((line.check, line.about, line.outcome, duration(took_ms), line.detail) for line, took_ms in made),
        empty="nothing was tried",
    )
    counts = {word: sum(line.outcome == word for line, _ in made) for word in (OK, FAILED, SKIPPED)}
    took = duration(sum(took_ms for _, took_ms in made))
    click.echo(", ".join(f"{count} {word}" for word, count in counts.items()) + f", in {took}")
    for line, _ in made:
        if line.outcome != OK and line.next:
            click.echo(clean(f"  → {line.check} {line.about}".rstrip() + f": {line.next}"))


@contextmanager
def _showing() -> Iterator[Callable[[str], None]]:
    """What is being tried, on a terminal."""
    if settings().json or not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("") as shown:
        yield lambda name: shown.update(f"trying {name}")
