"""PURE: single commands of a block, what their answer is to look like, and what stands for something else in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

PROMPT, ANY = "$ ", "…"


class Statement(msgspec.Struct):
    """A command as it is typed, and the lines that it answers; None: they are not shown."""

    text: str
    expected: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Hole:
    """What stands for something that only the reader knows: `og1:…`, `j-2akz…`, `TX`."""

    text: str
    kind: str
    at: tuple[int, int] = field(compare=False)


_HOLES = re.compile(r"(?P<kind>og1:|[a-z]-)[A-Za-z0-9]*…|\b(?P<word>TX|MESH-ID|NUMBER|MESSAGE)\b")


def statements_of(text: str, *, console: bool) -> list[Statement]:
    """The commands of an `sh` or `console` block; lines that end with a backslash go on."""
    return list(_of_console(text) if console else _of_shell(text))


def _of_shell(text: str) -> Iterator[Statement]:
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield Statement(line)


def _of_console(text: str) -> Iterator[Statement]:
    told: list[Statement] = []
    for line in text.splitlines():
        if line.startswith(PROMPT):
            told.append(Statement(line.removeprefix(PROMPT), []))
        elif not told:
            raise ValueError(f"an answer before any command: {line!r}")
        else:
            assert told[-1].expected is not None
            told[-1].expected.append(line)
    return iter(told)


def holes_of(command: str) -> list[Hole]:
    """What has to be filled in before the command can be run; comments have none."""
    typed = re.sub(r"\s# .*$", "", command)
    return [Hole(found[0], found["kind"] or found["word"], found.span()) for found in _HOLES.finditer(typed)]


def filled(command: str, values: dict[str, str]) -> str:
    """The command with what is in `values`, by the text of each hole, in its holes."""
    for hole in reversed(holes_of(command)):
        start, end = hole.at
        command = command[:start] + values[hole.text] + command[end:]
    return command


def is_like(expected: list[str], output: str) -> bool:
    """Whether the output is what was shown: `…` stands for whatever is there, alone on a line for any lines."""
    pattern = ""
    for line in expected:
        if line.strip() == ANY:
            pattern += r"(?:.*\n)*?"
        else:
            words = [re.escape(part) for part in _single_spaced(line).split(ANY)]
            pattern += ".*".join(words) + r"\n"
    told = "".join(f"{_single_spaced(line)}\n" for line in output.splitlines())
    return re.fullmatch(pattern, told) is not None


def _single_spaced(line: str) -> str:
    return " ".join(line.split())
