"""Extras of the project, as pip calls them, in a kit: what each brings along, and which a node's config asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from importlib.metadata import requires
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from offgrid_node.kit.locked import IN_CHECKOUT, IN_WHEEL, Pin, needed, pins_of, read_lock
from offgrid_node.kit.targets import EXTRAS

if TYPE_CHECKING:
    from offgrid_node.config import Config

SERIAL = frozenset({"lora", "meshcore", "meshtastic"})


def extras_of(config: Config) -> tuple[str, ...]:
    """Those that this config cannot do without."""
    schemes = {line.partition(":")[0] for line in config.links.open}
    used = {
        "ble": "ble" in schemes,
        "dask": bool(config.host.dask.scheduler),
        "lora": not schemes.isdisjoint(SERIAL),
        "sql": bool(config.state.sql_mirror.get_secret_value()),
    }
    return tuple(name for name in EXTRAS if used.get(name))


def pins_for(extras: Collection[str]) -> tuple[Pin, ...]:
    """What a node with these extras installs."""
    pins = {pin.name: pin for pin in needed(pins_of(read_lock("runtime")))}
    if extras:
        pins |= {pin.name: pin for pin in needed(pins_of(read_lock("extras")), asked_for(extras))}
    return tuple(pins.values())


def asked_for(extras: Collection[str]) -> frozenset[str]:
    """The packages that the project itself names for these extras."""
    return frozenset(_plain(line) for extra in extras for line in _lines(extra))


def _lines(extra: str) -> Iterable[str]:
    if not IN_WHEEL.is_dir():
        project = tomllib.loads((IN_CHECKOUT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return tuple(project["optional-dependencies"][extra])
    wanted = f"extra == '{extra}'"
    return tuple(line for line in requires("offgrid-node") or () if wanted in line.replace('"', "'"))


def _plain(line: str) -> str:
    """The name as locks have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", Requirement(line).name).lower()
