"""A measured figure, the goal kept for it in goals.toml, and whether the one meets the other."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import msgspec
from msgspec.structs import asdict

GOALS = Path(__file__).with_name("goals.toml")


class Figure(msgspec.Struct, frozen=True):
    """One value by its name in goals.toml. Where the name says _vs_ it is a ratio, and `peer_value` what it is to."""

    name: str
    value: float
    peer: str = ""
    peer_value: float | None = None
    note: str = ""


class Verdict(Enum):
    """What became of a goal; a figure without one is a report."""

    MET = "met"
    STEP = "step met"
    MISSED = "missed"
    REPORT = ""


class Goal(msgspec.Struct, frozen=True):
    """At least `least`, at most `most`; neither for what is only reported. `step` is what must hold already today."""

    unit: str
    least: float | None = None
    most: float | None = None
    step: float | None = None

    def judge(self, value: float) -> Verdict:
        if self.least is None and self.most is None:
            return Verdict.REPORT
        if self._holds(value, self.least, self.most):
            return Verdict.MET
        if self.step is not None:
            least, most = (None if bound is None else self.step for bound in (self.least, self.most))
            if self._holds(value, least, most):
                return Verdict.STEP
        return Verdict.MISSED

    @staticmethod
    def _holds(value: float, least: float | None, most: float | None) -> bool:
        return (least is None or value >= least) and (most is None or value <= most)

    def __str__(self) -> str:
        sides = (("≥", self.least), ("≤", self.most))
        said = " ".join(f"{sign} {bound:g}" for sign, bound in sides if bound is not None)
        return f"{said} (now {self.step:g})" if self.step is not None else said


Goals = Mapping[str, Mapping[str, Goal]]


def read_goals(path: Path = GOALS) -> Goals:
    """Goals by group and name."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        group: {
            name: Goal(said.get("unit", ""), said.get("min"), said.get("max"), said.get("step"))
            for name, said in table.items()
        }
        for group, table in document.items()
    }


def as_json(figure: Figure, goal: Goal) -> dict[str, object]:
    """The form that `--json` writes."""
    return {**asdict(figure), "unit": goal.unit}
