"""Where the kit lies that a machine can hand on."""

from __future__ import annotations

import sys
from pathlib import Path

from offgrid_node.kit.manifest import NAME

MADE = "offgrid-kit"  # in the folder where `offgrid-node bundle` is typed


def kit_at_hand() -> Path | None:
    """The kit that this node was installed from, or None."""
    return _kit(Path(sys.prefix).parent / "kit")


def kit_of_node(folder: Path) -> Path | None:
    """The kit that was made in a node's folder, else the one at hand, or None."""
    return _kit(folder / MADE) or kit_at_hand()


def _kit(folder: Path) -> Path | None:
    return folder if (folder / NAME).is_file() else None
