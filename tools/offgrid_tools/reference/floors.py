"""docs/reference/floors.md: which part of the source may import which, from the contract that lint holds it to."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from offgrid_tools.reference.plain import shown

ROOT = Path(__file__).parents[3]
PLACES = {"offgrid": "proto", "offgrid_node": "node", "offgrid_transports": "transports", "offgrid_tools": "tools"}
HEAD = """# Floors

Imports run down only: what stands on a floor may import what stands on those below, and nothing beside it or above.
`python3 tools/run.py lint` holds it (import-linter, `pyproject.toml`); the pure floor, `protocol`, may not touch a
clock, a socket, a disk, a thread or global randomness either. Each part is told by the opening of its source.

| floor | part | what lives there |
|---|---|---|"""


def text() -> str:
    return "\n".join([HEAD, *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    floors = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    for number, floor in zip(range(len(floors), 0, -1), floors, strict=True):
        for part in sorted(name.strip(" ()") for name in floor.split("|")):
            yield f"| {number} | `{part.removeprefix('offgrid_node.')}` | {_opening(part)} |"


def _opening(module: str) -> str:
    """The first sentence of a module's docstring, as Markdown in a table."""
    top = module.partition(".")[0]
    path = ROOT / PLACES[top] / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    said = ast.get_docstring(ast.parse(source.read_text("utf-8"))) if source.exists() else None
    sentence = re.split(r"(?<=[.])\s", " ".join((said or "").split("\n\n")[0].split()))[0]
    return shown(sentence.rstrip("."))
