"""`offgrid quorum …`"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.amounts import Weight, weight_of
from offgrid_tools.cli.settings import F, common, settings

if TYPE_CHECKING:
    from offgrid.v1.quorum_pb2 import Quorum


def _id(help_text: str) -> Callable[[F], F]:
    return click.option("--id", "quorum_id", required=True, metavar="QUORUM", help=help_text)


def _show(quorum: Quorum) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"quorum": json_of(quorum)})
        return
    from offgrid_tools.cli.output import ID_CHARS, facts, table, when

    verified_us = {ack.node_id: ack.verified_us for ack in quorum.acks}
    acked_us = {ack.node_id: ack.acked_us for ack in quorum.acks}
    total = sum(member.weight_milli for member in quorum.members)
    facts(
        [
            ("quorum", quorum.quorum_id),
            ("owner", quorum.owner),
            ("epoch", quorum.epoch),
            ("required", f"{weight_of(quorum.required_milli)} of {weight_of(total)}"),
            ("acked", f"{weight_of(quorum.acked_milli)}, {'reached' if quorum.reached else 'not reached'}"),
            ("created", when(quorum.created_us)),
        ]
    )
    table(
        ("member", "id", "weight", "domain", "state", "acked", *(("verified",) if any(verified_us.values()) else ())),
        (
            (
                member.name,
                member.node_id[:ID_CHARS],
                weight_of(member.weight_milli),
                member.failure_domain,
                "alive" if member.alive else "not alive",
                when(acked_us.get(member.node_id, 0)),
                *((when(verified_us.get(member.node_id, 0)),) if any(verified_us.values()) else ()),
            )
            for member in quorum.members
        ),
        empty="it has no members",
    )


@click.command()
@_id("What it is called: letters, digits and . _ : -, such as mission:abc123.")
@click.option("--required", type=Weight(), required=True, help="The weight of acks that it takes, such as 2.0.")
@click.option("--member", "members", multiple=True, metavar="NODE",
              help="Who counts, by id or name; repeat it. [default: every member of the mesh]")  # fmt: skip
@common
def create(quorum_id: str, required: int, members: tuple[str, ...]) -> None:
    """Create a quorum that this node owns."""
    _show(settings().connect().quorum.create(quorum_id, required, members))


@click.command()
@_id("Which quorum of this node's.")
@click.option("--node", metavar="NODE", default="", help="Whose ack, by id or name. [default: this node's]")
@common
def ack(quorum_id: str, node: str) -> None:
    """Ask a member for its signed ack."""
    _show(settings().connect().quorum.ack(quorum_id, node))


@click.command()
@_id("Which quorum: this node's own, or one that it keeps track of as a broker.")
@click.option(
    "--owner", metavar="NODE", default="", help="Whose, by id or name, where several nodes own one of that id."
)
@common
def status(quorum_id: str, owner: str) -> None:
    """Show who counts, who acked, and whether that is enough."""
    _show(settings().connect().quorum.status(quorum_id, owner))


@click.command("list")
@click.option("--objects", "with_objects", is_flag=True, help="Those of objects too.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def list_(with_objects: bool, limit: int) -> None:
    """List quorums: this node's own, and those that it keeps track of as a broker."""
    found = settings().connect().quorum.list(with_objects=with_objects, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"quorums": [json_of(quorum) for quorum in found]})
        return
    from offgrid_tools.cli.output import ID_CHARS, table, when

    table(
        ("quorum", "owner", "epoch", "acked", "required", "state", "created"),
        (
            (
                quorum.quorum_id,
                quorum.owner[:ID_CHARS],
                quorum.epoch,
                weight_of(quorum.acked_milli),
                weight_of(quorum.required_milli),
                "reached" if quorum.reached else "open",
                when(quorum.created_us),
            )
            for quorum in found
        ),
        empty="there are no quorums",
    )
