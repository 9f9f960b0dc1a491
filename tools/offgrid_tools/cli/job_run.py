"""`offgrid job run` and `create`: from a file and a program to a job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from offgrid_tools.cli.files import TargetFile, opened, plain
from offgrid_tools.cli.jobs import MODES, change_of, exit_code_of, report
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Job, JobPayload

INPUT_NAME_CHARS_MAX = 255
READ_BYTES_MAX = 64 * 1024 * 1024  # more than any node takes inline; it says how much it does
F = TypeVar("F", bound=Callable[..., object])


def payload_options(function: F) -> F:
    """The arguments that say what to run on which input."""
    for decorate in (
        click.argument("args", nargs=-1, type=click.UNPROCESSED),
        click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
        click.option("--size-tokens", type=click.IntRange(0), default=0, help="[default: estimated]"),
        click.option("--timeout", type=FiniteRange(0.001, 4_000_000), metavar="SECONDS",
                     help="How long one attempt may run. [default: as configured]"),
        click.option("--arg", "more_args", multiple=True, metavar="ARG", help="An argument of the program; repeat it."),
        click.option("--builtin", "builtin", metavar="NAME",
                     help="Run what every host has: echo gives the input back. To try a mesh out."),
        click.option("--command", "command", metavar="NAME", help="Run a command of the host's allow-list."),
        click.option("--wasm", "module", type=click.Path(exists=True, dir_okay=False), metavar="MODULE",
                     help="Run a WebAssembly module, .wasm or .wat."),
    ):  # fmt: skip
        decorate(function)
    return function


def payload_of(
    file: str,
    args: tuple[str, ...],
    more_args: tuple[str, ...],
    module: str | None,
    command: str | None,
    builtin: str | None,
) -> JobPayload:
    """The payload that the options describe. Raises click's usage errors and OSError for files."""
    if (module, command, builtin).count(None) != 2:
        raise click.UsageError("say what to run: --wasm MODULE, --command NAME or --builtin NAME")
    if builtin is not None and (args or more_args):
        raise click.UsageError("what is built in takes no arguments")
    data, name = _read(file), "" if file == "-" else plain(Path(file).name)[:INPUT_NAME_CHARS_MAX]
    from offgrid.client import payloads

    if builtin is not None:
        return payloads.builtin(builtin, input=data, input_name=name)
    if command is not None:
        return payloads.command(command, [*more_args, *args], input=data, input_name=name)
    return payloads.wasm(_read(module or ""), [*more_args, *args], input=data, input_name=name)


def _read(path: str) -> bytes:
    with opened(path) as file:
        data = file.read(READ_BYTES_MAX + 1)
    if len(data) > READ_BYTES_MAX:
        raise click.UsageError(f"{path} is larger than {READ_BYTES_MAX} bytes, too large for a job's payload")
    return data


@click.command()
@payload_options
@click.option("--task", "task_id", required=True, help="The task that the job belongs to.")
@common
def create(
    file: str,
    args: tuple[str, ...],
    more_args: tuple[str, ...],
    module: str | None,
    command: str | None,
    builtin: str | None,
    task_id: str,
    timeout: float | None,
    size_tokens: int,
) -> None:
    """Create a job that runs a program on FILE (- is standard input), without sending it."""
    payload = payload_of(file, args, more_args, module, command, builtin)
    client = settings().connect()
    timeout_ms = round((timeout or 0) * 1000)
    job = client.jobs.create(task_id, payload, size_tokens=size_tokens, timeout_ms=timeout_ms)
    report(client, job, None)


@click.command()
@payload_options
@click.option("--task", "task_id", default="", help="The task that the job joins. [default: a new mission and task]")
@click.option("--mode", type=MODES, help="The mesh, the local queue, or whichever works. [default: as configured]")
@click.option(
    "--output",
    type=TargetFile(),
    help="Write the job's output here; - is standard output, with nothing else on it.",
)
@common
def run(
    file: str,
    args: tuple[str, ...],
    more_args: tuple[str, ...],
    module: str | None,
    command: str | None,
    builtin: str | None,
    task_id: str,
    mode: str | None,
    timeout: float | None,
    size_tokens: int,
    output: str | None,
) -> int:
    """Run a program on FILE (- is standard input) somewhere in the mesh and wait for the result.

    \b
    offgrid job run notes.txt --command wc -- -w
    offgrid job run notes.txt --wasm count.wat --output counts.txt
    """
    payload = payload_of(file, args, more_args, module, command, builtin)
    client = settings().connect()
    with _progress() as on_change:
        job = client.jobs.run(
            payload,
            task_id=task_id,
            mode=mode or "",
            size_tokens=size_tokens,
            timeout_ms=round((timeout or 0) * 1000),
            on_change=on_change,
        )
    report(client, job, output)
    return exit_code_of(job)


@contextmanager
def _progress() -> Iterator[Callable[[Job], None]]:
    """Where the job is, on standard error: a spinner on a terminal, else a line per change; nothing with --json."""
    if settings().json:
        yield lambda job: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True, highlight=False).status("making the job") as shown:
            yield lambda job: shown.update(change_of(job).replace("[", r"\["))
    else:
        yield lambda job: click.echo(change_of(job), err=True)
