"""The `offgrid` operator command: it talks to one node through `offgrid.client` and knows nothing of its insides.

Everything but click is imported when a command needs it, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (sys.argv unless given) and returns its exit code; see `exits.py` for what they mean."""
    from offgrid_tools.cli.entry import run

    return run(argv)
