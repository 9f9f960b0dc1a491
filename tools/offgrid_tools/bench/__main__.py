"""`python3 tools/run.py bench [GROUP ...]`: measures, shows figure, goal and verdict; writes them with --json, --docs.

Exit code 0 when every figure was measured, whether or not its goal was met; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from offgrid_tools.bench.document import DOCUMENT, figures_table, refresh
from offgrid_tools.bench.figures import Figure, Goals, as_json, read_goals
from offgrid_tools.bench.groups import GROUPS, Plan
from offgrid_tools.bench.harness import Conditions
from offgrid_tools.bench.report import show

FOLDER = Path("data")  # below the working directory: /tmp may be memory, where an fsync costs nothing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the groups that were named, or all."""
    described = "\n".join(f"  {name:<11}{group.summary}" for name, group in GROUPS.items())
    parser = argparse.ArgumentParser(
        prog="bench", description=f"groups:\n{described}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; all of them unless named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--profile", action="store_true", help="say where a job's microseconds go, process by process")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--dir", type=Path, default=FOLDER, help="on the disk to measure; ./data unless given")
    chosen = parser.parse_args(argv)
    if unknown := [name for name in chosen.groups if name not in GROUPS]:
        parser.error(f"there is no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    goals = read_goals()
    figures: list[tuple[str, Figure]] = []
    tables: dict[str, str] = {}
    chosen.dir.mkdir(parents=True, exist_ok=True)
    before = Conditions(chosen.dir)
    before.look()
    if before.busy:
        say(f"bench: the machine is busy ({before}): times and ratios will mislead, processor time less so")
    for name in chosen.groups or GROUPS:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.dir.resolve()) as folder:
            plan = Plan(Path(folder), chosen.quick, say, chosen.profile)
            measured = GROUPS[name].measure(plan)
        figures += [(name, figure) for figure in measured]
        tables |= {name: figures_table(name, measured, goals)} | plan.tables
        for title, table in plan.tables.items():
            sys.stdout.write(f"{title}\n\n{table}\n\n")
    show(figures, goals)
    if chosen.json:
        write_json(chosen.json, figures, goals)
    if chosen.docs:
        refresh(DOCUMENT, tables)
    return 0


def write_json(path: Path, figures: Sequence[tuple[str, Figure]], goals: Goals) -> None:
    entries = [as_json(figure, goals[group][figure.name]) for group, figure in figures]
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def say(line: str) -> None:
    """Progress, beside the table: on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
