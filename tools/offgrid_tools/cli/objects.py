"""`offgrid put`, `get`, `ls`, `info` and `outbox`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import Weight, weight_of
from offgrid_tools.cli.files import TargetFile, opened, plain
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.waiting import acks_of, reading_waits, waiting

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import Object

NAME_CHARS_MAX = 256


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--name", help="What to call it. [default: the file's name]")
@click.option(
    "--required",
    "required_milli",
    type=Weight(),
    metavar="WEIGHT",
    help="The weight of acks that makes it durable, such as 2.0. [default: as configured]",
)
@click.option("--wait/--no-wait", default=True, help="Wait until so much has acked. [default: wait]")
@click.option("--timeout", type=FiniteRange(0.001, 4_000_000), metavar="SECONDS", help="Wait no longer.")
@click.option("--request-id", default="", help="Makes the put safe to repeat. [default: a fresh one]")
@common
def put(
    file: str, name: str | None, required_milli: int | None, wait: bool, timeout: float | None, request_id: str
) -> None:
    """Store FILE (- is standard input) sealed in the mesh.

    \b
    offgrid put notes.txt
    tar c photos | offgrid put - --name photos.tar --required 3.0
    """
    if name is None:
        name = "" if file == "-" else plain(Path(file).name)[:NAME_CHARS_MAX]
    elif plain(name) != name:
        raise click.BadParameter(f"{plain(name)} has characters that are no text", param_hint="'--name'")
    with opened(file) as stream, _bar("sealing") as on_progress:
        client = settings().connect()
        made = client.objects.put(
            stream,
            name=name,
            required_milli=required_milli or 0,
            request_id=request_id,
            on_progress=on_progress,
        )
    if wait:
        with waiting() as on_change:
            made = client.objects.wait_durable(made.object_id, timeout_s=timeout, on_change=on_change)
    _show(made)


@click.command("get")
@click.argument("object", metavar="OBJECT")
@click.option(
    "-o",
    "--output",
    type=TargetFile(),
    help="Write it here; - is standard output. [default: its name, which must be free]",
)
@click.option(
    "--timeout",
    type=FiniteRange(0.001, 4_000_000),
    default=30.0,
    metavar="SECONDS",
    help="How long to go on asking for a part that no host gives. [default: 30]",
)
@common
def get(object: str, output: str | None, timeout: float) -> None:  # noqa: A002 - what the wire calls it
    """Read OBJECT (an id, its first characters, or a name) back, verified.

    \b
    offgrid get notes.txt -o copy.txt
    offgrid get o-4f7k -o - | tar t
    """
    client = settings().connect()
    made = client.objects.get(object)
    path = output or _free_name(made)
    target = sys.stdout.buffer if path == "-" else path
    with _bar("reading") as on_progress:
        size = client.objects.fetch(
            made.object_id, target, on_progress=on_progress, on_wait=reading_waits(made, timeout), timeout_s=timeout
        )
    if path == "-":
        sys.stdout.flush()
        return
    if settings().json:
        from offgrid_tools.cli.json_form import emit

        emit({"object_id": made.object_id, "name": made.name, "size_bytes": size, "path": _text_of(path)})
        return
    from offgrid_tools.cli.output import clean
    from offgrid_tools.cli.output import size as size_of

    click.echo(f"{size_of(size)} in {clean(path)}")


def _text_of(path: str) -> str:
    """A path for JSON, which has no room for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _free_name(made: Object) -> str:
    """The object's own name as a file's. Raises click's usage error when it is none, or taken."""
    from offgrid_tools.cli.output import clean

    path = Path(made.name)
    if not made.name or path.name != made.name or made.name.startswith(".") or made.name == "-":
        raise click.UsageError(f"{clean(made.name) or 'the object'} is no name for a file here; say where: -o FILE")
    if os.path.lexists(path):  # a link that leads nowhere yet is not ours to follow
        raise click.UsageError(f"{clean(made.name)} is there already; say where: -o FILE")
    return made.name


@click.command()
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@click.option("--deleted", is_flag=True, help="What was deleted, and which hosts have yet to hear of it.")
@common
def ls(limit: int, deleted: bool) -> None:
    """List this node's own objects."""
    client = settings().connect()
    if deleted:
        from offgrid_tools.cli.removing import show_deleted

        show_deleted(client, limit or None)
        return
    found = client.objects.list(limit=limit or None)
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"objects": [json_of(made) for made in found]})
        return
    from offgrid.v1.objects_pb2 import ObjectState
    from offgrid_tools.cli.output import cut, size, table, when, word

    table(
        ("object", "name", "size", "state", "acks", "hosts", "created"),
        (
            (o.object_id, cut(o.name), size(o.size_bytes), word(ObjectState, o.state), acks_of(o), len(o.acks),
             when(o.created_us))
            for o in sorted(found, key=lambda o: o.created_us)
        ),
        empty="there are no objects",
    )  # fmt: skip


@click.command()
@click.argument("object", metavar="OBJECT")
@common
def info(object: str) -> None:  # noqa: A002 - what the wire calls it
    """Show one object: its state, and which hosts acked it."""
    _show(settings().connect().objects.get(object))


@click.group(invoke_without_command=True)
@click.option("--open", "open_only", is_flag=True, help="Only what is still on its way.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
@click.pass_context
def outbox(context: click.Context, open_only: bool, limit: int) -> None:
    """What is on its way to its hosts, and what has got there."""
    if context.invoked_subcommand is not None:
        return
    client = settings().connect()
    found = client.objects.outbox(open_only=open_only, limit=limit or None)
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"entries": [json_of(entry) for entry in found]})
        return
    from offgrid.v1.objects_pb2 import OutboxStatus
    from offgrid_tools.cli.output import cut, table, when, word

    table(
        ("id", "key", "type", "status", "acks", "tries", "object", "created", "trouble"),
        (
            (e.id, cut(e.key), e.etype, word(OutboxStatus, e.status), acks_of(e), e.tries, e.object_id,
             when(e.created_us), e.trouble)
            for e in found
        ),
        empty="nothing waits" if open_only else "the outbox is empty",
    )  # fmt: skip


@outbox.command()
@click.argument("entry_id", metavar="ID", type=click.IntRange(1, 2**64 - 1))
@common
def cancel(entry_id: int) -> None:
    """Give up entry ID, which is not completed: its object stays on this node and goes nowhere any more."""
    entry = settings().connect().objects.cancel(entry_id)
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"entry": json_of(entry)})
        return
    click.echo(f"entry {entry.id} is cancelled; {entry.object_id} is kept on this node alone")


def _show(made: Object) -> None:
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"object": json_of(made)})
        return
    from offgrid.v1.objects_pb2 import ObjectState
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import facts, size, when, word

    names = node_names(settings().connect())
    facts(
        [
            ("object", made.object_id),
            ("name", made.name),
            ("size", size(made.size_bytes)),
            ("state", word(ObjectState, made.state)),
            ("acks", acks_of(made)),
            *(
                (f"  {named(ack.node_id, names)}", f"{weight_of(ack.weight_milli)} at {when(ack.acked_us)}")
                for ack in made.acks
            ),
            ("trouble", made.trouble),
            ("kept here", "yes" if made.local else "no"),
            ("created", when(made.created_us)),
        ]
    )


@contextmanager
def _bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    """How far it has come, on standard error, where that is a terminal."""
    if settings().json or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
