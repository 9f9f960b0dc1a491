"""What a soak of a mesh came to, and where that mesh lives."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

Say = Callable[[str], None]


class Toll(msgspec.Struct):
    """What a run came to: figures by name, and what was violated, one sentence each."""

    figures: dict[str, float] = msgspec.field(default_factory=dict)
    violations: list[str] = msgspec.field(default_factory=list)


def at_home(name: str, folder: Path | None, soak: Callable[[Path], Toll], say: Say) -> Toll:
    """Runs `soak` in `folder`, or in one of its own; that stays if anything was violated, or if it was given."""
    home = folder or Path(tempfile.mkdtemp(prefix=f"offgrid-{name}-"))
    toll = soak(home)
    if toll.violations or folder is not None:
        say(f"   the mesh's folder: {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    return toll
