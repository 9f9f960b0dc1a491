"""`offgrid-node doctor`: the findings for people, or as one JSON document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid_node.options import FOLDER

if TYPE_CHECKING:
    from offgrid_node.doctor import Finding

SIGNS = {"fault": ("✗", "red"), "warning": ("!", "yellow"), "ok": ("✓", "green"), "not_applicable": ("-", "white")}
EXIT_FAULTS = 1


@click.command()
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("--all", "everything", is_flag=True, help="Show what is well and what does not apply, too.")
def doctor(folder: Path, as_json: bool, everything: bool) -> None:
    """Says what is the matter with this node, and what to type next.

    It changes nothing, works whether the node runs or not, and takes 5 seconds at most. Ends with 1 when it has found a
    fault: something that keeps the node, or a part of it, from working. Warnings end with 0.
    """
    from offgrid_node.doctor import State, diagnose

    began = time.monotonic()
    findings = diagnose(folder)
    faults = [each for each in findings if each.state is State.FAULT]
    if as_json:
        took_ms = round(1000 * (time.monotonic() - began))
        shown = [
            {"check": each.check, "state": str(each.state), "sentence": each.sentence, "command": each.command}
            for each in findings
        ]
        document = {"folder": str(folder.absolute()), "well": not faults, "took_ms": took_ms, "findings": shown}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        _show(findings, everything=everything)
    sys.stdout.flush()
    sys.exit(EXIT_FAULTS if faults else 0)


def _show(findings: Sequence[Finding], *, everything: bool) -> None:
    """The worst first."""
    order = ("fault", "warning", *(("ok", "not_applicable") if everything else ()))
    width = max(len(each.check) for each in findings)
    for state in order:
        for each in findings:
            if each.state == state:
                sign, colour = SIGNS[state]
                click.echo(f"{click.style(sign, fg=colour)} {each.check.ljust(width)}  {each.sentence}")
                if each.command:
                    click.echo(f"  {' ' * width}  $ {click.style(each.command, bold=True)}")
    click.echo(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each kind."""
    counts = {state: sum(each.state == state for each in findings) for state in SIGNS}
    counted = (("fault", "fault", ""), ("warning", "warning", ""), ("ok", "check", " well"))
    said = [f"{counts[state]} {noun}{'s' * (counts[state] != 1)}{how}" for state, noun, how in counted]
    return ", ".join((*said, f"{counts['not_applicable']} not applicable here"))
