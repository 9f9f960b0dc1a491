"""`offgrid ledger verify`: whether a node's ledger is what its genesis and its blocks make of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from offgrid.command_line import exits
from offgrid.command_line.terminal import counted
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("--offline", is_flag=True, help="Read the folder (--node-dir) of a node that does not run, or a copy.")
@common
def verify(offline: bool) -> int:
    """Work the ledger out anew from its genesis, and compare; exit code 1 where something is wrong.

    Every block that the node holds: its signatures by the keys that the mesh's root vouches for, its place in its
    author's chain, what it leans on; for every slot that there is one certificate at a ballot and one final value; and
    at the end every balance, the fees and the supply. The node goes on meanwhile.

    Where blocks of older epochs are forgotten, it begins at the last checkpoint before those that are kept, which more
    than a third of each epoch's committee has sealed. That needs the folder, so --offline: of a node that runs only the
    blocks that are kept are checked then, each by itself.
    """
    # What checks it is the node's own code, which this command otherwise knows nothing of: hence no import statement.
    replaying = importlib.import_module("offgrid_tools.replaying")
    try:
        with working("working it out"):
            if offline:
                report = replaying.offline(Path(settings().node_dir or "."))
            else:
                report = replaying.online(settings().connect())
    except replaying.FAULTS as fault:
        from offgrid.client.errors import OffgridError

        raise OffgridError("FAILED_PRECONDITION", fault.reason, fault.message) from fault
    if settings().json:
        _document(report)
    else:
        _show(report)
    return exits.FAILED if report.found else exits.OK


def _document(report: Any) -> None:
    from offgrid_tools.cli.emitting import emit

    emit(
        {
            "holds": not report.found,
            "mesh": {"id": report.mesh_id, "name": report.mesh},
            "blocks": report.blocks,
            "signatures": report.signatures,
            "final": report.final,
            "epochs": report.epochs,
            "first_epoch": report.first,
            "unsealed": [*report.unsealed],
            "below_zero": report.below_zero,
            "compared": not report.moved,
            "took_s": round(report.took_s, 3),
            "found": report.found,
            "findings": [{"where": finding.where, "what": finding.what} for finding in report.findings],
        }
    )


def _show(report: Any) -> None:
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import duration, facts

    click.echo("NOT VALID" if report.found else "all holds")
    for finding in report.findings:
        click.echo(f"  {clean(finding.where)}: {clean(finding.what)}")
    if report.found > len(report.findings):
        click.echo(f"  and {report.found - len(report.findings)} more")
    compared = "not compared: blocks kept coming; verify it again" if report.moved else "those of the node"
    since = f"epoch {report.first}: older blocks are forgotten" if report.first else "the genesis"
    checked = (report.blocks, "block"), (report.signatures, "signature"), (report.final, "final transaction")
    facts(
        [
            ("from", since),
            ("checked", ", ".join(counted(*each) for each in checked)),
            ("epochs", f"{report.epochs} have ended since"),
            *(
                [("unsealed", f"{len(report.unsealed)} checkpoints before it: their seals are not kept")]
                * bool(report.unsealed)
            ),
            ("balances", compared),
            *(
                [("below zero", f"{counted(report.below_zero, 'account')}: their credits are on their way")]
                * bool(report.below_zero)
            ),
            ("mesh", f"{report.mesh} ({report.mesh_id}): compare its id"),
            ("took", duration(report.took_s * 1000)),
        ]
    )
