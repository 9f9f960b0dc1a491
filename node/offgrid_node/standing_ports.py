"""Ports of a standing mesh's nodes: free ones for new nodes, and others for a node that is down and lost its own.

What a node listens on stands in its config, as `up` wrote it; that text alone is changed, and only where it still says
what `up` knows. Members hear of the new address from the node itself. Where all of them have moved, nobody would know
anybody's: so each finds the others in its hosts file.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.services.addresses import check_free

HOST = "127.0.0.1"
PORTS = range(7601, 8000)  # below what systems give to connections: a node that is down finds its own free
HOSTS_FILE = Path("discovery") / "mesh_hosts.json"


def free_port(taken: set[int], ports: Sequence[int] = PORTS) -> int:
    """The first of these ports of the loopback that nobody has, and that is not among `taken`. Raises Unavailable."""
    for port in ports:
        if port not in taken and is_free(port):
            return port
    raise Unavailable(f"no port from {ports[0]} to {ports[-1]} is free on {HOST}", reason="NoPort")


def is_free(port: int) -> bool:
    """Whether nobody has it, nor had it a moment ago."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as trial:
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def moved(config: Path, ports: Iterable[int], taken: set[int]) -> Mapping[int, int]:
    """Has the config listen elsewhere in place of those of its `ports` that another program has; the new ones by the
    old. What a node had until just now is its own still, though connections linger there."""
    text, found = config.read_text(encoding="utf-8"), dict[int, int]()
    for port in ports:
        if f'"{HOST}:{port}"' in text and _is_taken(port):
            found[port] = free_port({*taken, *found.values()})
            text = text.replace(f'"{HOST}:{port}"', f'"{HOST}:{found[port]}"')
    if found:
        fresh = config.with_name(config.name + ".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(config.stat().st_mode)
        fresh.replace(config)
    return found


def tell(folders: Iterable[Path], ports: Mapping[str, int]) -> None:
    """Each of these nodes' hosts files names all of them. One that somebody else keeps stays as it is."""
    hosts = [{"name": name, "address": f"{HOST}:{port}"} for name, port in ports.items()]
    for folder in folders:
        path = folder / HOSTS_FILE
        if not path.exists() or _names(path) <= ports.keys():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"hosts": hosts}, indent=2) + "\n", encoding="utf-8")


def _is_taken(port: int) -> bool:
    try:
        check_free(f"{HOST}:{port}")
    except FailedPrecondition:
        return True
    return False


def _names(path: Path) -> set[str]:
    try:
        return {str(each["name"]) for each in json.loads(path.read_text(encoding="utf-8"))["hosts"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {""}
