"""The options that several commands of `offgrid-node` take, and what the owner's KEY=VALUE pairs mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

ROLES = click.Choice(["core", "broker", "host"])

FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, readable=False),  # commands say whose it is that may not be read
    default=Path("."),
    show_default="this folder",
    help="The node's folder.",
)
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of the config, e.g. mesh.listen=0.0.0.0:7500.",
)
NAME = click.option("--name", help="What people call this node; the machine's name unless given.")
ROLE = click.option("--role", "roles", multiple=True, type=ROLES, help="May be repeated; all three unless given.")


def parse_settings(settings: tuple[str, ...]) -> Mapping[str, object]:
    """KEY=VALUE pairs; a value that reads as TOML is taken so, anything else is text."""
    import tomllib

    parsed: dict[str, object] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--set {setting}: KEY=VALUE is expected, e.g. mesh.listen=0.0.0.0:7500")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = text
    return parsed
