"""`offgrid state replay` and `validate`: a session folded anew, and its events held against their kinds' schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid.command_line.terminal import counted
from offgrid_tools.cli.bars import counting
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.times import time_us
from offgrid_tools.cli.unsound import unsound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from offgrid.client import Client
    from offgrid.client.replaying import Replayed
    from offgrid.kinds import Kinds
    from offgrid.reducers import Recorded

TOLD_EVENTS = 1_000
FILE = click.Path(exists=True, dir_okay=False)


@click.command()
@click.argument("session", metavar="[SESSION]", required=False)
@click.option("--from-export", "file", type=FILE, help="Of this export; no node is needed.")
@click.option(
    "--until", metavar="TIME|NUMBER", help="Up to that event, or as it was then: 10m (ago), 2026-11-20T08:00."
)
@click.option("--reducer", metavar="REDUCER", default="", help="That folds them. [default: session]")
@click.option("--verbose", is_flag=True, help="Show each event.")
@common
def replay(session: str | None, file: str | None, until: str | None, reducer: str, verbose: bool) -> int:
    """Fold the events of SESSION anew, from the first one and without any snapshot, here and not in the node; and say
    whether that is what the node shows.

    Of an export, whether it is what the export says; there, events up to a time are those before the first that
    happened later, as their writer said it. Ends with 1 where it is something else.
    """
    if (session is None) == (file is None):
        raise click.UsageError("name a SESSION, or give --from-export FILE")
    number, at_us = _until(until)
    with counting("replaying") as on_events:
        seen = _seen(on_events, verbose=verbose)
        if file is not None:
            from offgrid.client.replaying import replay_export

            with unsound("--from-export"), Path(file).open("rb") as opened:
                replayed = replay_export(opened, reducer, number, at_us, seen)
        else:
            sessions = settings().connect().sessions
            replayed = sessions.replay(session or "", reducer=reducer, number=number, at_us=at_us, on_event=seen)
    _tell_replayed(replayed)
    return exits.FAILED if replayed.equal is False else exits.OK


def _until(text: str | None) -> tuple[int, int]:
    """As a number, or a time."""
    if text is None:
        return 0, 0
    if text.isdecimal():
        if not 0 < int(text) < 1 << 53:
            raise click.BadParameter(f"{text}: events are numbered from 1 on", param_hint="--until")
        return int(text), 0
    return 0, time_us("--until", text, allowed="no number and no time")


def _seen(on_events: Callable[[str, int, int], None], *, verbose: bool) -> Callable[[Recorded], None]:
    if not verbose:

        def count(event: Recorded) -> None:
            if event.number % TOLD_EVENTS == 0:
                on_events("replaying", event.number, 0)

        return count
    import json

    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import when

    def show(event: Recorded) -> None:
        if settings().json:
            from offgrid_tools.cli.emitting import emit

            emit({"record": event._asdict()})
            return
        data = clean(json.dumps(event.data, ensure_ascii=False))
        frame = "" if event.frame_id is None else str(event.frame_id)
        click.echo(f"{event.number:>8}  {when(event.timestamp_us):<23}  {event.kind:<22}  {frame:>7}  {data}")

    return show


def _tell_replayed(replayed: Replayed) -> None:
    import json

    state = json.loads(replayed.state)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(
            {
                "reducer": replayed.reducer,
                "version": replayed.version,
                "number": replayed.number,
                "digest": replayed.digest,
                "kept": replayed.kept,
                "equal": replayed.equal,
                "why": replayed.why,
                "state": state,
            }
        )
        return
    from offgrid_tools.cli.output import facts

    same = {True: "yes", False: f"NO: there it is {replayed.kept}", None: f"not known: {replayed.why}"}
    facts(
        [
            ("folded by", f"{replayed.reducer}, version {replayed.version}"),
            ("up to event", str(replayed.number)),
            ("digest", replayed.digest),
            ("as it is kept", same[replayed.equal]),
        ]
    )
    click.echo(json.dumps(state, indent=2, ensure_ascii=False))


@click.command()
@click.argument("what", metavar="[SESSION|FILE]", required=False)
@click.option(
    "--schema-path",
    "folder",
    type=click.Path(exists=True, file_okay=False),
    help="A folder with KIND.json, which stand for the schemas of those kinds.",
)
@common
def validate(what: str | None, folder: str | None) -> int:
    """Hold each event of SESSION, or of all sessions, against its kind's schema as the node has it; of an export in
    FILE, as the file has it, and whether it is as it was written. What is a file's name is taken for that.

    Names of each event that breaks its kind's schema the place in it and the rule. Ends with 1 where there is one, or
    where something cannot be read.
    """
    if what is not None and Path(what).is_file():
        return _validate_file(Path(what), folder)
    client = settings().connect()
    from offgrid.client.sessions import kinds_of

    kinds = kinds_of(client.sessions.kinds())
    _add_schemas(kinds, folder)
    found = [client.sessions.get(what)] if what is not None else [*client.sessions.list()]
    passed = [_validate_session(client, each.session_id, kinds) for each in found if what or not each.purged_us]
    return exits.OK if all(passed) else exits.FAILED


def _validate_session(client: Client, session_id: str, kinds: Kinds) -> bool:
    """A session that cannot be read keeps nobody from the others."""
    from offgrid.client.errors import OffgridError
    from offgrid.client.replaying import recorded

    try:
        return _validate(session_id, recorded(client.sessions, session_id), kinds)
    except OffgridError as error:
        if error.code in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"):
            raise
        if settings().json:
            from offgrid_tools.cli.emitting import emit

            emit({"session_id": session_id, "unreadable": error.message, "reason": error.reason})
        else:
            click.echo(f"{session_id}: it cannot be read: {error.message}")
        return False


def _validate_file(file: Path, folder: str | None) -> int:
    from offgrid.exports.reading import Export
    from offgrid.kinds import Kinds

    with unsound("FILE"), file.open("rb") as opened:
        export, kinds = Export(opened), Kinds()
        for kind, schema in export.head.kinds.items():
            try:
                kinds.register(kind, schema)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="FILE") from error
        _add_schemas(kinds, folder)
        passed = _validate(export.head.session.session_id, export.events(), kinds)
    return exits.OK if passed else exits.FAILED


def _add_schemas(kinds: Kinds, folder: str | None) -> None:
    if folder is None:
        return
    from offgrid.client.replaying import add_schemas

    try:
        if not add_schemas(kinds, Path(folder)):
            raise click.BadParameter(f"{folder} has no file KIND.json", param_hint="--schema-path")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--schema-path") from error


def _validate(session_id: str, events: Iterable[Recorded], kinds: Kinds) -> bool:
    from offgrid.client.replaying import rejected

    count, wrong = 0, 0

    def tallied() -> Iterable[Recorded]:
        nonlocal count
        for event in events:
            count += 1
            yield event
            if count % TOLD_EVENTS == 0:
                on_events("validating", count, 0)

    with counting("validating") as on_events:
        for each in rejected(tallied(), kinds):
            wrong += 1
            _emit({"session_id": session_id, "rejected": each._asdict()}, f"{session_id}: event {each.said}")
    broken = f"{wrong} break their kinds' schemas" if wrong else "all keep to their kinds' schemas"
    _emit(
        {"session_id": session_id, "events": count, "wrong": wrong},
        f"{session_id}: {counted(count, 'event')}, {broken}",
    )
    return not wrong


def _emit(document: dict[str, Any], line: str) -> None:
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.emitting import emit

    if settings().json:
        emit(document)
    else:
        click.echo(clean(line))
