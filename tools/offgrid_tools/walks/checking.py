"""Blocks that nobody types: each is held against what reads it."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from offgrid_node.config import ConfigError, load
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.requirements import parse
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BadSpec


class WalkFailed(Exception):
    """What a page shows is not so."""


def check_toml(text: str) -> None:
    """Lines of an offgrid.toml, beside the least that one must have."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "offgrid.toml"
        path.write_text(text if "mesh" in tomllib.loads(text) else f'{text}\n[mesh]\nname = "home"\n', "utf-8")
        try:
            load(path, {})
        except ConfigError as error:
            raise WalkFailed("\n".join(map(str, error.problems))) from None


def check_links(text: str) -> None:
    """Descriptions of links, each of a kind that is there; what else stands on a line is words."""
    kinds = TransportRegistry.installed()
    for described in (word for word in text.split() if ":" in word):
        try:
            kinds.check(described)
        except BadSpec as error:
            raise WalkFailed(str(error)) from None


def check_requirements(text: str) -> None:
    """What jobs ask of hosts, one on a line."""
    for line in text.splitlines():
        try:
            parse(line)
        except InvalidRequest as error:
            raise WalkFailed(f"{line}: {error}") from None


CHECKS: Mapping[str, Callable[[str], None]] = {
    "toml": check_toml,
    "link": check_links,
    "requirements": check_requirements,
}
"""By the word behind the fence. Each raises WalkFailed."""
