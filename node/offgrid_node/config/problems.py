"""How a configuration is refused: every problem at once, each with its place, what is allowed and a guess."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import msgspec

from offgrid_node.protocol.errors import FieldViolation, InvalidRequest

DRAFT_SUFFIX = ".draft"  # of a config that an `init` or a `join` has begun
SHOWN_CHARS_MAX = 60
"""Characters of a wrong value that a message repeats."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `line` and `column` count from 1, columns in characters.

    `file` is the path as it was given, ".env" beside it, or "environment" (which has neither lines nor columns: 1, 1).
    `key` is dotted ("mesh.peers[1]") or the name of an environment variable, and may be empty, as may `allowed`
    and `suggestion`.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    allowed: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        """`file:line:column: key: what is wrong. allowed: … did you mean …?`, printable, on one line."""
        text = f"{self.file}:{self.line}:{self.column}: "
        text += f"{self.key}: " if self.key else ""
        text += f"{self.message}."
        text += f" allowed: {self.allowed}." if self.allowed else ""
        text += f" did you mean {self.suggestion}?" if self.suggestion else ""
        return printable(text)


class ConfigError(InvalidRequest):
    """A configuration that cannot be used. `problems` is never empty and stands in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(
            "\n".join(map(str, problems)),
            reason="BadConfig",
            violations=[FieldViolation(problem.key, str(problem)) for problem in problems],
        )
        self.problems = list(problems)


def printable(text: str) -> str:
    """Control characters and lone surrogates escaped, so that no value of a file can steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def shown(value: str) -> str:
    """A text in quotes, cut to `SHOWN_CHARS_MAX`."""
    return f"'{value}'" if len(value) <= SHOWN_CHARS_MAX else f"'{value[:SHOWN_CHARS_MAX]}…'"


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that `word` was most likely meant to be, or ""."""
    found = get_close_matches(word[:SHOWN_CHARS_MAX], list(candidates), n=1, cutoff=0.6)
    return found[0] if found else ""
