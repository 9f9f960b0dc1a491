"""`python -m offgrid_node.config FILE`: the process behind `apart.py`. Reads one config, writes its Answer, pickled."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from .apart import Answer, Secret
from .loading import load
from .problems import ConfigError
from .reserved import unused_settings
from .sections import Section


def answer_of(path: Path) -> Answer:
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        return Answer({}, (), tuple(error.problems))
    return Answer(values_of(config), unused_settings(config), ())


def values_of(section: Section) -> dict[str, Any]:
    """Its values by their keys; sections in it are such dicts again."""
    return {name: _plain(getattr(section, name)) for name in type(section).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return values_of(value)
    if isinstance(value, SecretStr):
        return Secret(value.get_secret_value())
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(answer_of(Path(sys.argv[1]))))
