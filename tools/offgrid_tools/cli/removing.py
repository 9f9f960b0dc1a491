"""`offgrid rm`, and what `offgrid ls --deleted` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.trees import none_below

if TYPE_CHECKING:
    from offgrid.client import Client


@click.command()
@click.argument("objects", metavar="OBJECT...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="A name that ends with / is all objects below it.")
@common
def rm(objects: tuple[str, ...], recursive: bool) -> None:
    """Delete each OBJECT (an id, its first characters, or a name), for good.

    It is gone here at once. Hosts that are away hear of it when they are back; `offgrid ls --deleted` shows which.

    \b
    offgrid rm notes.txt
    offgrid rm -r photos/
    """
    client = settings().connect()
    marks = [client.objects.delete(each) for wanted in objects for each in _meant(client, wanted, recursive)]
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"deletions": [json_of(mark) for mark in marks]})
        return
    from offgrid_tools.cli.output import clean

    for mark in marks:
        name = f" ({clean(mark.name)})" if mark.name else ""
        told = f"; {len(mark.untold)} hosts are told" if mark.untold else ""
        click.echo(f"{mark.object_id}{name} is deleted{told}")


def _meant(client: Client, wanted: str, recursive: bool) -> list[str]:
    if not wanted.endswith("/"):
        return [wanted]
    if not recursive:
        raise click.UsageError(f"{wanted} is a folder; -r deletes all that is below it")
    found = [made.object_id for made in client.objects.list(wanted)]
    if not found:
        raise none_below(wanted)
    return found


def show_deleted(client: Client, limit: int | None) -> None:
    """What some host has not heard of yet, and which."""
    marks = client.objects.deletions(untold_only=True, limit=limit)
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

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
