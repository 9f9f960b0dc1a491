"""Keys that are checked but that nothing reads yet: whoever sets one is told so, at `config check` and at run time."""

from __future__ import annotations

from functools import reduce

from .tree import Config, Keys, is_reserved, settings


def unused_settings(config: Config) -> tuple[str, ...]:
    """A sentence for each reserved key that is not at its default; values, which may be secret, are not repeated."""
    data_dir = str(config.node.data_dir)
    default = Config.model_validate({"mesh": {"name": config.mesh.name}, "node": {"data_dir": data_dir}})
    return tuple(
        f"{'.'.join(path)} is set, but this version does not use it yet"
        for path, info in settings()
        if is_reserved(info) and _value(config, path) != _value(default, path)
    )


def _value(config: Config, path: Keys) -> object:
    return reduce(getattr, path, config)
