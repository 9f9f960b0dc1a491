"""`offgrid state retention` and `offgrid state pin`: what may be kept, what is, and what stays whatever has to go."""

from __future__ import annotations

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.settings import common, settings

MIB = 1024 * 1024


@click.command()
@common
def retention() -> None:
    """Show how much may be kept of what, how much is, and what has gone.

    The budget is storage.retention_base_mb times one more than storage.retention_token_level.
    """
    told = settings().connect().events.retention()
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"retention": json_of(told)})
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import size, table, when

    level = told.budget_bytes // told.base_bytes - 1
    click.echo(f"budget {told.budget_bytes // MIB} MB: {told.base_bytes // MIB} MB x (1 + level {level})")
    table(
        ("what", "share", "may take", "takes"),
        ((s.name, f"{s.percent} %", f"{s.budget_bytes // MIB} MB", size(s.used_bytes)) for s in told.shares),
        empty="there are no shares",
    )
    gone = told.dropped
    if gone.events:
        why = "the budget was full" if gone.why == "budget" else f"they were {told.cleanup_days} days old"
        click.echo(
            f"dropped {counted(gone.events, 'event')} of the journal, up to {told.journal_floor}, and "
            f"{gone.session_events} of sessions ({size(gone.bytes)}), last {when(gone.last_us)}: {why}"
        )
    if told.held:
        click.echo(clean(told.held))


@click.command()
@click.argument("session", metavar="SESSION")
@click.option("--off", is_flag=True, help="It is pinned no more.")
@common
def pin(session: str, off: bool) -> None:
    """Keep all that SESSION said, whatever else has to go; its id, or a name: the newest of that name.

    A pin that would bring what all pinned sessions have above the share of events is refused.
    """
    told = settings().connect().sessions.pin(session, pinned=not off)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"session": json_of(told)})
        return
    click.echo(f"{told.session_id} is pinned" if told.pinned else f"{told.session_id} is not pinned")
