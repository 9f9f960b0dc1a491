"""`offgrid put`: files, folders and a pipe on their way into the mesh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.amounts import Weight
from offgrid_tools.cli.bars import Advance, bar
from offgrid_tools.cli.files import opened, plain
from offgrid_tools.cli.keeping import CodeParam, Span
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.trees import Found, found_in
from offgrid_tools.cli.unfinished import seed_for
from offgrid_tools.cli.waiting import waiting

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.objects_pb2 import Object

STALE = frozenset({"RequestIdReused", "ObjectDeleted"})  # a kept request id made something else, or what is gone


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option("--name", metavar="NAME", help="What to call it, or its folder. [default: its own name]")
@click.option(
    "--required",
    "required_milli",
    type=Weight(),
    metavar="WEIGHT",
    help="The weight of acks that makes it durable, such as 2.0. [default: as configured, and no more than --copies]",
)
@click.option(
    "--code", type=CodeParam(), metavar="K/N", help="N shards, of which any K give it back. [default: by its size]"
)
@click.option("--copies", type=click.IntRange(1, 64), help="So many full copies, whatever its size.")
@click.option("--expires", "expires_after_ms", type=Span(), metavar="TIME", help="Delete it after 90m, 12h, 30d, 52w.")
@click.option(
    "--padded/--exact", default=None, help="Whether hosts learn the class of its size alone. [default: as configured]"
)
@click.option("--wait/--no-wait", default=True, help="Wait until so much has acked. [default: wait]")
@click.option("--timeout", type=FiniteRange(0.001, 4_000_000), metavar="SECONDS", help="Wait no longer.")
@click.option(
    "--request-id",
    metavar="ID",
    default="",
    help="Makes the put safe to repeat. [default: one that is kept until it ends]",
)
@common
def put(
    paths: tuple[str, ...],
    name: str | None,
    required_milli: int | None,
    code: tuple[int, int] | None,
    copies: int | None,
    expires_after_ms: int | None,
    padded: bool | None,
    wait: bool,
    timeout: float | None,
    request_id: str,
) -> None:
    """Store files, and all files of folders, sealed in the mesh; - is standard input.

    A folder's files are called as their paths below it: photos/2026/a.jpg. When a put is cut off, the same command goes
    on where it was.
    """
    if code is not None and copies is not None:
        raise click.UsageError("--code and --copies are two ways to keep it; give one of them")
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name names one file or folder, and several are given")
    if name is not None and plain(name) != name:
        raise click.BadParameter(f"{plain(name)} has characters that are no text", param_hint="'--name'")
    files = found_in(paths, name)
    several = len(paths) > 1 or Path(paths[0]).is_dir()
    if request_id and several:
        raise click.UsageError("--request-id is that of one object, and several are put")
    client = settings().connect()
    options = _Options(required_milli or 0, code, copies or 0, expires_after_ms or 0, padded)
    putting = _Putting(client, options)
    begun = nullcontext("") if request_id else seed_for(files, repr(options))
    with begun as seed, _told_how_it_goes_on(bool(seed or request_id)):
        made = putting.all_of(files, seed) if several else [putting.one(files[0], request_id or _id_of(seed, 0))]
    if wait:
        with waiting() as told:
            made = [
                client.objects.wait_durable(
                    each.object_id, timeout_s=timeout, on_change=told.on_change, on_progress=told.on_progress
                )
                for each in made
            ]
    _show(made, several)


class _Options(NamedTuple):
    """How all of them are kept; 0 and None: as the node's config says, and for ever."""

    required_milli: int
    code: tuple[int, int] | None
    copies: int
    expires_after_ms: int
    padded: bool | None


@contextmanager
def _told_how_it_goes_on(does: bool) -> Iterator[None]:
    """Who breaks off what can be gone on with hears how."""
    try:
        yield
    except BaseException as error:
        interrupted = settings().interrupted or isinstance(error, KeyboardInterrupt)
        if does and interrupted and not settings().json:
            click.echo("broken off: what has come so far is kept for a day; the same command goes on with it", err=True)
        raise


class _Putting:
    """One put of however many files."""

    def __init__(self, client: Client, options: _Options) -> None:
        self._client, self._options = client, options

    def one(self, file: Found, request_id: str) -> Object:
        with bar("sealing") as on_progress:
            return self._put(file, request_id, on_progress)

    def all_of(self, files: Sequence[Found], seed: str) -> list[Object]:
        total, done, made = sum(Path(file.path).stat().st_size for file in files if file.path != "-"), 0, []
        with bar(f"sealing {counted(len(files), 'file')}") as on_progress:
            for index, file in enumerate(files):
                made.append(self._put(file, _id_of(seed, index), _beyond(done, total, on_progress)))
                done += made[-1].size_bytes
        return made

    def _put(self, file: Found, request_id: str, on_progress: Advance) -> Object:
        """What breaks off can be gone on with by `request_id`, unless it is "" or made something else before."""
        from offgrid.client.errors import OffgridError

        for said in (request_id, ""):
            try:
                with opened(file.path) as stream:
                    return self._client.objects.put(
                        stream,
                        name=file.name,
                        required_milli=self._options.required_milli,
                        code=self._options.code,
                        copies=self._options.copies,
                        expires_after_ms=self._options.expires_after_ms,
                        padded=self._options.padded,
                        request_id=said,
                        on_progress=on_progress,
                    )
            except OffgridError as error:
                if error.reason not in STALE or file.path == "-" or said != request_id:
                    raise
        raise AssertionError("the second try ends in either way")


def _id_of(seed: str, index: int) -> str:
    """Of one file's put; a seed that is not kept gives none that could be used again."""
    return f"{seed}-{index}" if seed else ""


def _beyond(done: int, total: int, on_progress: Advance) -> Advance:
    return lambda at, of: on_progress(done + at, total)


def _show(made: list[Object], several: bool) -> None:
    from offgrid_tools.cli.objects import show, show_list

    if several:
        show_list(made, empty="")
    else:
        show(made[0])
