"""`offgrid placement explain`: which host would get, or holds, what of an object, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.keeping import CodeParam
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import ExplainPlacementResponse, PlacementVerdict

POLICIES = "balanced", "latency", "bandwidth"
SHARDS_SHOWN = 6  # of one host; --json has all


@click.command()
@click.argument("object", metavar="[OBJECT]", default="")
@click.option("--size", "size_bytes", type=click.IntRange(0, 2**50), metavar="BYTES",
              help="Instead of an object: of one of this size that might be put.")  # fmt: skip
@click.option("--code", type=CodeParam(), metavar="K/N", help="It would be coded so. [default: as configured]")
@click.option("--copies", type=click.IntRange(1, 64), help="It would have so many full copies.")
@click.option("--padded/--exact", default=None, help="It would be filled up to its size's class. "
              "[default: as configured]")  # fmt: skip
@click.option("--policy", type=click.Choice(POLICIES), help="What to prefer. [default: as configured]")
@common
def explain(
    object: str,  # noqa: A002 - what the wire calls it
    size_bytes: int | None,
    code: tuple[int, int] | None,
    copies: int | None,
    padded: bool | None,
    policy: str | None,
) -> None:
    """Show what every host holds of OBJECT or would get of it now, and why; or of one that might be put."""
    if object and (size_bytes is not None or code or copies or padded is not None):
        text = "--size, --code, --copies and --padded are for an object that might be put, not for one that is"
        raise click.UsageError(text)
    if not object and size_bytes is None:
        raise click.UsageError("name an OBJECT, or say --size BYTES of one that might be put")
    if code and copies:
        raise click.UsageError("a coded object has no full copies: say only one of --code and --copies")
    answer = (
        settings()
        .connect()
        .objects.explain_placement(
            object, size_bytes=size_bytes or 0, code=code, copies=copies or 0, padded=padded, policy=policy or ""
        )
    )
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(json_of(answer))
        return
    _show(answer)


def _show(answer: ExplainPlacementResponse) -> None:
    from offgrid.v1.objects_pb2 import PlacementPolicy
    from offgrid_tools.cli.output import facts, size, table, word

    coded = answer.code.total > 1
    copies = "one copy" if answer.copies == 1 else f"{answer.copies} copies"
    how = f"any {answer.code.needed} of {answer.code.total} shards" if coded else copies
    what = "shard" if coded else "copy"
    facts(
        [
            ("object", answer.object_id or "none yet; which of equal hosts get it, its id will decide"),
            ("kept as", f"{how}, each {what} {size(answer.part_bytes)}"),
            ("policy", word(PlacementPolicy, answer.policy)),
            ("without a host", f"{answer.unplaced} of {answer.code.total if coded else answer.copies}"
             if answer.unplaced else ""),
            ("not shown", f"{counted(answer.hosts_left_out, 'host')}" if answer.hosts_left_out else ""),
        ]
    )  # fmt: skip
    table(
        ("host", "domain", "", "holds", "gets", "free here", "distance", "speed", "why"),
        (_row(verdict, coded=coded) for verdict in answer.hosts),
        empty="no host is known",
    )


def _row(verdict: PlacementVerdict, *, coded: bool) -> tuple[str, ...]:
    from offgrid.v1.objects_pb2 import PlacementOutcome
    from offgrid_tools.cli.output import ID_CHARS, duration, size, word

    return (
        verdict.name or verdict.node_id[:ID_CHARS],
        verdict.failure_domain,
        word(PlacementOutcome, verdict.outcome),
        _parts(verdict.holds, coded=coded),
        _parts(verdict.gets, coded=coded),
        size(verdict.room_bytes) if verdict.HasField("room_bytes") else "",
        duration(verdict.round_trip_ms) if verdict.HasField("round_trip_ms") else "",
        f"{size(verdict.bytes_per_s)}/s" if verdict.HasField("bytes_per_s") else "",
        verdict.reason,
    )


def _parts(shards: Sequence[int], *, coded: bool) -> str:
    if not coded:
        return "a copy" if shards else ""
    more = " …" if len(shards) > SHARDS_SHOWN else ""
    return " ".join(map(str, shards[:SHARDS_SHOWN])) + more
