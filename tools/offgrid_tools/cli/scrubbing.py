"""`offgrid scrub`: whether this host's disk still has what it keeps for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid.command_line.terminal import counted
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offgrid.client import Client
    from offgrid.v1.objects_pb2 import ScrubReplicasResponse

MB = 1_000_000


@click.command()
@click.argument("object", metavar="[OBJECT]", default="")
@click.option(
    "--mb-per-s",
    type=FiniteRange(0.1, 1_000_000),
    metavar="MB",
    help="Read at most so much a second. [default: as fast as the disk gives it, other work first]",
)
@common
def scrub(object: str, mb_per_s: float | None) -> int:  # noqa: A002 - what the wire calls it
    """Read all that this node keeps for others, now, and hash it; or OBJECT alone, by its id or the first characters.

    What is damaged or gone its owner is told, who brings it again. Ctrl-C ends it. Ends with 1 where something was
    damaged or gone, with 5 where the disk would not give something for now. One at a time.
    """
    client = settings().connect()
    found = client.objects.scrub(object, bytes_per_s=int((mb_per_s or 0) * MB))
    return _exit_code(_follow_json(found) if settings().json else _follow(client, found))


def _follow_json(found: Iterable[ScrubReplicasResponse]) -> ScrubReplicasResponse:
    from offgrid.v1.objects_pb2 import ScrubReplicasResponse
    from offgrid_tools.cli.emitting import emit

    last = ScrubReplicasResponse()
    for last in found:
        emit(last)
    return last


def _follow(client: Client, found: Iterable[ScrubReplicasResponse]) -> ScrubReplicasResponse:
    from offgrid.command_line.terminal import clean
    from offgrid.v1.objects_pb2 import DamagedShard, ScrubReplicasResponse
    from offgrid_tools.cli.bars import bar
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.output import size

    last, lost, names = ScrubReplicasResponse(), list[DamagedShard](), dict[str, str]()
    try:
        with bar("reading") as advance:
            for last in found:
                advance(last.read_bytes, last.total_bytes)
                lost.extend(last.damaged)
                names = names or (node_names(client) if lost else {})
    finally:  # of one that was ended too; not before, since the bar would swallow it
        for each in lost:
            owner = clean(named(each.owner, names))
            click.echo(f"{clean(each.object_id)} shard {each.shard}, kept for {owner}, is damaged or gone")
    unread = f", {last.unread_total} could not be read for now" if last.unread_total else ""
    told = "; the owners are told" if last.damaged_total else ""
    click.echo(
        f"{counted(last.shards, 'shard')}, {size(last.read_bytes)} read: "
        f"{last.damaged_total} damaged or gone{unread}{told}"
    )
    return last


def _exit_code(last: ScrubReplicasResponse) -> int:
    if last.damaged_total:
        return exits.FAILED
    return exits.UNAVAILABLE if last.unread_total or not last.done else exits.OK
