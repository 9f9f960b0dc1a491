"""`offgrid job dispatch`, `watch`, `list` and `show`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.files import TargetFile
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.jobs_pb2 import Job

STATES = click.Choice(["created", "queued", "awarded", "running", "completed", "failed", "cancelled", "expired"])
LIMIT_MAX = 10**9
LIST_LIMIT = 100  # jobs that somebody who looks is shown
MODES = click.Choice(["auto", "offgrid", "disabled"])


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--mode", type=MODES, help="The mesh, the local queue, or whichever works. [default: as configured]")
@common
def dispatch(job_id: str, mode: str | None) -> None:
    """Send a created job to the mesh or the local queue; doing it twice is harmless."""
    answer = settings().connect().jobs.dispatch(job_id, mode or "")
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid.v1.jobs_pb2 import Route
    from offgrid_tools.cli.output import facts, word

    facts(
        [
            ("job", answer.job.job_id),
            ("state", state_of(answer.job)),
            ("route", word(Route, answer.route)),
            ("why", answer.reason),
        ]
    )


@click.command()
@click.argument("job_id", metavar="JOB")
@common
def watch(job_id: str) -> int:
    """Follow a job until it ends. With --json one line per change."""
    client = settings().connect()
    job = None
    for job in client.jobs.watch(job_id):
        if settings().json:
            from offgrid.json_form import json_of
            from offgrid_tools.cli.emitting import emit

            emit({"job": json_of(job)})
        else:
            click.echo(change_of(job))
    return exit_code_of(job)


@click.command("list")
@click.option("--task", "task_id", metavar="TASK", default="", help="Those of one task.")
@click.option("--state", "states", multiple=True, type=STATES, help="Those in this state; repeat it for more.")
@click.option("--executions", is_flag=True, help="The executions of redundant jobs as well.")
@click.option("--oldest-first", is_flag=True, help="In the order in which they were made.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(0, LIMIT_MAX),
    help="At most so many; 0: all. [default: 100; with --json all]",
)
@common
def list_(task_id: str, states: tuple[str, ...], executions: bool, oldest_first: bool, limit: int | None) -> None:
    """List jobs, the newest first."""
    client = settings().connect()
    if limit is None:
        limit = 0 if settings().json else LIST_LIMIT
    found = client.jobs.list(
        task_id=task_id, states=states, include_executions=executions, newest_first=not oldest_first,
        limit=limit + 1 if limit else None,
    )  # fmt: skip
    shown = islice(found, limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"jobs": [json_of(job) for job in shown]})
        return
    from offgrid_tools.cli.output import cut, table, when

    names = node_names(client)
    table(
        ("job", "state", "attempt", "host", "needs", "created", "input", "error"),
        (
            (j.job_id, state_of(j), j.attempt, named(j.host, names), j.needs, when(j.created_us), cut(j.input_name),
             j.error)
            for j in shown
        ),
        empty="there are no jobs",
    )  # fmt: skip
    if next(found, None) is not None:
        click.echo(f"there are more than these {limit}: --limit says how many are shown", err=True)


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-o", "--output", "output", type=TargetFile(), help="Write the job's output here; - is stdout.")
@click.option("--save-files", "folder", type=click.Path(file_okay=False), metavar="DIR",
              help="Write the files that it left here.")  # fmt: skip
@common
def show(job_id: str, output: str | None, folder: str | None) -> None:
    """Show one job with its result and receipt."""
    client = settings().connect()
    report(client, client.jobs.get(job_id), output, folder)


def state_of(job: Job) -> str:
    from offgrid.v1.jobs_pb2 import JobState
    from offgrid_tools.cli.output import word

    return word(JobState, job.state)


def change_of(job: Job) -> str:
    """One line: where the job is now."""
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import ID_CHARS

    where = (
        f" on {job.host[:ID_CHARS]} (attempt {job.attempt})"
        if job.host and state_of(job) in ("awarded", "running")
        else ""
    )
    why = f": {clean(job.error)} {clean(job.error_detail)}".rstrip() if job.error else ""
    if job.waiting:
        why = f", waiting {clean(job.waiting)}"
    return f"{job.job_id} {state_of(job)}{where}{why}"


def exit_code_of(job: Job | None) -> int:
    """0 unless the job has ended otherwise than completed; the reason is its own field."""
    return exits.FAILED if job is not None and state_of(job) in ("failed", "cancelled", "expired") else exits.OK


def node_names(client: Client) -> dict[str, str]:
    """Node ids and what people call them; empty when the mesh cannot be asked just now."""
    from offgrid.client import OffgridError

    try:
        return {peer.member.node_id: peer.member.name for peer in client.mesh.peers(include_removed=True)}
    except OffgridError:
        return {}


def named(node_id: str, names: dict[str, str]) -> str:
    return names.get(node_id) or node_id


def report(client: Client, job: Job, output: str | None, folder: str | None = None) -> None:
    """The job, its attempts, output and receipt; the output goes to a file when one is named, what files it left into
    `folder`.

    Only a completed job's output is written. With `output` "-" standard output carries it and nothing else.
    """
    if folder is not None:
        client.jobs.write_files(job, folder)
    if output == "-":
        import sys

        client.jobs.write_output(job, sys.stdout.buffer)
        sys.stdout.flush()
        return
    if output is not None and state_of(job) == "completed":
        client.jobs.write_output(job, output)
    else:
        output = None  # what was there before is worth more than nothing
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"job": json_of(job)})
        return
    from offgrid_tools.cli.report import job_facts

    job_facts(job, node_names(client), output, executions_of(client, job))


def executions_of(client: Client, job: Job) -> list[Job]:
    """Of a redundant job, those that were made so far; they are numbered without a gap."""
    from offgrid.client import OffgridError

    made: list[Job] = []
    try:
        while job.replicas > 1:
            made.append(client.jobs.get(f"{job.job_id}.r{len(made) + 1}"))
    except OffgridError as error:
        if error.code != "NOT_FOUND":
            raise
    return made
