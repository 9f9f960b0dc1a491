"""From files and environment to one `Config`, or to every problem that is in the way.

Layers, the later the stronger: the TOML file, `.env` beside it, the process's environment. Each layer is validated on
top of those below it, so a wrong value is reported even where a stronger layer hides it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .env import DOTENV_BYTES_MAX, ENVIRONMENT, Override, from_dotenv, from_environ, overrides
from .explain import dotted, explain
from .problems import DRAFT_SUFFIX, ConfigError, Problem
from .toml_document import Document
from .toml_scan import Path as KeyPath
from .toml_scan import TomlFault
from .tree import Config, Keys, clashes

FILE_BYTES_MAX = 1024 * 1024
PROBLEMS_MAX = 100
"""Problems reported at once; the last one then says that there are more."""

_SECRETS = {("gateway", "auth_key"), ("gateway", "token")}


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads the file at `path`, `.env` beside it and the `OFFGRID_*` names of `environ`.

    Relative paths among the values start at the file's folder. Raises `ConfigError` with every problem; nothing else,
    whatever the files hold. Reads two files and changes nothing.
    """
    loading = _Loading(path, environ)
    config = loading.run()
    if config is None or loading.problems:
        raise ConfigError(loading.sorted_problems())
    return config


class _Loading:
    """One run of `load`."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.problems: dict[Problem, None] = {}
        self._path = path
        self._file = str(path)
        self._env_file = str(path.parent / ".env")
        self._environ = environ
        self._document = Document("")
        self._origins: dict[Keys, Override] = {}

    def run(self) -> Config | None:
        text = self._read(self._path, self._file, FILE_BYTES_MAX)
        self._document = Document(text or "")
        for fault in self._document.faults:
            self._add(self._of_fault(fault))
        broken = text is None or bool(self._document.faults)
        data: dict[str, Any] = self._document.data
        self._validate(data, missing_counts=False)
        for layer in (self._dotenv(), self._environment()):
            data = self._lay(data, layer)
            self._validate(data, missing_counts=False)
        config = self._validate(data, missing_counts=not broken)
        for path, message, rule in clashes(config) if config else ():
            self._add(self._problem(path, message, rule, ""))
        return config

    def sorted_problems(self) -> list[Problem]:
        """File, `.env`, environment; each by line and column; at most `PROBLEMS_MAX`."""
        order = {self._file: 0, self._env_file: 1, ENVIRONMENT: 2}
        found = sorted(self.problems, key=lambda p: (order[p.file], p.line, p.column))
        if len(found) > PROBLEMS_MAX:
            last = found[PROBLEMS_MAX - 1]
            found[PROBLEMS_MAX - 1 :] = [
                replace(last, key="", message="there are more problems", allowed="", suggestion="")
            ]
        return found

    def _add(self, problem: Problem) -> None:
        self.problems.setdefault(problem)

    def _read(self, path: Path, file: str, bytes_max: int) -> str | None:
        """The file's text, or None and a problem."""
        try:
            with open(path, "rb", opener=_open_without_waiting) as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise IsADirectoryError(0, "is not a regular file")
                data = stream.read(bytes_max + 1)
        except FileNotFoundError:
            self._add(Problem(file, 1, 1, "", _no_file(path)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._add(Problem(file, 1, 1, "", f"the file cannot be read: {reason}"))
        else:
            if len(data) <= bytes_max:
                return self._decode(data, file)
            self._add(Problem(file, 1, 1, "", "the file is too large", f"at most {bytes_max} bytes"))
        return None

    def _decode(self, data: bytes, file: str) -> str | None:
        data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            line = before.count(b"\n") + 1
            column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
            message = f"the byte 0x{data[error.start]:02x} is not UTF-8"
            self._add(Problem(file, line, column, "", message, "a text file in UTF-8"))
            return None

    def _dotenv(self) -> list[Override]:
        if not os.path.lexists(self._env_file):
            return []
        text = self._read(Path(self._env_file), self._env_file, DOTENV_BYTES_MAX)
        variables, problems = from_dotenv(text or "", self._env_file)
        return self._known(*overrides(variables), problems)

    def _environment(self) -> list[Override]:
        return self._known(*overrides(from_environ(self._environ)))

    def _known(self, layer: list[Override], *problems: Sequence[Problem]) -> list[Override]:
        for problem in (one for some in problems for one in some):
            self._add(problem)
        return layer

    def _lay(self, data: dict[str, Any], layer: list[Override]) -> dict[str, Any]:
        """`data` with the layer on top; a key whose section is no table stays out (that is reported already)."""
        data = deepcopy(data)
        for override in layer:
            table: Any = data
            for key in override.path[:-1]:
                table = table.setdefault(key, {}) if isinstance(table, dict) else None
            if isinstance(table, dict):
                table[override.path[-1]] = override.value
                self._origins[override.path] = override
        return data

    def _validate(self, data: dict[str, Any], *, missing_counts: bool) -> Config | None:
        try:
            return Config.model_validate(data, context={"folder": self._path.parent})
        except ValidationError as error:
            for detail in error.errors(include_url=False)[: PROBLEMS_MAX + 1]:
                if missing_counts or detail["type"] != "missing":
                    self._add(self._of_error(detail))
            return None

    def _of_fault(self, fault: TomlFault) -> Problem:
        line, column = self._document.line_column(fault.offset)
        if fault.path in _SECRETS and fault.suggestion:
            return Problem(self._file, line, column, dotted(fault.path), "is not a TOML value", "a text in quotes")
        return Problem(self._file, line, column, dotted(fault.path), fault.message, suggestion=fault.suggestion)

    def _of_error(self, error: ErrorDetails) -> Problem:
        told = explain(error)
        path = error["loc"]
        path = path[:-1] if path and path[-1] == "[key]" else path
        return self._problem(path, told.message, told.allowed, told.suggestion, of_key=told.of_key)

    def _problem(self, path: KeyPath, message: str, rule: str, suggestion: str, *, of_key: bool = False) -> Problem:
        for length in range(len(path), 0, -1):
            if override := self._origins.get(tuple(map(str, path[:length]))):
                variable = override.variable
                suggestion = suggestion.strip('"')
                if rule and isinstance(override.value, list):
                    rule += "; in a variable: a,b without quotes, and no [ ] around them"
                return Problem(variable.file, *variable.value_at, variable.name, message, rule, suggestion)
        line, column = self._document.position(path, of_key=of_key)
        return Problem(self._file, line, column, dotted(path), message, rule, suggestion)


def _no_file(path: Path) -> str:
    if path.with_name(path.name + DRAFT_SUFFIX).exists():
        return (
            "there is no such file: a join (or an init) was broken off here; type it again, `offgrid-node join TOKEN`"
        )
    return "there is no such file; `offgrid-node init` writes one"


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a named pipe without waiting for its other end; it is refused right after."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
