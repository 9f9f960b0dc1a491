"""`offgrid task …`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Task


def _show(task: Task, counts: dict[str, int] | None = None) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"task": json_of(task), **({} if counts is None else {"counts": counts})})
        return
    from offgrid_tools.cli.output import facts, when

    facts(
        [
            ("task", task.task_id),
            ("mission", task.mission_id),
            ("name", task.name),
            ("kind", task.kind),
            ("created", when(task.created_us)),
            ("jobs", ", ".join(f"{count} {state}" for state, count in (counts or {}).items())),
        ]
    )


@click.command()
@click.argument("mission_id", metavar="MISSION")
@click.argument("name")
@click.option(
    "--kind", metavar="KIND", default="compute", show_default=True, help="What its jobs are; they inherit it."
)
@common
def create(mission_id: str, name: str, kind: str) -> None:
    """Create a task called NAME in a mission."""
    _show(settings().connect().tasks.create(mission_id, name, kind))


@click.command("list")
@click.option("--mission", "mission_id", metavar="MISSION", default="", help="Those of one mission.")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def list_(mission_id: str, limit: int) -> None:
    """List tasks."""
    found = settings().connect().tasks.list(mission_id=mission_id, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"tasks": [json_of(task) for task in found]})
        return
    from offgrid_tools.cli.output import table, when

    table(
        ("task", "mission", "kind", "created", "name"),
        ((t.task_id, t.mission_id, t.kind, when(t.created_us), t.name) for t in found),
        empty="there are no tasks",
    )


@click.command()
@click.argument("task_id", metavar="TASK")
@common
def show(task_id: str) -> None:
    """Show one task, and how many of its jobs are in which state."""
    tasks = settings().connect().tasks
    _show(tasks.show(task_id), tasks.counts(task_id))
