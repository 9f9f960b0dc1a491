"""`offgrid state export` and `import`: a session as a file, and a file as a session."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.bars import counting
from offgrid_tools.cli.files import TargetFile
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.unsound import unsound

if TYPE_CHECKING:
    from offgrid.exports.document import Head, Tail


@click.command("export")
@click.argument("session", metavar="SESSION")
@click.argument("file", type=TargetFile())
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "yaml", "parquet"]),
    default="json",
    show_default=True,
    help="JSON lines, YAML documents, or a Parquet table (which needs pyarrow).",
)
@click.option(
    "--content/--no-content",
    default=None,
    help="What people and models said as it was recorded, or hashed. [default: state.export_includes_content]",
)
@common
def export_(session: str, file: str, form: str, content: bool | None) -> None:
    """Write SESSION (its id, or a name: the newest of that name) to FILE, which appears whole or not at all; - is
    standard output.

    It has the session, the schemas that its events need, the events, and at its end a digest over it all. The journal
    tells of it.
    """
    client = settings().connect()
    with counting("exporting") as on_events, unsound("FILE"):
        target = sys.stdout.buffer if file == "-" else file
        head, tail = client.sessions.export(session, target, form=form, content=content, on_events=on_events)
    if file != "-":
        _tell_exported(file, form, head, tail)


def _tell_exported(file: str, form: str, head: Head, tail: Tail) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(
            {
                "session_id": head.session.session_id,
                "file": file,
                "format": form,
                "events": tail.events,
                "content": head.content,
                "state": {"reducer": tail.state.reducer, "version": tail.state.version, "digest": tail.state.digest},
                "digest": tail.digest,
            }
        )
        return
    from offgrid_tools.cli.output import facts

    content = "as it was recorded" if head.content == "recorded" else "hashed"
    facts(
        [
            ("session", f"{head.session.session_id}  {head.session.name}"),
            ("events", str(tail.events)),
            ("content", content),
            ("they come to", f"{tail.state.digest} by {tail.state.reducer}, version {tail.state.version}"),
            ("digest", tail.digest),
        ]
    )


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@common
def import_(file: str) -> None:
    """Take the export in FILE in, as a session with the same name, times and numbers.

    It is a session once all of it is here and as it was exported. Cut off, the same command goes on with it; imported
    before, it says as which session. Kinds of events that the node does not know are registered as the file has them.
    """
    client = settings().connect()
    with counting("importing") as on_events, unsound("FILE"):
        imported = client.sessions.import_export(file, on_events=on_events)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"session": json_of(imported.session), "known": imported.known})
        return
    session = imported.session
    if imported.known:
        click.echo(f"it was imported before, as {session.session_id}")
        return
    hashed = "; what people and models said is hashed in it" if session.origin.hashed else ""
    click.echo(f"{session.recorded} events are imported, as {session.session_id}{hashed}")
