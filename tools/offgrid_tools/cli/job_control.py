"""`offgrid job cancel`, `why` and `logs`: a hand on jobs that are under way, and a look at them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.jobs import exit_code_of, named, node_names, state_of
from offgrid_tools.cli.saying import Saying, write
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offgrid.client import Client
    from offgrid.v1.jobs_pb2 import HostVerdict, Job, JobProgress

KNOWN_WITHIN_S = 1.0  # what a running job has said is told at once, or there is nothing


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB]...")
@click.option("--task", "task_id", metavar="TASK", default="", help="All of a task that have not ended.")
@click.option("--reason", metavar="TEXT", default="", help="Why; it stands with the jobs.")
@common
def cancel(job_ids: tuple[str, ...], task_id: str, reason: str) -> None:
    """Cancel jobs: what runs is stopped, and unpaid. Those that have ended stay as they are."""
    if bool(job_ids) == bool(task_id):
        raise click.UsageError("say which: JOB_ID… or --task TASK")
    cancelled = settings().connect().jobs.cancel(job_ids, task_id=task_id, reason=reason)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"job_ids": cancelled})
        return
    for job_id in cancelled:
        click.echo(f"cancelled {job_id}")
    if not cancelled:
        click.echo("nothing was open")


@click.command()
@click.argument("job_id", metavar="JOB")
@common
def why(job_id: str) -> None:
    """Explain why a job is where it is, and for every host the reason that it did or would not get it."""
    client = settings().connect()
    answer = client.jobs.why(job_id)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import facts, table

    names = node_names(client)
    facts(
        [
            ("job", f"{answer.job.job_id} {state_of(answer.job)}"),
            ("needs", answer.job.needs),
            ("requires", answer.job.requirements),
            ("broker", named(answer.broker, names)),
            ("story", answer.story),
        ]
    )
    table(
        ("host", "", "score", "asks", "why"),
        (_verdict(verdict, names) for verdict in answer.verdicts),
        empty="no broker was asked about hosts",
    )


def _verdict(verdict: HostVerdict, names: dict[str, str]) -> tuple[str, ...]:
    from offgrid_tools.cli.output import number

    word = "wins" if verdict.wins else "able" if verdict.able else "unable"
    score, ask = (number(verdict.score / 1e6), number(verdict.ask_micro / 1e6)) if verdict.able else ("", "")
    return named(verdict.host, names), word, score, ask, verdict.reason


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@common
def logs(job_id: str, follow: bool) -> int:
    """Show what a job says: its standard error, and how far it is.

    The log goes to standard output, progress to standard error. With --json a line per message, its bytes as base64.
    """
    client = settings().connect()
    job = client.jobs.get(job_id)
    if job.HasField("result"):
        _say_log(job)
        return exit_code_of(job)
    saying = Saying(sys.stdout)
    for told in _told(client, job_id, follow):
        saying.on_progress(told)
    job = client.jobs.get(job_id)
    if job.HasField("result") and not settings().json:
        saying.end(job.result.log[saying.log_bytes :])  # what came last, or was not told on the way
    return exit_code_of(job)


def _told(client: Client, job_id: str, follow: bool) -> Iterator[JobProgress]:
    return client.jobs.progress(job_id, within_s=None if follow else KNOWN_WITHIN_S)


def _say_log(job: Job) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"job": json_of(job)})
    else:
        write(job.result.log)
