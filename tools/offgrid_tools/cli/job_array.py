"""`offgrid job array`: one program on many inputs, as jobs of one task."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from offgrid.command_line import exits
from offgrid_tools.cli.files import opened
from offgrid_tools.cli.job_options import (
    Program,
    input_name,
    options_of,
    program_of,
    program_options,
    read,
    term_options,
)
from offgrid_tools.cli.job_run import MODE, TASK
from offgrid_tools.cli.jobs import state_of
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.client.futures import JobFuture
    from offgrid.client.options import JobOptions
    from offgrid.v1.jobs_pb2 import Job

IN_FLIGHT = 1_024
FAILURES_SHOWN_MAX = 10
LINE_BYTES_MAX = 1024 * 1024


class Item(NamedTuple):
    """One input of the array: `label` goes with the job, `given` is what it was called here, and `name`, its output's,
    is its own among all of them."""

    data: bytes
    label: str
    given: str
    name: str


@click.command()
@click.argument("inputs", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FILE]...")
@click.option(
    "--each-line",
    "lines",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="A job for each line of FILE (- is standard input).",
)
@program_options
@TASK
@MODE
@term_options
@click.option(
    "--outputs",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write each job's output into a file here. [default: all to standard output, in order]",
)
@common  # fmt: skip
def array(inputs: tuple[str, ...], lines: str | None, task_id: str, mode: str | None, folder: str | None,
          **said: Any) -> int:  # fmt: skip
    """Run a program on many inputs: an array of jobs of one task, one for each FILE or line.

    Interrupted, the jobs go on; `offgrid job cancel --task` takes them back.
    """
    if bool(inputs) == (lines is not None):
        raise click.UsageError("say which inputs: FILE… or --each-line FILE")
    if said["input_from"]:
        raise click.UsageError("--input-from is for a single job")
    items, options = _items(inputs) if lines is None else _lines(lines), options_of(said)
    first = next(items, None)
    if first is None:
        raise click.UsageError("there is no input")
    program = program_of((), said)  # what is wrong for all is said before anything is done
    target = Path(folder) if folder is not None else None
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    client = settings().connect()
    task_id = task_id or client.jobs.task_for(program(b"", "array"))
    total = len(inputs) if lines is None else None
    work = Work(client, task_id, mode or "", options, program)
    return _run(work, _chain(first, items), target, total)


class Work(NamedTuple):
    """What is the same for all inputs."""

    client: Client
    task_id: str
    mode: str
    options: JobOptions
    program: Program

    def submit(self, item: Item) -> JobFuture[Job]:
        return self.client.jobs.submit(
            self.program(item.data, item.label), task_id=self.task_id, mode=self.mode, **self.options
        )


def _run(work: Work, items: Iterator[Item], target: Path | None, total: int | None) -> int:
    counts: Counter[str] = Counter()
    told: list[dict[str, object]] = []
    failures: list[str] = []
    with _progress(total) as advance:
        if not settings().json:
            click.echo(f"task {work.task_id}", err=True)
        for item, job in _ended(work, items):
            state = state_of(job)
            counts[state] += 1
            told.append(_keep(work.client, item, job, target))
            if state != "completed":
                failures.append(f"{item.given} ({job.job_id}): {job.error} {job.error_detail}".strip())
            advance()
    failed = sum(counts.values()) - counts["completed"]
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"task_id": work.task_id, "completed": counts["completed"], "failed": failed, "jobs": told})
    else:
        _summary(counts, failures, target)
    return exits.FAILED if failed else exits.OK


def _ended(work: Work, items: Iterator[Item]) -> Iterator[tuple[Item, Job]]:
    """In the order of the inputs, with IN_FLIGHT of them under way at most."""
    under_way: deque[tuple[Item, JobFuture[Job]]] = deque()
    for item in items:
        under_way.append((item, work.submit(item)))
        if len(under_way) >= IN_FLIGHT:
            item, future = under_way.popleft()
            yield item, future.result()
    while under_way:
        item, future = under_way.popleft()
        yield item, future.result()


def _keep(client: Client, item: Item, job: Job, target: Path | None) -> dict[str, object]:
    """Writes the output where it belongs; what it says of the job is for --json."""
    from offgrid.v1.jobs_pb2 import JobState

    state = JobState.Name(job.state)
    about: dict[str, object] = {"job_id": job.job_id, "input": item.given, "state": state, "error": job.error}
    if state_of(job) != "completed":
        return about
    if target is not None:
        path = target / item.name
        client.jobs.write_output(job, str(path))
        return {**about, "output": str(path)}
    if settings().json:
        import base64

        return {**about, "output": base64.b64encode(client.jobs.output(job)).decode("ascii")}
    sys.stdout.flush()
    client.jobs.write_output(job, sys.stdout.buffer)
    sys.stdout.flush()
    return about


def _summary(counts: Counter[str], failures: list[str], target: Path | None) -> None:
    from offgrid.command_line.terminal import clean

    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    click.echo(f"{said}; outputs in {target}" if target is not None else said, err=True)
    for failure in failures[:FAILURES_SHOWN_MAX]:
        click.echo(f"  {clean(failure)}", err=True)
    if len(failures) > FAILURES_SHOWN_MAX:
        click.echo(f"  and {len(failures) - FAILURES_SHOWN_MAX} more; `offgrid job list --task` has all", err=True)


# ---- inputs


def _items(files: tuple[str, ...]) -> Iterator[Item]:
    labels = [input_name(path) for path in files]
    twice = {label for label, count in Counter(labels).items() if count > 1}
    for number, (path, label) in enumerate(zip(files, labels, strict=True)):
        name = f"{number:06}-{label}" if label in twice else label
        yield Item(read(path), label, path, f"{name}.out")


def _lines(path: str) -> Iterator[Item]:
    with opened(path) as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise click.UsageError(f"line {number} of {path} is longer than {LINE_BYTES_MAX} bytes")
            label = f"{input_name(path) or 'line'}:{number}"
            yield Item(line, label, label, f"{number:06}.out")


def _chain(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if settings().json or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("jobs", total=total)
        yield lambda: shown.advance(bar)
