"""`offgrid ls`, `info` and `outbox`: what there is. `putting.py` and `getting.py` have the ways in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line.groups import Group
from offgrid_tools.cli.amounts import weight_of
from offgrid_tools.cli.listing import sound
from offgrid_tools.cli.losses import survives
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.waiting import acks_of

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import Object, ReplicaAck


@click.command()
@click.argument("prefix", default="")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@click.option("--deleted", is_flag=True, help="What was deleted, and which hosts have yet to hear of it.")
@click.option("--regained", is_flag=True, help="What this node forgot with its disk: what is back, and what not yet.")
@click.option("--shared", is_flag=True, help="What other nodes let this one read, in place of its own.")
@click.option("--at-risk", is_flag=True, help="Those alone that are gone, or may be with one more host.")
@click.option("-l", "--long", is_flag=True, help="Also what may be lost before each of them is.")
@common
def ls(prefix: str, limit: int, deleted: bool, regained: bool, shared: bool, at_risk: bool, long: bool) -> None:
    """List this node's own objects, or those whose names begin with PREFIX."""
    if (deleted or regained) and (any((prefix, shared, at_risk, long)) or deleted is regained):
        alone = "--deleted" if deleted else "--regained"
        raise click.UsageError(f"{alone} is a list of its own: beside it no PREFIX, and of the options --limit alone")
    client = settings().connect()
    if deleted:
        from offgrid_tools.cli.removing import show_deleted

        show_deleted(client, limit or None)
        return
    if regained:
        from offgrid_tools.cli.regaining import show_regained

        show_regained(client, limit or None)
        return
    told = client.objects.list(prefix, shared=shared, endangered_only=at_risk, limit=limit or None)
    found, damaged = sound(told)
    if shared and not settings().json:
        from offgrid_tools.cli.sharing import show_shared

        show_shared(client, found)
    else:
        which = f"{' at risk' if at_risk else ''}{' whose names begin so' if prefix else ''}"
        show_list(found, empty=f"there are no objects{which}", long=long or at_risk)
    if damaged is not None:
        raise damaged


def show_list(found: list[Object], *, empty: str, long: bool = False) -> None:
    """A table of objects, the oldest first; for scripts a document."""
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"objects": [json_of(made) for made in found]})
        return
    from offgrid_tools.cli.output import cut, size, table, when

    table(
        ("object", "name", "size", "state", "acks", "hosts", "created", *(("survives",) if long else ())),
        (
            (o.object_id, o.name if long else cut(o.name), size(o.size_bytes), _state_of(o), acks_of(o),
             _hosts_of(o), when(o.created_us), *((survives(o, {}),) if long else ()))
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


@click.group(cls=Group, invoke_without_command=True)
@click.option("--open", "open_only", is_flag=True, help="Only what is still on its way.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
@click.pass_context
def outbox(context: click.Context, open_only: bool, limit: int) -> None:
    """Show what is on its way to its hosts, and what has got there."""
    if context.invoked_subcommand is not None:
        return
    client = settings().connect()
    found = client.objects.outbox(open_only=open_only, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"entries": [json_of(entry) for entry in found]})
        return
    from offgrid.event_types import type_name
    from offgrid.v1.objects_pb2 import OutboxStatus
    from offgrid_tools.cli.output import cut, table, when, word

    table(
        ("id", "key", "type", "status", "acks", "tries", "object", "created", "trouble"),
        (
            (e.id, cut(e.key), type_name(e.etype), word(OutboxStatus, e.status), acks_of(e), e.tries,
             e.object_id, when(e.created_us), e.trouble)
            for e in found
        ),
        empty="nothing waits" if open_only else "the outbox is empty",
    )  # fmt: skip


@outbox.command()
@click.argument("entry_id", metavar="ENTRY", type=click.IntRange(1, 2**64 - 1))
@common
def cancel(entry_id: int) -> None:
    """Give up ENTRY, an `id` that `offgrid outbox` shows, which is not completed.

    Its object stays on this node and goes nowhere any more.
    """
    entry = settings().connect().objects.cancel(entry_id)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"entry": json_of(entry)})
        return
    click.echo(f"entry {entry.id} is cancelled; {entry.object_id} is kept on this node alone")


def show(made: Object) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"object": json_of(made)})
        return
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import facts, size, when

    names = node_names(settings().connect())
    readers = [named(wrap.node_id, names) for wrap in made.manifest.wraps if wrap.node_id != made.owner]
    coded = f"any {made.shards_needed} of {made.shards_total} shards"
    facts(
        [
            ("object", made.object_id),
            ("formerly", ", ".join(made.formerly)),
            ("name", made.name),
            ("owner", named(made.owner, names)),
            ("readers", _readers(made, sorted(readers))),
            ("size", size(made.size_bytes)),
            ("padded to", size(made.padded_bytes) if made.padded_bytes else ""),
            *([] if _is_anothers(made) else [("state", _state_of(made)), ("verified", when(made.verified_us))]),
            ("kept as", coded if made.shards_needed else "full copies"),
            *([] if _is_anothers(made) else _safety(made, names)),
            ("expires", when(made.expires_us) if made.expires_us else ""),
            ("kept here", _kept_here(made)),
            ("created", when(made.created_us)),
            ("came back", f"{when(made.regained_us)}, after the disk was lost" if made.regained_us else ""),
        ]
    )


def _readers(made: Object, readers: list[str]) -> str:
    said = ", ".join(readers)
    return f"{said or 'none known'}; `offgrid ls --regained` has who else says so" if made.regained_us else said


def _is_anothers(made: Object) -> bool:
    """Shared with this node: how safe it is its owner alone knows, and no node is told of another's acks."""
    return not made.required_milli


def _state_of(made: Object) -> str:
    from offgrid.v1.objects_pb2 import OBJECT_STATE_DURABLE, ObjectState
    from offgrid_tools.cli.output import word

    verified = made.state == OBJECT_STATE_DURABLE and made.verified_us
    return "verified" if verified else word(ObjectState, made.state)


def _safety(made: Object, names: dict[str, str]) -> list[tuple[str, object]]:
    """Who has acked it, and what may be lost."""
    from offgrid_tools.cli.jobs import named
    from offgrid_tools.cli.output import when

    acks = [
        (
            f"  {named(ack.node_id, names)}",
            f"{weight_of(ack.weight_milli)} at {when(ack.acked_us)}{_shards(ack)}"
            + (f", verified {when(ack.verified_us)}" if ack.verified_us else "")
            + (", away" if ack.away else ""),
        )
        for ack in made.acks
    ]
    return [("acks", acks_of(made)), *acks, ("survives", survives(made, names)), ("trouble", made.trouble)]


def _hosts_of(made: Object) -> str:
    """How many have acked, and how many of them are not alive."""
    away = sum(ack.away for ack in made.acks)
    return f"{len(made.acks)}, {away} away" if away else f"{len(made.acks)}"


def _kept_here(made: Object) -> str:
    from offgrid.v1.objects_pb2 import OBJECT_STATE_DAMAGED

    return ("damaged" if made.state == OBJECT_STATE_DAMAGED else "yes") if made.local else "no"


def _shards(ack: ReplicaAck) -> str:
    numbers = ", ".join(map(str, ack.shards))
    return f", shard{'s' if len(ack.shards) > 1 else ''} {numbers}" if numbers else ""
