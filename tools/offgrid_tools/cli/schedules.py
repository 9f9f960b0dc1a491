"""`offgrid schedule …`: jobs that the core makes by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from offgrid_tools.cli.job_options import options_of, payload_of, program_options, term_options
from offgrid_tools.cli.job_run import ARGS, FILE, MODE, TASK
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Schedule


@click.command()
@click.argument("cron")
@FILE
@ARGS
@program_options
@click.option("--name", metavar="NAME", default="", help="What people call it.")
@click.option(
    "--timezone", metavar="ZONE", default="UTC", show_default=True, help="That the times are meant in: Europe/Berlin."
)
@click.option("--no-overlap", is_flag=True, help="Pass a time over while the last job is still open.")
@click.option("--catch-up", is_flag=True, help="Make up for the last time that passed while the node was down.")
@TASK
@MODE
@term_options
@common
def add(cron: str, file: str, args: tuple[str, ...], name: str, timezone: str, no_overlap: bool, catch_up: bool,
        task_id: str, mode: str | None, **said: Any) -> None:  # fmt: skip
    """Add a schedule: run a program on FILE (- is standard input) at every time that CRON names."""
    payload, options = payload_of(file, args, said), options_of(said)
    made = settings().connect().schedules.create(
        cron, payload, name=name, timezone=timezone, no_overlap=no_overlap, catch_up=catch_up, task_id=task_id,
        mode=mode or "", **options,
    )  # fmt: skip
    _show(made)


@click.command("list")
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def list_(limit: int) -> None:
    """List schedules."""
    found = settings().connect().schedules.list(limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"schedules": [json_of(schedule) for schedule in found]})
        return
    from offgrid_tools.cli.output import cut, table, when

    table(
        ("schedule", "cron", "timezone", "next", "last job", "name", "trouble"),
        (
            (s.schedule_id, s.cron, s.timezone, "paused" if s.paused else when(s.next_us), s.last_job_id, cut(s.name),
             s.trouble)
            for s in found
        ),
        empty="there are no schedules",
    )  # fmt: skip


@click.command()
@click.argument("schedule_id", metavar="SCHEDULE")
@common
def pause(schedule_id: str) -> None:
    """Pause a schedule: it makes no jobs until it is resumed."""
    _show(settings().connect().schedules.pause(schedule_id))


@click.command()
@click.argument("schedule_id", metavar="SCHEDULE")
@common
def resume(schedule_id: str) -> None:
    """Resume a schedule with the next time that is due."""
    _show(settings().connect().schedules.pause(schedule_id, paused=False))


@click.command()
@click.argument("schedule_id", metavar="SCHEDULE")
@common
def rm(schedule_id: str) -> None:
    """Remove a schedule; jobs that it has made go on."""
    settings().connect().schedules.delete(schedule_id)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"schedule_id": schedule_id})
        return
    click.echo(f"removed {schedule_id}")


def _show(schedule: Schedule) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"schedule": json_of(schedule)})
        return
    from offgrid_tools.cli.output import facts, when

    facts(
        [
            ("schedule", schedule.schedule_id),
            ("name", schedule.name),
            ("task", schedule.task_id),
            ("cron", f"{schedule.cron} ({schedule.timezone})"),
            ("next", "paused" if schedule.paused else when(schedule.next_us)),
            ("last job", schedule.last_job_id),
        ]
    )
