"""What the locks pin of the packages that a node needs, read as `uv pip compile` writes them: a line for each package
with version and marker, its hashes, and in comments by whom it is asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from packaging.markers import Marker

from offgrid_node.kit.targets import Target

PROJECT = "offgrid-node (pyproject.toml)"
PACKAGE = Path(__file__).resolve().parent
IN_WHEEL, IN_CHECKOUT = PACKAGE / "locks", PACKAGE.parents[2] / "locks"


class Pin(msgspec.Struct, frozen=True):
    """One package of a lock. `asked_by` holds names of other pins, and PROJECT where that asks for it itself."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    asked_by: tuple[str, ...]

    def wanted_at(self, target: Target) -> bool:
        return not self.marker or Marker(self.marker).evaluate(target.markers)

    @property
    def requirement(self) -> str:
        """A line of a requirements file, for a target where it is wanted."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash=sha256:{digest}" for digest in self.hashes)))


def read_lock(name: str) -> str:
    """The lock `runtime`, `extras` or `pip`: of the wheel, or of the checkout that this runs in."""
    folder = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def pins_of(lock: str) -> tuple[Pin, ...]:
    """All pins of a lock, by its text. Raises ValueError for a text that has none."""
    pins = tuple(_pin(block) for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE) if "==" in block)
    if not pins:
        raise ValueError("the lock pins no package")
    return pins


def _pin(block: str) -> Pin:
    head = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+))?", block)
    if head is None:
        raise ValueError(f"the lock has a line of an unknown form: {block.splitlines()[0]}")
    _, _, via = block.partition("# via")
    asked_by = (line.strip("# \n") for line in via.splitlines())
    return Pin(
        name=head[1],
        version=head[2],
        marker=(head[3] or "").strip(),
        hashes=tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)),
        asked_by=tuple(who for who in asked_by if who and not who.startswith("-")),
    )


def needed(pins: Sequence[Pin], named: Collection[str] = (PROJECT,)) -> tuple[Pin, ...]:
    """Those that are named, or that the project asks for, and those that these ask for: what builds it is none."""
    asked = {*named}
    while more := {pin.name for pin in pins if not asked.isdisjoint(pin.asked_by)} - asked:
        asked |= more
    return tuple(pin for pin in pins if pin.name in asked)
