"""`offgrid share` and `unshare`, and what `offgrid ls --shared` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.objects_pb2 import Object


@click.command()
@click.argument("object", metavar="OBJECT")
@click.argument("node", metavar="NODE")
@common
def share(object: str, node: str) -> None:  # noqa: A002 - what the wire calls it
    """Let NODE (an id, its first characters, or a name) read OBJECT.

    The object stays where it is; its key is sealed for that node, which hears of it as soon as it is alive.
    """
    made = settings().connect().objects.share(object, node)
    _say(made, f"{made.object_id} may be read by {node}")


@click.command()
@click.argument("object", metavar="OBJECT")
@click.argument("node", metavar="NODE")
@common
def unshare(object: str, node: str) -> None:  # noqa: A002 - what the wire calls it
    """Tell NODE of OBJECT no more. What it has read, and the key that it had, stay with it."""
    made = settings().connect().objects.unshare(object, node)
    _say(made, f"{made.object_id} is not shared with {node} any more; what it has read stays with it")


def show_shared(client: Client, found: Sequence[Object]) -> None:
    """Whose, and what it is called there."""
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import cut, size, table, when

    names = node_names(client)
    table(
        ("object", "owner", "name", "size", "created"),
        (
            (o.object_id, named(o.owner, names), cut(o.name), size(o.size_bytes), when(o.created_us))
            for o in sorted(found, key=lambda o: o.created_us)
        ),
        empty="nobody shares anything with this node",
    )


def _say(made: Object, words: str) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"object": json_of(made)})
        return
    from offgrid.command_line.terminal import clean

    click.echo(clean(words))
