"""`offgrid state …`: sessions of applications, what was recorded in them and what it comes to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.times import time_us

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offgrid.v1.state_pb2 import Record, Session

LIMIT = 50
HEADING = f"{'NUMBER':>8}  {'TIME':<23}  {'KIND':<22}  {'FRAME':>7}  DATA"
SESSION = click.argument("session", metavar="SESSION")


@click.command()
@click.option("--name", metavar="NAME", default="", help="Of that name.")
@click.option("--open", "open_only", is_flag=True, help="That have not ended.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=LIMIT,
    show_default=True,
    help="The newest so many; 0: all.",
)
@common
def sessions(name: str, open_only: bool, limit: int) -> None:
    """List sessions, the newest first."""
    found = settings().connect().sessions.list(name=name, open_only=open_only, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"sessions": [json_of(session) for session in found]})
        return
    from offgrid_tools.cli.output import cut, size, table, when

    table(
        ("session", "name", "started", "state", "events", "kept", "size"),
        (
            (s.session_id, cut(s.name), when(s.started_us), _state_of(s), s.recorded, s.kept, size(s.bytes))
            for s in found
        ),
        empty="there are no sessions",
    )


@click.command()
@SESSION
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Of that kind; repeat it for more.")
@click.option("--after", type=click.IntRange(0, 2**64 - 1), help="Behind that number, without the state.")
@click.option("--reducer", metavar="REDUCER", default="", help="That folds the state. [default: session]")
@common
def watch(session: str, kinds: tuple[str, ...], after: int | None, reducer: str) -> None:
    """Follow SESSION: first what its events came to, then each event, until it ends or Ctrl-C."""
    told = settings().connect().sessions.watch(session, after=after, kinds=kinds, reducer=reducer)
    if settings().json:
        from offgrid.client.replaying import recorded_of
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        for each in told:
            if each.HasField("sync"):
                emit({"sync": {**json_of(each.sync), "state": json.loads(each.sync.state)}})
            else:
                emit({"record": recorded_of(each.record)._asdict()})
        return
    from offgrid.command_line.terminal import clean

    click.echo(HEADING)
    for each in told:
        if each.HasField("sync"):
            state = clean(each.sync.state.decode(errors="replace"))
            click.echo(f"{each.sync.number:>8}  {'':<23}  {'(' + each.sync.reducer + ')':<22}  {'':>7}  {state}")
        else:
            _print_one(each.record)


@click.command()
@SESSION
@click.option("--reducer", metavar="REDUCER", default="", help="That folds them. [default: session]")
@click.option("--at", metavar="TIME", help="As it was then: 10m (ago), 2026-11-20T08:00.")
@click.option("--number", type=click.IntRange(1, 2**64 - 1), help="Of the events up to that number.")
@common
def show(session: str, reducer: str, at: str | None, number: int | None) -> None:
    """Show what the events of SESSION come to; its id, or a name: the newest of that name."""
    if at is not None and number is not None:
        raise click.UsageError("--at and --number cannot both be given")
    client, at_us = settings().connect(), time_us("--at", at)
    told = client.sessions.get(session)
    shown = client.sessions.show(told.session_id, reducer=reducer, number=number or 0, at_us=at_us)
    state = json.loads(shown.state)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(
            {
                "session": json_of(told),
                "reducer": shown.reducer,
                "version": shown.version,
                "number": shown.number,
                "snapshot": shown.snapshot,
                "digest": shown.digest.hex(),
                "state": state,
            }
        )
        return
    from offgrid_tools.cli.output import facts, size, when

    facts(
        [
            ("session", told.session_id),
            ("name", told.name),
            ("state", _state_of(told)),
            ("started", when(told.started_us)),
            ("ended", when(told.ended_us) if told.ended_us else ""),
            ("comes from", _origin_of(told)),
            ("recorded", f"{counted(told.recorded, 'event')}, of which {told.kept} are kept in {size(told.bytes)}"),
            ("kinds", _counts(told.kinds)),
            ("dropped", _counts(told.dropped)),
            ("folded by", f"{shown.reducer}, version {shown.version}: {counted(shown.number, 'event')}"),
            ("digest", shown.digest.hex()),
        ]
    )
    click.echo(json.dumps(state, indent=2, ensure_ascii=False))


@click.command()
@SESSION
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Of that kind: energy.update; repeat it for more.")
@click.option("--since", metavar="TIME", help="From then on: 10m, 2h, 2026-11-20T08:00.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--frame", type=click.IntRange(0, 2**64 - 1), help="Of that frame.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0),
    default=LIMIT,
    show_default=True,
    help="The newest so many; 0: all.",
)
@common
def records(
    session: str, kinds: tuple[str, ...], since: str | None, until: str | None, frame: int | None, limit: int
) -> None:
    """List what was recorded in SESSION, oldest first."""
    found = settings().connect().sessions.records(
        session,
        kinds=kinds,
        since_us=time_us("--since", since),
        until_us=time_us("--until", until),
        frame=frame,
        newest_first=limit > 0,
        limit=limit or None,
    )  # fmt: skip
    _print(reversed([*found]) if limit else found)


@click.command()
@SESSION
@click.option("--reducer", metavar="REDUCER", default="", help="That folds them. [default: session]")
@common
def snapshot(session: str, reducer: str) -> None:
    """Keep what the events of SESSION come to now, so that a start need not fold them anew."""
    number = settings().connect().sessions.snapshot(session, reducer=reducer)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"number": number})
        return
    click.echo(f"kept, with {counted(number, 'event')}")


@click.command()
@click.option("--session", "named", multiple=True, metavar="SESSION", help="That session; repeat it for more.")
@click.option("--all", "everything", is_flag=True, help="All sessions.")
@click.option("--forget", is_flag=True, help="List them no more, either.")
@yes_option
@common
def purge(named: tuple[str, ...], everything: bool, forget: bool, yes: bool) -> None:
    """Shred what sessions say, for good: nobody can read it any more, here, in a backup or at a host."""
    if everything == bool(named):
        raise click.UsageError("name sessions by --session, or give --all")
    client = settings().connect()
    told = [*client.sessions.list()] if everything else [client.sessions.get(each) for each in named]
    events = sum(each.kept for each in told)
    if not yes:
        be_sure(
            f"Shred {counted(events, 'event')} of {counted(len(told), 'session')}, for good",
            "what is shredded is gone for good",
        )
    ids = [] if everything else [each.session_id for each in told]
    answer = client.sessions.purge(ids, everything=everything, forget=forget)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"sessions": answer.sessions, "events": answer.events})
        return
    click.echo(f"shredded: {counted(answer.events, 'event')} of {counted(answer.sessions, 'session')}")


def _print(found: Iterable[Record]) -> None:
    if settings().json:
        from offgrid.client.replaying import recorded_of
        from offgrid_tools.cli.emitting import emit

        for record in found:
            emit({"record": recorded_of(record)._asdict()})
        return
    click.echo(HEADING)
    for record in found:
        _print_one(record)


def _print_one(record: Record) -> None:
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import when

    frame = str(record.frame_id) if record.HasField("frame_id") else ""
    data = clean(record.data.decode(errors="replace"))
    click.echo(f"{record.number:>8}  {when(record.timestamp_us):<23}  {record.kind:<22}  {frame:>7}  {data}")


def _state_of(session: Session) -> str:
    if session.purged_us:
        return "purged"
    if session.HasField("origin"):
        return "imported" if session.origin.imported_us else f"importing: {session.recorded} of {session.origin.events}"
    return "ended" if session.ended_us else "open"


def _origin_of(session: Session) -> str:
    if not session.HasField("origin"):
        return ""
    from offgrid_tools.cli.output import when

    origin = session.origin
    hashed = ", content hashed" if origin.hashed else ""
    there = f"{origin.session_id} of {origin.node_id}"
    return f"{there}, imported {when(origin.imported_us)}{hashed}; digest {origin.digest.hex()}"


def _counts(counts: Any) -> str:
    return ", ".join(f"{kind} {counts[kind]}" for kind in sorted(counts))
