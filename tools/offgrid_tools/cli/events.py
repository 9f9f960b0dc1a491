"""`offgrid events`: the journal, listed and followed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.times import time_us

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.ledger_pb2 import LedgerEvent
    from offgrid.v1.mesh_pb2 import Alert
    from offgrid.v1.state_pb2 import Event

WIDE_COLUMNS = 130  # from where on an event's line has room for whole ids
LIMIT = 50


@click.command()
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="A type by name or number (JOB_CREATED, 14); repeat it for more.",
)
@click.option("--since", metavar="TIME", help="From then on: 10m, 2h, 2026-11-20T08:00.")
@click.option("--until", metavar="TIME", help="Up to then; not with --follow.")
@click.option("--subject", metavar="ID", default="", help="About one job, node, mission, …")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=LIMIT,
    show_default=True,
    help="The newest so many; 0: all.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with each event as it happens, until Ctrl-C.")
@common
def events(
    types: tuple[str, ...], since: str | None, until: str | None, subject: str, limit: int, follow: bool
) -> None:
    """List or follow what the journal says happened, oldest first."""
    if until is not None and follow:
        raise click.UsageError("--follow goes on for ever: leave --until out")
    from_us, until_us = time_us("--since", since), time_us("--until", until)
    client = settings().connect()
    _check_types(types)
    # Asked before the list, so that nothing falls between the list and what follows.
    head = client.mesh.status().journal_seq if follow else 0
    listed = _newest(client, types, from_us, until_us, subject, limit)
    if settings().json and not follow:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"events": [json_of(event) for event in listed]})
        return
    _print(listed, heading=True)
    if follow:
        after = max(head, listed[-1].seq if listed else 0)
        _print(e for e in client.events.watch(after_seq=after, types=types) if subject in ("", e.subject))


def _check_types(types: Iterable[str]) -> None:
    from offgrid.client.events import etype_of
    from offgrid.event_types import EventType

    for name in types:
        try:
            etype_of(name)
        except ValueError as error:
            from difflib import get_close_matches

            names = [*EventType.__members__]
            close = get_close_matches(name.upper(), names, 1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}, and numbers"
            raise click.BadParameter(f"{error}{meant}", param_hint="--type") from error


def _newest(client: Client, types: Iterable[str], from_us: int, until_us: int, subject: str, limit: int) -> list[Event]:
    found = client.events.list(
        types=types,
        since_us=from_us,
        until_us=until_us,
        subject=subject,
        newest_first=limit > 0,
        limit=limit or None,
    )
    return list(found)[::-1] if limit else list(found)


def _print(found: Iterable[Event], *, heading: bool = False) -> None:
    """Line by line, so that a stream shows at once."""
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        for event in found:
            emit({"event": json_of(event)})
        return
    for line in _lines(found, heading=heading):
        click.echo(line)


def _lines(found: Iterable[Event], *, heading: bool) -> Iterator[str]:
    from offgrid.command_line.terminal import clean, terminal_columns
    from offgrid.event_types import type_name
    from offgrid_tools.cli.output import when

    narrow = sys.stdout.isatty() and terminal_columns() < WIDE_COLUMNS
    stamp_from, stamp_chars, subject_chars = (11, 12, 13) if narrow else (0, 23, 0)  # of today it is, most often
    if heading:
        yield f"{'SEQ':>8}  {'TIME':<{stamp_chars}}  {'TYPE':<16}  {'SUBJECT':<{subject_chars or 20}}  ABOUT"
    for event in found:
        stamp, subject, what = when(event.timestamp_us)[stamp_from:], clean(event.subject), clean(_about(event))
        if subject_chars and len(subject) > subject_chars:
            subject = f"{subject[: subject_chars - 1]}…"
        name = clean(type_name(event.etype, event.type))
        line = f"{event.seq:>8}  {stamp:<{stamp_chars}}  {name:<16}  {subject:<{subject_chars or 20}}  {what}".rstrip()
        yield line if not narrow or len(line) <= terminal_columns() else f"{line[: terminal_columns() - 1]}…"


def _about(event: Event) -> str:
    """The few words of an event's data that say most."""
    from offgrid_tools.cli.output import ID_CHARS

    match event.WhichOneof("data"):
        case "member":
            return event.member.name
        case "mission":
            return event.mission.title
        case "task":
            return f"{event.task.name} ({event.task.kind})"
        case "job":
            return " ".join(filter(None, (event.job.needs, event.job.host[:ID_CHARS], event.job.error)))
        case "attempt":
            return f"attempt {event.attempt.attempt} on {event.attempt.host[:ID_CHARS]} {event.attempt.outcome}"
        case "peer":
            return event.peer.liveness
        case "ledger":
            return _about_ledger(event.ledger)
        case "session":
            many = f", {counted(event.session.events, 'event')}" if event.session.events else ""
            by = f" by {event.session.by}" if event.session.by else ""
            return f"{event.session.outcome}{by}: {event.session.name}{many}"
        case "alert":
            return _about_alert(event.alert)
        case "node_started":
            return f"version {event.node_started.version}"
        case _:
            return ""


def _about_alert(alert: Alert) -> str:
    from offgrid.v1.mesh_pb2 import AlertState
    from offgrid_tools.cli.output import number, word

    value = f" {number(alert.value)}" if alert.value else ""
    return f"{word(AlertState, alert.state)}: {alert.name}{value}, threshold {number(alert.threshold)}"


def _about_ledger(event: LedgerEvent) -> str:
    """A transaction's amount and payer, or what a block held."""
    from offgrid_tools.cli.amounts import credits_of
    from offgrid_tools.cli.output import ID_CHARS

    if not event.tx_id:
        return event.outcome
    return f"{event.outcome}: {credits_of(event.amount_micro)} from {event.src[:ID_CHARS]}"
