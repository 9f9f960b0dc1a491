"""`offgrid market`: a broker's live book of standing offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import BookEntry

COLUMNS = ("host", "name", "state", "free", "executors", "kinds", "price", "for", "standing", "longer by", "has")


@click.command()
@common
def market() -> None:
    """Show the standing offers in this node's book (brokers have one).

    A line per offer: what it is for, how many slots are free, its price per million tokens, and what this broker thinks
    of the host: its standing from 0 to 1 (0.5: nobody knows it), and by how much its jobs take longer than those
    of others (less than 0: they are quicker).
    """
    answer = settings().connect().market.offers()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import table

    rows = (row for entry in answer.entries for row in rows_of(entry))
    table(COLUMNS, rows, empty="this node's book holds no offers; brokers have them, `offgrid peers` says who is one")
    if answer.queued:
        click.echo(f"{answer.queued} orders wait for a free slot")


def rows_of(entry: BookEntry) -> Iterator[tuple[str, ...]]:
    """One for each of the host's offers; what is the host's own stands in the first."""
    from offgrid_tools.cli.output import ID_CHARS, number

    profile = entry.profile
    state = "paused" if entry.paused else "alive" if entry.alive else "dead"
    host = (profile.host[:ID_CHARS], profile.name, state)
    thought = (number(round(entry.reputation, 2)), f"{entry.latency_ms:+.0f} ms")
    for index, offer in enumerate(entry.offers):
        yield (
            *(host if not index else ("", "", "")),
            f"{min(entry.slots_free, offer.slots)}/{min(profile.slots, offer.slots)}",
            " ".join(offer.executors),
            " ".join(offer.kinds),
            number(offer.ask_micro / 1e6),
            " ".join(owner[:ID_CHARS] for owner in offer.owners) or "all",
            *(thought if not index else ("", "")),
            _has(entry) if not index else "",
        )


def _has(entry: BookEntry) -> str:
    """Memory, graphics cards and labels, where there are any."""
    profile = entry.profile
    memory = [f"{profile.memory_mb} MiB"] if profile.memory_mb else []
    labels = [f"{key}={value}" for key, value in sorted(profile.labels.items())]
    return " ".join([*memory, *(gpu.model for gpu in profile.gpus), *labels])
