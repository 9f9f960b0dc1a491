"""Settings from `OFFGRID_*` names: those of the process's environment and those of a `.env` file.

`OFFGRID_<SECTION>__<KEY>` sets any key (`OFFGRID_HOST__WASM__ENABLED`); thirteen short names are older and keep their
meaning. A name that sets nothing is refused. Values: integers, true/false (also 1/0, yes/no, on/off), lists separated
by commas, tables as `name=value,name=value`. The `.env` syntax is python-dotenv's; `$` means nothing in it.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
from pydantic.fields import FieldInfo

from .explain import shape
from .problems import Problem, nearest
from .tree import Keys, settings

PREFIX = "OFFGRID_"
OF_THE_COMMAND = "OFFGRID_CONTEXT"
"""Which node `offgrid` talks to: no setting of this one."""
ENVIRONMENT = "environment"
SHORT_NAMES: Mapping[str, Keys] = {
    "OFFGRID_MODE": ("jobs", "mode"),
    "OFFGRID_BROKER_URL": ("jobs", "broker_url"),
    "OFFGRID_AUTH_KEY": ("gateway", "auth_key"),
    "OFFGRID_STORAGE_ENABLED": ("storage", "enabled"),
    "OFFGRID_STORAGE_HOSTS": ("storage", "hosts"),
    "OFFGRID_MEMORY_DB": ("storage", "memory_db"),
    "OFFGRID_CHUNK_DIR": ("storage", "chunk_dir"),
    "OFFGRID_CHUNK_THRESHOLD": ("storage", "chunk_threshold"),
    "OFFGRID_RETENTION_BASE_MB": ("storage", "retention_base_mb"),
    "OFFGRID_RETENTION_TOKEN_LEVEL": ("storage", "retention_token_level"),
    "OFFGRID_COMPACTION_INTERVAL": ("storage", "compaction_interval"),
    "OFFGRID_SUMMARY_DIR": ("storage", "summary_dir"),
    "OFFGRID_SETTLEMENT_INTERVAL": ("economy", "settlement_interval"),
}

DOTENV_BYTES_MAX = 64 * 1024
LINE_CHARS_MAX = 8192
"""Longest line of a `.env` file: python-dotenv's time grows with the square of a line's blanks."""
GUESSES_MAX = 100
"""Unknown names that get a suggestion; each costs a comparison with every known name."""

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}\Z", re.ASCII)
_BEFORE_KEY = re.compile(r"\s*(?:export[^\S\r\n]+)?'?")
_BEFORE_VALUE = re.compile(r"'?[^\S\r\n]*=[^\S\r\n]*")


@dataclass(frozen=True, slots=True)
class Variable:
    """One name and value, and where both stand."""

    name: str
    value: str = field(repr=False)
    file: str
    name_at: tuple[int, int] = (1, 1)
    value_at: tuple[int, int] = (1, 1)


class Override(msgspec.Struct, frozen=True):
    """A variable that sets the key at `path` to `value`."""

    path: Keys
    value: object
    variable: Variable


def from_environ(environ: Mapping[str, str]) -> list[Variable]:
    """The variables of a process that are ours, by name."""
    return [Variable(name, environ[name], ENVIRONMENT) for name in sorted(environ) if _is_ours(name)]


def from_dotenv(text: str, file: str) -> tuple[list[Variable], list[Problem]]:
    """The variables of a `.env` text that are ours, and the lines that cannot be read or set a name twice."""
    from dotenv.parser import parse_stream  # most have no such file, and each start would take longer

    variables: dict[str, Variable] = {}
    problems: list[Problem] = []
    offset = 0
    line_starts = [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", text))]

    def position(at: int) -> tuple[int, int]:
        line = bisect_right(line_starts, at)
        return line, at - line_starts[line - 1] + 1

    for line, (start, end) in enumerate(pairwise([*line_starts, len(text)]), 1):
        if end - start > LINE_CHARS_MAX:
            rule = f"at most {LINE_CHARS_MAX} characters"
            return [], [Problem(file, line, 1, "", "the line is too long", rule)]
    for binding in parse_stream(io.StringIO(text, newline="")):
        start = offset
        offset += len(binding.original.string)
        name_at = start + _length(_BEFORE_KEY, binding.original.string, 0)
        if binding.error:
            problems.append(Problem(file, *position(name_at), "", "the line cannot be read", "NAME=value"))
        if not binding.key or not _is_ours(binding.key):
            continue
        value_at = name_at + len(binding.key)
        value_at += _length(_BEFORE_VALUE, text, value_at)
        here = position(name_at)
        if binding.value is None:
            problems.append(Problem(file, *here, binding.key, "has no value", "NAME=value"))
        elif first := variables.get(binding.key):
            message = f"is already set in line {first.name_at[0]}"
            problems.append(Problem(file, *here, binding.key, message))
        else:
            variables[binding.key] = Variable(binding.key, binding.value, file, here, position(value_at))
    return list(variables.values()), problems


def overrides(variables: list[Variable]) -> tuple[list[Override], list[Problem]]:
    """What the variables of one source set; unknown names, and two names for one key, are problems."""
    fields = dict(settings())
    known = {long_name(path): path for path in fields} | dict(SHORT_NAMES)
    found: dict[Keys, Override] = {}
    problems: list[Problem] = []
    for variable in variables:
        path = known.get(variable.name)
        if path is None:
            guess = nearest(variable.name.upper(), known) if len(problems) < GUESSES_MAX else ""
            problems.append(_problem(variable, "is an unknown name", suggestion=guess))
        elif path in found:
            other = found[path].variable.name
            problems.append(_problem(variable, f"sets {'.'.join(path)}, which {other} sets too"))
        else:
            found[path] = Override(path, _value(variable.value, fields[path]), variable)
    return list(found.values()), problems


def _problem(variable: Variable, message: str, suggestion: str = "") -> Problem:
    return Problem(variable.file, *variable.name_at, variable.name, message, suggestion=suggestion)


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX) and name != OF_THE_COMMAND


def long_name(path: Keys) -> str:
    """The variable that sets the key at `path`."""
    return PREFIX + "__".join(path).upper()


def _length(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() - at if found else 0


def _value(text: str, info: FieldInfo) -> object:
    """The text as the field's type; as it is when it has not that form, which validation then refuses."""
    stripped = text.strip()
    match shape(info):
        case "integer":
            return int(stripped) if _INTEGER.match(stripped) else text
        case "boolean":
            return _BOOLEANS.get(stripped.lower(), text)
        case "list":
            return list(_parts(stripped))
        case "table":
            return _table(stripped)
    return text


def _parts(text: str) -> Iterator[str]:
    return (part.strip() for part in text.split(",")) if text else iter(())


def _table(text: str) -> object:
    table: dict[str, Any] = {}
    for part in _parts(text):
        name, equals, value = part.partition("=")
        if not equals or name.strip() in table:
            return text
        table[name.strip()] = value.strip()
    return table
