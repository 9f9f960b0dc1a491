"""`offgrid mission …`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Mission


def _show(mission: Mission) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"mission": json_of(mission)})
        return
    from offgrid_tools.cli.output import facts, when

    facts(
        [
            ("mission", mission.mission_id),
            ("title", mission.title),
            ("description", mission.description),
            ("status", mission.status),
            ("created", when(mission.created_us)),
            ("updated", when(mission.updated_us)),
        ]
    )


@click.command()
@click.argument("title")
@click.option("--description", metavar="TEXT", default="", help="What it is for.")
@common
def create(title: str, description: str) -> None:
    """Create a mission called TITLE."""
    _show(settings().connect().missions.create(title, description))


@click.command("list")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def list_(limit: int) -> None:
    """List missions."""
    found = settings().connect().missions.list(limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"missions": [json_of(mission) for mission in found]})
        return
    from offgrid_tools.cli.output import table, when

    table(
        ("mission", "status", "created", "title"),
        ((m.mission_id, m.status, when(m.created_us), m.title) for m in found),
        empty="there are no missions",
    )


@click.command()
@click.argument("mission_id", metavar="MISSION")
@common
def show(mission_id: str) -> None:
    """Show one mission."""
    _show(settings().connect().missions.show(mission_id))


@click.command()
@click.argument("mission_id", metavar="MISSION")
@click.option("--title", metavar="TEXT", help="Its new title.")
@click.option("--description", metavar="TEXT", help="Its new description.")
@click.option("--status", type=click.Choice(["active", "completed"]), help="A completed mission takes no more tasks.")
@common
def update(mission_id: str, title: str | None, description: str | None, status: str | None) -> None:
    """Change a mission, or complete it."""
    if title is None and description is None and status is None:
        raise click.UsageError("nothing to change: give --title, --description or --status")
    client = settings().connect()
    _show(client.missions.update(mission_id, title=title, description=description, status=status))
