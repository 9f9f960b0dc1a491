"""`offgrid audit`: whether the hosts of an object have what they acked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import AuditObjectResponse


@click.command()
@click.argument("object", metavar="OBJECT")
@common
def audit(object: str) -> int:  # noqa: A002 - what the wire calls it
    """Ask all hosts of OBJECT to show that they have what they acked, in 7 bytes a shard.

    What is not whole is brought anew. Ends with 1 where something was wrong or gone, with 5 where nothing can be told.
    """
    client = settings().connect()
    with working("asking its hosts"):
        answer = client.objects.audit(object)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(json_of(answer))
    else:
        from offgrid_tools.cli.jobs import node_names

        _show(answer, node_names(client))
    return _exit_code(answer)


def _show(answer: AuditObjectResponse, names: dict[str, str]) -> None:
    from offgrid.v1.objects_pb2 import OBJECT_STATE_DURABLE, AuditOutcome
    from offgrid_tools.cli.jobs import named
    from offgrid_tools.cli.output import say, size, table, when, word

    made = answer.object
    table(
        ("host", "shards", "outcome", "why"),
        (
            (
                named(host.node_id, names),
                " ".join(map(str, host.shards)) or "copy",
                word(AuditOutcome, host.outcome),
                host.reason,
            )
            for host in answer.hosts
        ),
        empty="no host has acked it",
    )
    read = f", and {size(answer.read_bytes)} of shards were read" if answer.read_bytes else ""
    click.echo(f"{size(answer.traffic_bytes)} of questions and answers{read}")
    if made.verified_us:
        state = "verified" if made.state == OBJECT_STATE_DURABLE else "not durable yet"
        say(f"{made.object_id} is {state}: all that was acked is there, as of {when(made.verified_us)}")


def _exit_code(answer: AuditObjectResponse) -> int:
    from offgrid.v1.objects_pb2 import AUDIT_OUTCOME_MISSING, AUDIT_OUTCOME_WHOLE, AUDIT_OUTCOME_WRONG

    found = {host.outcome for host in answer.hosts}
    if found & {AUDIT_OUTCOME_MISSING, AUDIT_OUTCOME_WRONG}:
        return exits.FAILED
    return exits.OK if AUDIT_OUTCOME_WHOLE in found else exits.UNAVAILABLE
