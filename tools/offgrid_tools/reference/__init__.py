"""The pages of docs/reference, made from the code that they tell of: a module for each has `text()`.

`python3 tools/run.py docs` writes them; a test holds them equal. Nothing in them depends on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from offgrid_tools.reference import cli, config, events, floors, log, metrics, rpc, schemas

FOLDER = Path(__file__).parents[3] / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli.text,
    "config.md": config.text,
    "events.md": events.text,
    "floors.md": floors.text,
    "log.md": log.text,
    "metrics.md": metrics.text,
    "rpc.md": rpc.text,
    "schemas.json": schemas.text,
}


def write(folder: Path = FOLDER) -> list[Path]:
    """Writes every page, and returns those that changed."""
    changed = []
    for name, text in PAGES.items():
        path, new = folder / name, text()
        if not path.exists() or path.read_text("utf-8") != new:
            path.write_text(new, "utf-8", newline="\n")
            changed.append(path)
    return changed
