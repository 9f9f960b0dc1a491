"""The figures in docs/performance.md: written between marks there, so that one command refreshes them.

<!-- bench jobs -->
…
<!-- end -->
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from offgrid_tools.bench.figures import Figure, Goals
from offgrid_tools.bench.report import HEADINGS, cells

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "performance.md"


def figures_table(group: str, figures: Sequence[Figure], goals: Goals) -> str:
    """The figures of one group as Markdown."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(cells(figure, goals[group][figure.name]) for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def refresh(path: Path, tables: Mapping[str, str]) -> None:
    """Puts each table between the marks of its name. Raises ValueError, and changes nothing, where there are none."""
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        head, begin, rest = text.partition(f"<!-- bench {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"{path} has no place for the table {name!r}: <!-- bench {name} --> and then <!-- end -->")
        text = f"{head}{begin}\n{table}\n\n{end}{tail}"
    path.write_text(text, encoding="utf-8")
