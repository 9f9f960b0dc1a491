"""`offgrid ls`, `info` and `outbox`: what there is. `putting.py` and `getting.py` have the ways in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import weight_of
from offgrid_tools.cli.losses import survives
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.waiting import acks_of

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import Object, ReplicaAck


@click.command()
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@click.option("--deleted", is_flag=True, help="What was deleted, and which hosts have yet to hear of it.")
@click.option("--shared", is_flag=True, help="What other nodes let this one read, in place of its own.")
@click.option("-l", "--long", is_flag=True, help="Also what may be lost before each of them is.")
@common
def ls(prefix: str, limit: int, deleted: bool, shared: bool, long: bool) -> None:
    """List this node's own objects, or those whose names begin with PREFIX.

    \b
    offgrid ls photos/
    offgrid ls --deleted
    """
    client = settings().connect()
    if deleted:
        from offgrid_tools.cli.removing import show_deleted

        show_deleted(client, limit or None)
        return
    found = [*client.objects.list(prefix, shared=shared, limit=limit or None)]
    if shared and not settings().json:
        from offgrid_tools.cli.sharing import show_shared

        show_shared(client, found)
        return
    show_list(found, empty=f"there are no objects{' whose names begin so' if prefix else ''}", long=long)


def show_list(found: list[Object], *, empty: str, long: bool = False) -> None:
    """A table of objects, the oldest first; for scripts a document."""
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"objects": [json_of(made) for made in found]})
        return
    from offgrid.v1.objects_pb2 import ObjectState
    from offgrid_tools.cli.output import cut, size, table, when, word

    table(
        ("object", "name", "size", "state", "acks", "hosts", "created", *(("survives",) if long else ())),
        (
            (o.object_id, o.name if long else cut(o.name), size(o.size_bytes), word(ObjectState, o.state), acks_of(o),
             len(o.acks), when(o.created_us), *((survives(o, {}),) if long else ()))
            for o in sorted(found, key=lambda o: o.created_us)
        ),
        empty=empty,
    )  # fmt: skip


@click.command()
@click.argument("object", metavar="OBJECT")
@common
def info(object: str) -> None:  # noqa: A002 - what the wire calls it
    """Show one object: its state, which hosts keep it, and what may be lost before it is."""
    show(settings().connect().objects.get(object))


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


def show(made: Object) -> None:
    if settings().json:
        from offgrid_tools.cli.json_form import emit, json_of

        emit({"object": json_of(made)})
        return
    from offgrid.v1.objects_pb2 import ObjectState
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import facts, size, when, word

    names = node_names(settings().connect())
    readers = [named(wrap.node_id, names) for wrap in made.manifest.wraps if wrap.node_id != made.owner]
    facts(
        [
            ("object", made.object_id),
            ("name", made.name),
            ("owner", named(made.owner, names)),
            ("readers", ", ".join(sorted(readers))),
            ("size", size(made.size_bytes)),
            ("state", word(ObjectState, made.state)),
            (
                "kept as",
                f"any {made.shards_needed} of {made.shards_total} shards" if made.shards_needed else "full copies",
            ),
            ("acks", acks_of(made)),
            *(
                (
                    f"  {named(ack.node_id, names)}",
                    f"{weight_of(ack.weight_milli)} at {when(ack.acked_us)}{_shards(ack)}",
                )
                for ack in made.acks
            ),
            ("survives", survives(made, names)),
            ("trouble", made.trouble),
            ("expires", when(made.expires_us) if made.expires_us else ""),
            ("kept here", "yes" if made.local else "no"),
            ("created", when(made.created_us)),
        ]
    )


def _shards(ack: ReplicaAck) -> str:
    numbers = ", ".join(map(str, ack.shards))
    return f", shard{'s' if len(ack.shards) > 1 else ''} {numbers}" if numbers else ""
