"""`offgrid memory …`: what the node remembers of events, also of those that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.times import time_us

if TYPE_CHECKING:
    from offgrid.client.memory import Basis, Count, Seen
    from offgrid.v1.state_pb2 import Summary

LIMIT = 50
HITTERS_SHOWN = 3


@click.command()
@click.option("--key", help="Was it seen? A name or an id: of a job, a node, an object, a session, a prompt, …")
@click.option("--count", "what", metavar="TYPE", help="How many were there? A type, or a kind of sessions' events.")
@click.option("--since", metavar="TIME", help="From then on: 10m (ago), 2h, 2026-11-20T08:00.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--session", metavar="SESSION", default="", help="In this session alone; its id or name.")
@common
def ask(key: str | None, what: str | None, since: str | None, until: str | None, session: str) -> None:
    """Ask what happened, also of events that are gone."""
    if (key is None) == (what is None):
        raise click.UsageError("give --key or --count")
    since_us, until_us = time_us("--since", since), time_us("--until", until)
    memory = settings().connect().memory
    if key is not None:
        _show_seen(memory.seen(key, session=session, since_us=since_us, until_us=until_us))
        return
    assert what is not None
    try:
        counted = memory.count(what, session=session, since_us=since_us, until_us=until_us)
    except ValueError as error:
        raise click.BadParameter(f"{error}, and no kind as energy.update", param_hint="--count") from error
    _show_count(what, counted)


@click.command()
@click.option(
    "--session", metavar="SESSION", default="", help="Of this session; its id or name. [default: the journal]"
)
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=LIMIT,
    show_default=True,
    help="The oldest so many; 0: all.",
)
@common
def windows(session: str, limit: int) -> None:
    """List summaries of the journal, or of a session, oldest first; --json has all that is in them."""
    found = settings().connect().memory.windows(session=session, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"windows": [json_of(each) for each in found]})
        return
    from offgrid_tools.cli.output import size, table, when

    table(
        ("window", "from", "to", "events", "numbers", "keys", "size", "most often"),
        (
            (
                each.window_id,
                when(each.oldest_us),
                when(each.newest_us),
                each.count,
                f"{each.first} to {each.last}",
                each.keys,
                size(each.bytes),
                _hitters(each),
            )
            for each in found
        ),
        empty="nothing is summarised yet",
    )


def _show_seen(seen: Seen) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(
            {
                "key": seen.key,
                "at_least": seen.at_least,
                "at_most": seen.at_most,
                "false_positive": seen.false_positive,
                "sightings": [json_of(each) for each in seen.sightings],
                "basis": _document(seen.basis),
            }
        )
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import table, when

    key = clean(seen.key)
    if not seen.sightings:
        click.echo(f"no: of {_said(seen.basis)} none has {key}")
        return
    if seen.at_least:
        click.echo(f"yes: {_bounds(seen.at_least, seen.at_most)} events have {key}, of {_said(seen.basis)}")
    else:
        chance = f"one of {1 / seen.false_positive:,.0f}" if seen.false_positive else "none"
        click.echo(f"very likely: up to {seen.at_most} events have {key}, of {_said(seen.basis)}")
        click.echo(f"of keys that never were, {chance} would be taken for one that was")
    table(
        ("where", "window", "from", "to", "numbers", "events"),
        (
            (
                each.session_id or "journal",
                each.window_id or "not summarised yet",
                when(each.oldest_us),
                when(each.newest_us),
                f"{each.first} to {each.last}",
                _bounds(each.at_least, each.at_most),
            )
            for each in seen.sightings
        ),
        empty="",
    )


def _show_count(what: str, count: Count) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(
            {
                "type": what,
                "at_least": count.at_least,
                "at_most": count.at_most,
                "cut": count.cut,
                "basis": _document(count.basis),
            }
        )
        return
    from offgrid.command_line.terminal import clean

    click.echo(f"{_bounds(count.at_least, count.at_most)} of {clean(what)}, of {_said(count.basis)}")
    if count.cut:
        click.echo(f"of {count.cut} windows only a part was asked for, and their events are gone")


def _bounds(at_least: int, at_most: int) -> str:
    return str(at_least) if at_least == at_most else f"{at_least} to {at_most}"


def _said(basis: Basis) -> str:
    said = f"{counted(basis.recorded, 'event')}, {basis.events} looked at and {basis.summarised} as summaries have them"
    if basis.forgotten:
        said += f"; {basis.forgotten} are forgotten or cannot be read"
    if basis.unreadable:
        said += f"; of {counted(basis.unreadable, 'session')} there is no key here"
    return said


def _document(basis: Basis) -> dict[str, Any]:
    return {
        "events": basis.events,
        "summarised": basis.summarised,
        "recorded": basis.recorded,
        "forgotten": basis.forgotten,
        "unreadable": basis.unreadable,
    }


def _hitters(summary: Summary) -> str:
    most = sorted(summary.hitters.items(), key=lambda each: (-each[1], each[0]))[:HITTERS_SHOWN]
    return ", ".join(f"{key[:24]} {count}" for key, count in most)
