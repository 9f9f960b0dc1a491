"""`offgrid-node doctor`: the findings for people, or as one JSON document."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid.command_line.working import working
from offgrid_node.options import FOLDER

if TYPE_CHECKING:
    from offgrid_node.doctor import Finding

SIGNS = {"fault": ("✗", "red"), "warning": ("!", "yellow"), "ok": ("✓", "green"), "not_applicable": ("-", "white")}
COLUMNS_LEAST, COLUMNS_MAX = 30, 10_000  # of a sentence; the most: into a file or a pipe


@click.command()
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("--all", "everything", is_flag=True, help="Show what is well and what does not apply, too.")
def doctor(folder: Path, as_json: bool, everything: bool) -> int:
    """Say what is the matter with this node, and what to type next.

    It changes nothing, works whether the node runs or not, and takes 5 seconds at most. Ends with 1 when it has found a
    fault: something that keeps the node, or a part of it, from working. Warnings end with 0.
    """
    from offgrid_node.doctor import State, diagnose

    began = time.monotonic()
    with working("looking", shown=not as_json):
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
    return exits.FAILED if faults else exits.OK


def _show(findings: Sequence[Finding], *, everything: bool) -> None:
    """The worst first; sentences are wrapped to a terminal, commands are left whole to be copied."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else COLUMNS_MAX
    order = ("fault", "warning", *(("ok", "not_applicable") if everything else ()))
    width = max(len(each.check) for each in findings)
    for state in order:
        for each in findings:
            if each.state == state:
                sign, colour = SIGNS[state]
                first, *more = _wrapped(each.sentence, columns - width - 4)
                click.echo(f"{click.style(sign, fg=colour)} {each.check.ljust(width)}  {first}")
                for line in more:
                    click.echo(f"  {' ' * width}  {line}")
                if each.command:
                    click.echo(f"  {' ' * width}  $ {click.style(each.command, bold=True)}")
    click.echo(summary(findings))


def _wrapped(sentence: str, columns: int) -> list[str]:
    """At least one line."""
    wide = max(columns, COLUMNS_LEAST)
    return textwrap.wrap(sentence, wide, break_long_words=False, break_on_hyphens=False) or [""]


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each kind."""
    counts = {state: sum(each.state == state for each in findings) for state in SIGNS}
    counted = (("fault", "fault", ""), ("warning", "warning", ""), ("ok", "check", " well"))
    said = [f"{counts[state]} {noun}{'s' * (counts[state] != 1)}{how}" for state, noun, how in counted]
    return ", ".join((*said, f"{counts['not_applicable']} not applicable here"))
