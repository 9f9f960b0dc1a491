"""The commented offgrid.toml that `offgrid-node init` writes, made from the tree itself so that it cannot go stale.

Keys that are set stand as such; every other key stands as a comment with its default.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .explain import allowed, dotted, explain
from .problems import ConfigError, Problem
from .sections import Section, section_of
from .tree import Config, Keys, is_reserved, settings

_HEAD = """\
# The configuration of one offgrid-node. Check it with: offgrid-node config check FILE
# Stronger than this file are a file named .env beside it and, above both, the environment:
# OFFGRID_<SECTION>__<KEY> sets any key, for example OFFGRID_MESH__LISTEN=0.0.0.0:7500.
# Relative paths start at this file's folder. A line like "# key = value" shows a default.
""".splitlines()
_COMPUTED: Mapping[Keys, str] = {("node", "name"): "the machine's name", ("host", "slots"): "one per processor"}


def template(mesh_name: str, node_name: str, roles: Sequence[str], *, values: Mapping[str, object]) -> str:
    """See `offgrid_node.config.template`."""
    chosen: dict[str, object] = {"mesh.name": mesh_name, "node.name": node_name, "node.roles": list(roles)}
    chosen |= values
    _check(chosen)
    reserved = [".".join(path) for path, info in settings() if is_reserved(info)]
    lines = [*_HEAD, *_comment(f"Reserved, that is checked but not used by this version: {', '.join(reserved)}")]
    _section(Config, (), chosen, lines)
    return "\n".join(lines) + "\n"


def _check(chosen: Mapping[str, object]) -> None:
    """Raises ConfigError when these values are not a configuration."""
    data: dict[str, Any] = {}
    for name, value in chosen.items():
        *above, last = name.split(".")
        table = data
        for key in above:
            table = table.setdefault(key, {})
        table[last] = list(value) if isinstance(value, tuple) else value
    try:
        Config.model_validate(data)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            told = explain(detail)
            key = dotted(detail["loc"])
            problems.append(Problem("offgrid.toml", 1, 1, key, told.message, told.allowed, told.suggestion))
        raise ConfigError(problems) from None


def _section(section: type[Section], path: Keys, chosen: Mapping[str, object], lines: list[str]) -> None:
    inner: list[tuple[str, type[Section]]] = []
    for name, info in section.model_fields.items():
        if below := section_of(info):
            inner.append((name, below))
        else:
            lines += ["", *_entry((*path, name), info, chosen)]
    for name, below in inner:
        lines += ["", "", *_comment(" ".join((below.__doc__ or "").split())), f"[{'.'.join((*path, name))}]"]
        _section(below, (*path, name), chosen, lines)


def _entry(path: Keys, info: FieldInfo, chosen: Mapping[str, object]) -> list[str]:
    about = [
        *_comment(f"{info.description}{' (reserved)' if is_reserved(info) else ''}"),
        *_comment(f"allowed: {allowed(info)}"),
    ]
    name, default = ".".join(path), default_text(path, info)
    if name not in chosen:
        note = [f"# default: {default.text}"] if default.computed else []
        return [*about, *note, f"# {path[-1]} = {toml_value(_default(info))}"]
    return [*about, *_comment(f"default: {default.text}"), f"{path[-1]} = {toml_value(chosen[name])}"]


class DefaultText(NamedTuple):
    """A key's default: as TOML, or in words where it has none or the machine says what it is."""

    text: str
    computed: bool


def default_text(path: Keys, info: FieldInfo) -> DefaultText:
    """The same on every machine."""
    if path in _COMPUTED:
        return DefaultText(_COMPUTED[path], True)
    if info.is_required():
        return DefaultText("none, it must be set", True)
    return DefaultText(toml_value(_default(info)), False)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _default(info: FieldInfo) -> object:
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        raise ValueError("a key without a default must be chosen")
    return default


def toml_value(value: object) -> str:
    """A value in TOML; what it writes, `tomllib` reads back."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case SecretStr():
            return toml_value(value.get_secret_value())
        case Path():
            return toml_value(str(value) if value.is_absolute() else f"./{value.as_posix()}")
        case str():
            # JSON's escapes are TOML's too; only DEL is legal in the one and not in the other.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{ " + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a configuration")


def _key(name: object) -> str:
    text = str(name)
    try:
        return text if tomllib.loads(f"{text} = 0") == {text: 0} else toml_value(text)
    except tomllib.TOMLDecodeError:
        return toml_value(text)
