"""`offgrid job receipt` and `verify-receipt`: a receipt as a file, and its check, which needs no node."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid_tools.cli.files import TargetFile, opened
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT_BYTES_MAX = 64 * 1024 * 1024  # the largest output that a job may have


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option(
    "-o", "--output", type=TargetFile(), default="-", help="Write it here; - is standard output. [default: -]"
)
@common
def receipt(job_id: str, output: str) -> None:
    """Write JOB's receipt as a file that stands alone, for `verify-receipt`."""
    import json

    document = settings().connect().jobs.receipt(job_id)
    text = json.dumps(document, indent=None if settings().json else 2, ensure_ascii=True)
    if output == "-":
        click.echo(text)
        return
    from offgrid.client.targets import replaced

    with replaced(output) as file:
        file.write(f"{text}\n".encode())


@click.command("verify-receipt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--mesh", default="", metavar="ID", help="Must be of this mesh: its id, 12 characters of it, or an invite."
)
@click.option("--result", "result", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Must be for this output of the job's.")  # fmt: skip
@common
def verify(file: str, mesh: str, result: str | None) -> int:
    """Check a receipt's FILE (- is standard input) by itself, without any node; exit code 1 where something is wrong.

    Path and signature, the host's record up to the mesh's root, every fact. Without --mesh it is proved that a host of
    the mesh that the file names signed this: compare that mesh's id with the one you know.
    """
    # What checks it is the node's own code, which this command otherwise knows nothing of: hence no import statement.
    verifying = importlib.import_module("offgrid_tools.verifying")
    try:
        wanted = verifying.mesh_named(mesh) if mesh else ""
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--mesh") from error
    with opened(file) as opened_file:
        data = opened_file.read(verifying.FILE_BYTES_MAX + 1)
    verdict = verifying.check(data, mesh=wanted, result=_read(result) if result else None)
    facts = verifying.facts_of(verdict.body) if verdict.body else {}
    problems = [{"field": problem.field, "problem": problem.what} for problem in verdict.problems]
    if settings().json:
        _document(verdict, facts, problems, checked={"mesh": bool(wanted), "result": bool(result)})
    elif problems:
        from offgrid.command_line.terminal import clean

        click.echo("NOT VALID")
        for problem in problems:
            click.echo(f"  {clean(problem['field'])}: {clean(problem['problem'])}")
    else:
        _show(verdict, facts, mesh=bool(wanted), result=bool(result))
    return exits.FAILED if problems else exits.OK


def _read(path: str) -> bytes:
    with opened(path) as file:
        data = file.read(RESULT_BYTES_MAX + 1)
    if len(data) > RESULT_BYTES_MAX:
        raise click.UsageError(f"{path} is larger than {RESULT_BYTES_MAX} bytes, which no job's output is")
    return data


def _document(
    verdict: Any, facts: Mapping[str, object], problems: list[dict[str, str]], checked: Mapping[str, bool]
) -> None:
    from offgrid_tools.cli.emitting import emit

    emit(
        {
            "valid": not problems,
            "problems": problems,
            "facts": facts,
            "host": verdict.host.name if verdict.host else None,
            "key_number": verdict.key_number,
            "keys_replaced": verdict.keys - 1,
            "mesh": {"id": verdict.mesh_id, "name": verdict.mesh_name},
            "checked": checked,
        }
    )


def _show(verdict: Any, signed: Mapping[str, Any], *, mesh: bool, result: bool) -> None:
    from offgrid_tools.cli.output import duration, facts, number, size

    click.echo("valid")
    removed = ", removed since" if verdict.host.removed else ""
    replaced = verdict.key_number < verdict.keys - 1
    key = f", by its key number {verdict.key_number}, which was replaced since" if replaced else ""
    facts(
        [
            ("job", f"{signed['job_id']}, attempt {signed['attempt']}"),
            ("host", f"{verdict.host.name} ({signed['node']}){removed}{key}"),
            ("core", signed["core"]),
            ("mesh", f"{verdict.mesh_name} ({verdict.mesh_id}), {'as asked' if mesh else 'compare its id'}"),
            ("status", f"{signed['status']}, {signed['executor']}"),
            ("result", f"digest {signed['result_digest']}{', that of the file given' if result else ''}"),
            ("payload", f"digest {signed['payload_digest']}"),
            ("work", f"{number(signed['compute_tokens'] / 1e6)} M tokens in {duration(signed['latency_us'] / 1000)}"),
            ("used", f"processor {duration(signed['cpu_us'] / 1000)}, memory {size(signed['memory_peak_bytes'])}"),
            ("price", number(signed["price_micro"] / 1e6)),
        ]
    )
