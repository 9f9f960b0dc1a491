"""The table that people see: figure, goal, verdict, what it was measured beside, and what to know about it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from offgrid_tools.bench.figures import Figure, Goal, Goals, Verdict

COLOURS = {Verdict.MET: "green", Verdict.STEP: "yellow", Verdict.MISSED: "red", Verdict.REPORT: "default"}
HEADINGS = ["figure", "value", "unit", "goal", "", "beside", "note"]
WIDTH_WHEN_PIPED = 160


def show(figures: Sequence[tuple[str, Figure]], goals: Goals, console: Console | None = None) -> None:
    """Prints the figures of all groups, in their order, on standard output."""
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        prose = heading in ("beside", "note")
        table.add_column(heading, justify="right" if heading in ("value", "goal") else "left", no_wrap=not prose)
    for group, figure in figures:
        goal = goals[group][figure.name]
        name, value, unit, bound, verdict, *rest = cells(figure, goal)
        coloured = f"[{COLOURS[goal.judge(figure.value)]}]{verdict}[/]"
        table.add_row(f"{group}.{name}", value, unit, bound, coloured, *rest)
    console.print(table)


def cells(figure: Figure, goal: Goal) -> list[str]:
    """One row, under HEADINGS."""
    beside = f"{figure.peer} {number(figure.peer_value)}" if figure.peer_value is not None else figure.peer
    verdict = goal.judge(figure.value).value
    return [figure.name, number(figure.value), goal.unit, str(goal), verdict, beside, figure.note]


def number(value: float) -> str:
    """Three digits that mean something; whole numbers from a hundred on, with their thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
