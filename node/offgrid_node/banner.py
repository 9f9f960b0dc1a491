"""What a node says when it is up: who it is, where it listens, and what its owner may type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node import __version__
from offgrid_node.node import Node

if TYPE_CHECKING:
    from offgrid_node.config import Config

DATA_NAME = "data"  # of a data folder, unless the config says otherwise
NEXT = (
    ("peers", "who is there"),
    ("mesh invite", "a token for one more machine"),
    ("page --open", "all of it in a browser"),
    ("doctor", "what is wrong, and what to type then"),
)


def banner(config: Config, node: Node, admin: str, mesh_port: int, page: str = "", metrics: str = "") -> str:
    """Several lines for a terminal."""
    directory = node.directory
    command = " ".join(["offgrid", *which(config.node.data_dir)])
    width = max(len(words) for words, _ in NEXT) + 2
    lines = [
        f"offgrid-node {__version__}: {config.node.name} ({node.node_id}) of mesh {directory.mesh_name}",
        f"  roles    {', '.join(config.node.roles)}",
        f"  members  {len(directory.live())} known",
        *([f"  page     {page}"] if page else []),
        f"  mesh     port {mesh_port}, mutual TLS",
        f"  admin    {admin}",
        f"  store    {config.storage.memory_db}",
        *([f"  metrics  http://{metrics}/metrics"] if metrics else []),
        "It runs until Ctrl-C. In another terminal:",
        *(f"  {command} {words:<{width}}# {what}" for words, what in NEXT),
    ]
    return "\n".join(lines)


def which(data_dir: Path) -> list[str]:
    """The words by which `offgrid` finds the node from where this process was started; none where it does so itself."""
    folder = data_dir.parent if data_dir.name == DATA_NAME else data_dir
    return [] if data_dir == Path(DATA_NAME).absolute() else ["--node-dir", shlex.quote(str(folder))]
