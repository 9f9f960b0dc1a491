"""`offgrid tx receipt` and `verify-receipt`: that a payment is final, for whoever was not there; and the ledger's
papers, `offgrid ledger genesis`, by which that is checked without a node."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid_tools.cli.files import TargetFile, opened
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

READABLE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command()
@click.argument("tx_id", metavar="TX")
@click.option(
    "-o",
    "--output",
    type=TargetFile(),
    help="Write its bytes here; - is standard output. [default: as text, for paper or a message]",
)
@common
def receipt(tx_id: str, output: str | None) -> None:
    """Gather a light receipt of transaction TX: signatures of witnesses that hold it final.

    Just as many as prove it to whoever was not there: two of four equal witnesses, 135 bytes. `offgrid tx
    verify-receipt` checks it without a node, given the transaction (`offgrid tx show TX_ID --json`) and the ledger's
    papers (`offgrid ledger genesis`).
    """
    answer = settings().connect().ledger.receipt(tx_id)
    if output is not None:
        _write(output, answer.receipt)
    if settings().json and output != "-":
        from offgrid_tools.cli.emitting import emit

        emit(answer)
    elif output is None:
        click.echo(answer.text)
    elif output != "-":
        names = ", ".join(witness.name or witness.node_id for witness in answer.witnesses)
        click.echo(f"{output}: {len(answer.receipt)} bytes, signed by {names}")


@click.command("verify-receipt")
@click.argument("file", type=READABLE)
@click.option("--tx", "tx", type=READABLE, required=True, metavar="FILE",
              help="The transaction, as `offgrid tx show --json` gives it.")  # fmt: skip
@click.option("--genesis", "papers", type=READABLE, required=True, metavar="FILE",
              help="The ledger's papers, as `offgrid ledger genesis` gives them.")  # fmt: skip
@click.option(
    "--mesh", default="", metavar="ID", help="Must be of this mesh: its id, 12 characters of it, or an invite."
)
@common
def verify(file: str, tx: str, papers: str, mesh: str) -> int:
    """Check a light receipt's FILE (- is standard input; bytes or text), without any node; exit code 1 where it is
    wrong.

    The mesh's root vouches for the witnesses' keys, and so many have signed that one of them must be honest. Without
    --mesh the papers say which mesh that is: compare its id with the one you know.
    """
    # What checks it is the node's own code, which this command otherwise knows nothing of: hence no import statement.
    verifying = importlib.import_module("offgrid_tools.verifying")
    try:
        wanted = verifying.mesh_named(mesh) if mesh else ""
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--mesh") from error
    limits = (verifying.LIGHT_BYTES_MAX, verifying.TX_BYTES_MAX, verifying.PAPERS_BYTES_MAX)
    data = [_read(path, limit) for path, limit in zip((file, tx, papers), limits, strict=True)]
    verdict = verifying.check_light(*data, mesh=wanted)
    problems = [{"field": problem.field, "problem": problem.what} for problem in verdict.problems]
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        facts = verifying.light_facts(verdict) if not problems else None
        emit({"valid": not problems, "problems": problems, "checked": {"mesh": bool(wanted)}, "facts": facts})
    elif problems:
        _refuse(problems)
    else:
        _show(verifying.light_facts(verdict), mesh=bool(wanted))
    return exits.FAILED if problems else exits.OK


@click.command()
@click.option(
    "-o", "--output", type=TargetFile(), default="-", help="Write it here; - is standard output. [default: -]"
)
@common
def genesis(output: str) -> None:
    """Write the ledger's papers: its genesis, its checkpoints, and what shows whose keys the witnesses' are.

    With them, and the mesh's id, anybody checks light receipts without a node: `offgrid tx verify-receipt`. They are
    good for receipts of the epochs that they have, until a witness' key is replaced.
    """
    import json

    from offgrid.client.errors import OffgridError
    from offgrid.client.papers import document

    client = settings().connect()
    try:
        papers = document(client.ledger.genesis(), client.ledger.epochs(), client.mesh.proof)
    except ValueError as error:
        raise OffgridError("FAILED_PRECONDITION", "LedgerNotOpen", str(error)) from error
    text = json.dumps(papers, indent=None if settings().json else 2, ensure_ascii=True)
    _write(output, f"{text}\n".encode())


def _write(output: str, data: bytes) -> None:
    if output == "-":
        sys.stdout.buffer.write(data)
        return
    from offgrid.client.targets import replaced

    with replaced(output) as file:
        file.write(data)


def _read(path: str, limit: int) -> bytes:
    """One byte more than is allowed where there is more: who checks it says so."""
    with opened(path) as file:
        return file.read(limit + 1)


def _refuse(problems: Iterable[dict[str, str]]) -> None:
    from offgrid.command_line.terminal import clean

    click.echo("NOT VALID")
    for problem in problems:
        click.echo(f"  {clean(problem['field'])}: {clean(problem['problem'])}")


def _show(proved: dict[str, Any], *, mesh: bool) -> None:
    from offgrid_tools.cli.amounts import credits_of, weight_of
    from offgrid_tools.cli.output import facts

    click.echo("valid: this transaction is final")
    facts(
        [
            ("tx", proved["tx_id"]),
            ("from", f"{proved['src']}, its number {proved['seq']}"),
            *(("to", f"{each['account']}: {credits_of(each['amount_micro'])}") for each in proved["outputs"]),
            ("fee", credits_of(proved["fee_micro"])),
            *((f"  {key}", value) for key, value in sorted(proved["meta"].items())),
            ("signed by", ", ".join(f"{each['name']} ({weight_of(each['weight_milli'])})" for each in proved["said"])),
            ("mesh", f"{proved['mesh']['name']} ({proved['mesh']['id']}), {'as asked' if mesh else 'compare its id'}"),
        ]
    )
