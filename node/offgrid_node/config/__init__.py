"""Configuration: `offgrid.toml`, `.env` and `OFFGRID_*` to one frozen, validated tree.

    load(path, environ) -> Config        or ConfigError with every problem at once
    template(mesh_name, node_name, roles) -> str     the commented file that `offgrid-node init` writes
    unused_settings(config) -> sentences             what is set although nothing reads it yet

Importing this package does not import pydantic; `load`, `template` and the name `Config` do. A node that runs reads its
config through `apart.py`, and never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .addresses import BadAddress, place_of, split_address
from .problems import ConfigError, Problem

if TYPE_CHECKING:
    from .tree import Config

__all__ = [
    "CONFIG_NAME",
    "BadAddress",
    "Config",
    "ConfigError",
    "Problem",
    "load",
    "place_of",
    "split_address",
    "template",
    "unused_settings",
]

CONFIG_NAME = "offgrid.toml"  # in a node's folder


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads the file at `path`, `.env` beside it and the `OFFGRID_*` names of `environ`; raises `ConfigError`."""
    from .loading import load as load_now

    return load_now(path, environ)


def template(
    mesh_name: str,
    node_name: str,
    roles: Sequence[str] = ("core", "broker", "host"),
    *,
    values: Mapping[str, object] | None = None,
) -> str:
    """The text of a commented offgrid.toml; `values` sets further keys by dotted name ("mesh.listen").

    Raises ConfigError when the outcome would not load, so what `init` writes always does.
    """
    from .init_file import template as template_now

    return template_now(mesh_name, node_name, roles, values=values or {})


def unused_settings(config: Config) -> tuple[str, ...]:
    """A sentence for each key that is set although this version does not use it yet."""
    from .reserved import unused_settings as unused_now

    return unused_now(config)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "Config":
            from .tree import Config

            return Config
        raise AttributeError(name)
