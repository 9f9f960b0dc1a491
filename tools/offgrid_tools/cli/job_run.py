"""`offgrid job run`, `submit` and `create`: from a file and a program to a job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from offgrid_tools.cli.files import TargetFile
from offgrid_tools.cli.job_options import options_of, payload_of, program_options, term_options
from offgrid_tools.cli.jobs import MODES, change_of, exit_code_of, report
from offgrid_tools.cli.saying import Saying
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.client.options import JobOptions
    from offgrid.v1.jobs_pb2 import Job, JobPayload

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
ARGS = click.argument("args", nargs=-1, type=click.UNPROCESSED)
TASK = click.option(
    "--task", "task_id", metavar="TASK", default="", help="The task that it joins. [default: a new mission and task]"
)
MODE = click.option(
    "--mode", type=MODES, help="The mesh, the local queue, or whichever works. [default: as configured]"
)


@click.command()
@FILE
@ARGS
@program_options
@click.option("--task", "task_id", metavar="TASK", required=True, help="The task that the job belongs to.")
@term_options
@common
def create(file: str, args: tuple[str, ...], task_id: str, **said: Any) -> None:
    """Create a job that runs a program on FILE (- is standard input), without sending it."""
    payload, options = payload_of(file, args, said), options_of(said)
    client = settings().connect()
    report(client, client.jobs.create(task_id, payload, **options), None)


@click.command()
@FILE
@ARGS
@program_options
@TASK
@MODE
@term_options
@common
def submit(file: str, args: tuple[str, ...], task_id: str, mode: str | None, **said: Any) -> None:
    """Submit a program on FILE (- is standard input) to the mesh, without waiting for what comes of it."""
    payload, options = payload_of(file, args, said), options_of(said)
    client = settings().connect()
    task_id = task_id or client.jobs.task_for(payload)
    answer = client.jobs.start(task_id, [payload], mode=mode or "", **options)
    job = client.jobs.get(answer.job_ids[0])
    from offgrid.v1.jobs_pb2 import Route

    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"job": json_of(job), "route": Route.Name(answer.route), "reason": answer.reason})
        return
    from offgrid_tools.cli.output import facts, word

    route = word(Route, answer.route)
    facts([("job", job.job_id), ("task", job.task_id), ("route", route), ("why", answer.reason)])


@click.command()
@FILE
@ARGS
@program_options
@TASK
@MODE
@term_options
@click.option(
    "-o",
    "--output",
    type=TargetFile(),
    help="Write the job's output here; - is standard output, with nothing else on it.",
)
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Tell on standard error what it says while it runs: log, progress, a model's words as they come.",
)
@click.option(
    "--save-files",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write the files of --output-file here.",
)
@common  # fmt: skip
def run(
    file: str,
    args: tuple[str, ...],
    task_id: str,
    mode: str | None,
    output: str | None,
    follow: bool,
    folder: str | None,
    **said: Any,
) -> int:
    """Run a program on FILE (- is standard input) somewhere in the mesh and wait for the result."""
    payload, options = payload_of(file, args, said), options_of(said)
    client = settings().connect()
    with _left_going() as made:
        if follow:
            job = _followed(client, payload, task_id, mode or "", options, made)
        else:
            with _progress() as show:
                on_change = partial(_noted, made, show)
                job = client.jobs.run(payload, task_id=task_id, mode=mode or "", on_change=on_change, **options)
    report(client, job, output, folder)
    return exit_code_of(job)


@contextmanager
def _left_going() -> Iterator[set[str]]:
    """To be filled with the id of the job that was made. Interrupted, it goes on: who gave up waiting hears how to
    come back to it, and how to take it back."""
    made: set[str] = set()
    try:
        yield made
    except BaseException as error:
        interrupted = settings().interrupted or isinstance(error, KeyboardInterrupt)
        for job_id in made if interrupted and not settings().json else ():
            click.echo(f"{job_id} goes on: `offgrid job watch {job_id}`, `offgrid job cancel {job_id}`", err=True)
        raise


def _noted(made: set[str], show: Callable[[Job], None], job: Job) -> None:
    made.add(job.job_id)
    show(job)


def _followed(client: Client, payload: JobPayload, task_id: str, mode: str, options: JobOptions, made: set[str]) -> Job:
    """Starts it and tells what it says; with --json only how it ended is told."""
    task_id = task_id or client.jobs.task_for(payload)
    (job_id,) = client.jobs.start(task_id, [payload], mode=mode, **options).job_ids
    made.add(job_id)
    if settings().json:
        *_, job = client.jobs.watch(job_id)
        return job
    click.echo(job_id, err=True)
    saying = Saying(sys.stderr)
    for told in client.jobs.progress(job_id):
        saying.on_progress(told)
    saying.end()
    click.echo(err=True)
    return client.jobs.get(job_id)


@contextmanager
def _progress() -> Iterator[Callable[[Job], None]]:
    """Where the job is, on standard error: a spinner on a terminal, else a line per change; nothing with --json."""
    if settings().json:
        yield lambda job: None
    elif sys.stderr.isatty():
        from rich.console import Console

        console, told = Console(stderr=True, highlight=False), set[str]()
        with console.status("making the job") as shown:

            def show(job: Job) -> None:
                """What is long is said once, above what moves."""
                if job.waiting and job.waiting not in told:
                    told.add(job.waiting)
                    console.print(change_of(job), markup=False)
                line = f"{job.job_id} waits for a host" if job.waiting else change_of(job)
                shown.update(line.replace("[", r"\["))

            yield show
    else:
        yield lambda job: click.echo(change_of(job), err=True)
