"""docs/reference/schemas.json: JSON Schema of what every command prints with --json."""

from __future__ import annotations

import json

from offgrid_tools.cli.documents import all_schemas


def text() -> str:
    return json.dumps(all_schemas(), indent=1, ensure_ascii=False) + "\n"
