"""`offgrid get`: one object, a part of it, or all whose names lie below one folder, back into files or a pipe."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offgrid_tools.cli.bars import bar
from offgrid_tools.cli.files import TargetFile
from offgrid_tools.cli.listing import sound
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.trees import none_below, place_in
from offgrid_tools.cli.waiting import reading_waits

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.objects_pb2 import Object


Span = tuple[int | None, int | None]
"""First and last byte; None first: so many as `last` says, at the end."""


class ByteRange(click.ParamType["Span"]):
    """First and last byte, as HTTP says it: 0-99, 100- to the end, -100 for the last hundred."""

    name = "A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        said = re.fullmatch(r"(\d{0,19})-(\d{0,19})", str(value))
        if said is None or not any(said.groups()):
            self.fail(f"{value!r} is no range; such are 0-99, 100- and -100", param, ctx)
        first, last = (int(part) if part else None for part in said.groups())
        if first is not None and last is not None and last < first:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return first, last


def span_of(wanted: Span, size: int) -> tuple[int, int]:
    """Offset and length within an object of that size. Raises click's usage error where nothing of it is there."""
    first, last = wanted
    if first is None:
        assert last is not None
        first, last = max(0, size - last), None
    if first >= size:
        raise click.UsageError(f"the range begins at {first}, and the object has {size} bytes")
    return first, (size if last is None else min(size, last + 1)) - first


@click.command("get")
@click.argument("object", metavar="OBJECT")
@click.option(
    "-o",
    "--output",
    type=click.Path(allow_dash=True),
    help="Write it here; - is standard output. [default: its name, which must be free]",
)
@click.option("--range", "wanted", type=ByteRange(), help="Only these bytes: 0-99, 100- or -100.")
@click.option(
    "--timeout",
    type=FiniteRange(0.001, 4_000_000),
    default=30.0,
    metavar="SECONDS",
    help="How long to go on asking for a part that no host gives. [default: 30]",
)
@common
@click.pass_context
def get(
    context: click.Context,
    object: str,  # noqa: A002 - what the wire calls it
    output: str | None,
    wanted: Span | None,
    timeout: float,
) -> None:
    """Read OBJECT (an id, its first characters, or a name) back, verified; a name that ends with / is a folder.

    What another node shares with this one may be named as OWNER/ID or OWNER/NAME, and must be where several share it.

    When a get is cut off, the same command goes on behind what of it has come and is right.
    """
    if object.endswith("/"):
        if wanted is not None or output == "-":
            raise click.UsageError(f"{object} is a folder: it goes whole into files; -o says where")
        _get_folder(object, output, timeout)
        return
    if output is not None:
        (target,) = (parameter for parameter in context.command.params if parameter.name == "output")
        output = TargetFile().convert(output, target, context)
    _get_one(object, output, wanted, timeout)


def _get_one(name: str, output: str | None, wanted: Span | None, timeout: float) -> None:
    from offgrid.client.object_parts import exactly

    client = settings().connect()
    made = client.objects.get(name)
    path = output or _free_name(made)
    offset, length = span_of(wanted, made.size_bytes) if wanted else (0, None)
    with bar("reading") as on_progress:
        size = client.objects.fetch(
            exactly(made),
            sys.stdout.buffer if path == "-" else path,
            offset=offset,
            length=length,
            on_progress=on_progress,
            on_wait=reading_waits(made, timeout),
            timeout_s=timeout,
            resume=True,
        )
    if path == "-":
        sys.stdout.flush()
    else:
        _tell(made, size, path)


def _tell(made: Object, size: int, path: str) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(_told(made, size, path))
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import size as size_of

    click.echo(f"{size_of(size)} in {clean(path)}")


def _get_folder(prefix: str, output: str | None, timeout: float) -> None:
    """Of each name the newest. Everything is looked at before anything is written."""
    client = settings().connect()
    newest: dict[str, Object] = {}
    found, damaged = sound(client.objects.list(prefix))
    for made in found:
        if made.name not in newest or newest[made.name].created_us < made.created_us:
            newest[made.name] = made
    if not newest:
        raise damaged or none_below(prefix)
    places = {
        name: place_in(".", name) if output is None else place_in(output, name.removeprefix(prefix)) for name in newest
    }
    for name, place in sorted(places.items()):
        if output is None and os.path.lexists(place):
            raise click.UsageError(f"{click.format_filename(place)} is there already; say where: -o FOLDER ({name})")
    told, total = [], 0
    for name, made in sorted(newest.items()):
        size = _fetch_into(client, made, places[name], timeout)
        told.append(_told(made, size, str(places[name])))
        total += size
    _tell_all(told, total, output or prefix)
    if damaged is not None:
        raise damaged


def _tell_all(told: list[dict[str, object]], total: int, folder: str) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"files": told})
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import size as size_of

    files = "1 file" if len(told) == 1 else f"{len(told)} files"
    click.echo(f"{files}, {size_of(total)} in {clean(folder)}")


def _fetch_into(client: Client, made: Object, place: Path, timeout: float) -> int:
    from offgrid.client.object_parts import exactly

    place.parent.mkdir(parents=True, exist_ok=True)
    with bar(f"reading {made.name}") as on_progress:
        return client.objects.fetch(
            exactly(made),
            place,
            on_progress=on_progress,
            on_wait=reading_waits(made, timeout),
            timeout_s=timeout,
            resume=True,
        )


def _told(made: Object, size: int, path: str) -> dict[str, object]:
    return {"object_id": made.object_id, "name": made.name, "size_bytes": size, "path": _text_of(path)}


def _text_of(path: str) -> str:
    """A path for JSON, which has no room for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _free_name(made: Object) -> str:
    """The object's own name as a file's. Raises click's usage error when it is none, or taken."""
    from offgrid.command_line.terminal import clean

    path = Path(made.name)
    if not made.name or path.name != made.name or made.name.startswith(".") or made.name == "-":
        raise click.UsageError(f"{clean(made.name) or 'the object'} is no name for a file here; say where: -o FILE")
    if os.path.lexists(path):  # a link that leads nowhere yet is not ours to follow
        raise click.UsageError(f"{clean(made.name)} is there already; say where: -o FILE")
    return made.name
