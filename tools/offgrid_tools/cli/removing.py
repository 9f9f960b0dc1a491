"""`offgrid rm`, and what `offgrid ls --deleted` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.listing import sound
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.trees import none_below

if TYPE_CHECKING:
    from offgrid.client import Client, OffgridError
    from offgrid.v1.objects_pb2 import Deletion


@click.command()
@click.argument("objects", metavar="OBJECT...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="A name that ends with / is all objects below it.")
@yes_option
@common
def rm(objects: tuple[str, ...], recursive: bool, yes: bool) -> None:
    """Delete each OBJECT (an id, its first characters, or a name), for good.

    It is gone here at once. Hosts that are away hear of it when they are back; `offgrid ls --deleted` shows which.
    """
    if not yes:
        more = f" and {len(objects) - 1} more" if len(objects) > 1 else ""
        be_sure(f"Delete {objects[0]}{more}, for good", "what is deleted is gone for good, here and at every host")
    client = settings().connect()
    marks: list[Deletion] = []
    damaged: OffgridError | None = None
    with working("deleting"):
        for wanted in objects:
            meant, unknown = _meant(client, wanted, recursive)
            marks += map(client.objects.delete, meant)
            damaged = damaged or unknown
    _tell(marks)
    if damaged is not None:
        raise damaged


def _tell(marks: list[Deletion]) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"deletions": [json_of(mark) for mark in marks]})
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import say

    for mark in marks:
        name = f" ({clean(mark.name)})" if mark.name else ""
        count = len(mark.untold)
        told = f"; {count} {'host is' if count == 1 else 'hosts are'} told" if count else ""
        say(f"{mark.object_id}{name} is deleted{told}")


def _meant(client: Client, wanted: str, recursive: bool) -> tuple[list[str], OffgridError | None]:
    """And what is to be said once that is deleted: which objects may be among them, but their rows are damaged."""
    if not wanted.endswith("/"):
        return [wanted], None
    if not recursive:
        raise click.UsageError(f"{wanted} is a folder; -r deletes all that is below it")
    found, damaged = sound(client.objects.list(wanted))
    if not found:
        raise damaged or none_below(wanted)
    return [made.object_id for made in found], damaged


def show_deleted(client: Client, limit: int | None) -> None:
    """What some host has not heard of yet, and which."""
    marks = client.objects.deletions(untold_only=True, limit=limit)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"deletions": [json_of(mark) for mark in marks]})
        return
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import cut, size, table, when

    names = node_names(client)
    table(
        ("object", "name", "size", "deleted", "why", "not yet told"),
        (
            (m.object_id, cut(m.name), size(m.size_bytes), when(m.deleted_us),
             "sealed anew" if m.moved_to else "deleted", ", ".join(named(node_id, names) for node_id in m.untold))
            for m in sorted(marks, key=lambda m: m.deleted_us)
        ),
        empty="every host knows what was deleted",
    )  # fmt: skip
