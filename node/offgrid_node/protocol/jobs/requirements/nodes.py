"""The parts of a parsed requirement: each can be written down, tested and asked why it does not hold.

Nothing is coerced: the parser has seen to it that both sides of a comparison have types that its sign knows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from offgrid_node.protocol.jobs.requirements.attributes import Attribute, Kind, Profile, Value
from offgrid_node.protocol.jobs.requirements.tokens import quoted

SHOWN_CHARS_MAX = 80  # of a host's value in an explanation
Test: TypeAlias = Callable[[Profile], bool]

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda one, many: one in many,
    "not in": lambda one, many: one not in many,
}
OF_NAMES: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda names, text: text in names,
    "!=": lambda names, text: text not in names,
    "in": lambda names, texts: any(name in texts for name in names),
    "not in": lambda names, texts: not any(name in texts for name in names),
}


class Literal(msgspec.Struct, frozen=True):
    """A value that stands in the expression."""

    kind: Kind
    value: Value

    def __str__(self) -> str:
        return written(self.value)


Operand: TypeAlias = Attribute | Literal


class Comparison(msgspec.Struct, frozen=True):
    """`memory_mb >= 4096`; one side at least is an attribute."""

    left: Operand
    sign: str
    right: Operand

    def __str__(self) -> str:
        return f"{_name(self.left)} {self.sign} {_name(self.right)}"

    def compiled(self) -> Test:
        left, right = self.left, self.right
        sign = (OF_NAMES if left.kind == Kind.NAME else SIGNS)[self.sign]
        if isinstance(left, Attribute) and isinstance(right, Literal):
            read, value = left.read, right.value
            return lambda profile: sign(read(profile), value)
        of_left, of_right = _reader(left), _reader(right)
        return lambda profile: sign(of_left(profile), of_right(profile))

    def why_not(self, profile: Profile) -> str:
        if self.compiled()(profile):
            return ""
        said = [shown(side.read(profile)) for side in (self.left, self.right) if isinstance(side, Attribute)]
        return f"{self} is false: it has {' and '.join(said)}"


class Not(msgspec.Struct, frozen=True):
    """The opposite."""

    part: Node

    def __str__(self) -> str:
        return f"not {_bracketed(self.part)}"

    def compiled(self) -> Test:
        test = self.part.compiled()
        return lambda profile: not test(profile)

    def why_not(self, profile: Profile) -> str:
        return "" if self.part.why_not(profile) else f"{self} is false"


class Both(msgspec.Struct, frozen=True):
    """`and`."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return " and ".join(_bracketed(part) for part in self.parts)

    def compiled(self) -> Test:
        return _joined([part.compiled() for part in self.parts], ends_with=False)

    def why_not(self, profile: Profile) -> str:
        return "; ".join(why for part in self.parts if (why := part.why_not(profile)))


class Either(msgspec.Struct, frozen=True):
    """`or`."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(_bracketed(part) for part in self.parts)

    def compiled(self) -> Test:
        return _joined([part.compiled() for part in self.parts], ends_with=True)

    def why_not(self, profile: Profile) -> str:
        whys = [part.why_not(profile) for part in self.parts]
        return " and ".join(whys) if all(whys) else ""


Node: TypeAlias = Comparison | Not | Both | Either


def written(value: Value) -> str:
    """As the expression has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(written(each) for each in value)}]"
    if isinstance(value, str):
        return quoted(value)
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def shown(value: Value) -> str:
    """What a host says of itself, cut to what a person reads."""
    if value in ("", ()):
        return "none"
    text = written(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"


def _name(operand: Operand) -> str:
    return operand.name if isinstance(operand, Attribute) else str(operand)


def _joined(tests: list[Test], *, ends_with: bool) -> Test:
    """The first that says `ends_with` decides. (`all` and `any` over a generator take half as long again.)"""

    def joined(profile: Profile) -> bool:
        for test in tests:
            if test(profile) is ends_with:
                return ends_with
        return not ends_with

    return joined


def _reader(operand: Operand) -> Callable[[Profile], Value]:
    if isinstance(operand, Attribute):
        return operand.read
    value = operand.value
    return lambda profile: value


def _bracketed(part: Node) -> str:
    return f"({part})" if isinstance(part, Both | Either) else str(part)
