"""A config that is read in a process of its own: what it takes to read and check one (pydantic, some 10 MiB) goes again
with that process, while the node that runs by it lives for months.

What comes back has the shape of `Config`, section by section, and is as frozen. That process is `python -m
offgrid_node.config`; its answer is a pickle, for both ends are this very program.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from offgrid_node.protocol.errors import Internal

from .problems import ConfigError, Problem

if TYPE_CHECKING:
    from .tree import Config

MODULE = "offgrid_node.config"


class Answer(NamedTuple):
    """What that process says: values by section and key, or what is in the way of it."""

    values: Mapping[str, Any]
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]


class Secret:
    """A text that no message and no log repeats."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret('**********')" if self._text else "Secret('')"


class Section:
    """A table's values as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        vars(self).update({key: _plain(value) for key, value in values.items()})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: a config stays as it was read")

    def __repr__(self) -> str:
        return f"Section({vars(self)!r})"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return Section(value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


class ConfigReading:
    """The file at `path`, with `.env` beside it and the OFFGRID_* names of the environment, being read. Use it in a
    `with` block: leaving that ends a reading that nobody waited for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = _start(path)

    def __enter__(self) -> ConfigReading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def result(self) -> tuple[Config, tuple[str, ...]]:
        """The config, and a sentence for each key that is set although nothing reads it yet. Raises ConfigError with
        every problem; Internal when that process did not end as it should."""
        if self._process is None:
            from . import load, unused_settings

            config = load(self._path, os.environ)
            return config, unused_settings(config)
        said, trouble = self._process.communicate()
        if self._process.returncode:
            words = trouble.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise Internal(f"what reads the config ended with {self._process.returncode}: {words[-1]}")
        answer: Answer = pickle.loads(said)  # noqa: S301 - our own process, over our own pipe
        if answer.problems:
            raise ConfigError(answer.problems)
        return cast("Config", Section(answer.values)), answer.unused


def _start(path: Path) -> subprocess.Popen[bytes] | None:
    """None where this user may start no process, or not this interpreter again: then it is read here."""
    # Our own import path, since we may not be installed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-P", "-m", MODULE, str(path)]
    with suppress(OSError):
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    return None
