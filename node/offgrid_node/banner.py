"""What a node says when it is up: who it is, where it listens, and ready-made lines to talk to it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from offgrid_node import __version__
from offgrid_node.access_files import TLS_NAME, TOKEN_NAME
from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.keys import tls_name_of
from offgrid_node.node import Node

if TYPE_CHECKING:
    from offgrid_node.config import Config

ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised here, not bound


def banner(config: Config, node: Node, admin: str, mesh_port: int, page: str = "", metrics: str = "") -> str:
    """Several lines for a terminal."""
    directory = node.directory
    lines = [
        f"offgrid-node {__version__}: {config.node.name} ({node.node_id}) of mesh {directory.mesh_name}",
        f"  roles    {', '.join(config.node.roles)}",
        f"  members  {len(directory.live())} known",
        f"  admin    {admin}",
        f"  mesh     port {mesh_port}, mutual TLS",
        f"  store    {config.storage.memory_db}",
        *([f"  page     {page}"] if page else []),
        *([f"  metrics  http://{metrics}/metrics"] if metrics else []),
        "Talk to it:",
        f"  offgrid --socket {quoted(admin)} status",
        f"  {grpcurl_admin(config, admin)}",
        f"  {grpcurl_mesh(config, node, mesh_port)}",
    ]
    return "\n".join(lines)


def quoted(text: object) -> str:
    """As a shell wants it."""
    return shlex.quote(str(text))


def grpcurl_admin(config: Config, admin: str) -> str:
    """The exact line for the owner's socket, or for the loopback port and its token."""
    method = "offgrid.v1.MeshService/GetStatus"
    if admin.startswith("unix:"):
        return f"grpcurl -plaintext -unix {quoted(admin.removeprefix('unix:'))} {method}"
    token = config.node.data_dir / TOKEN_NAME
    return f'grpcurl -plaintext -H "authorization: Bearer $(cat {quoted(token)})" {admin} {method}'


def grpcurl_mesh(config: Config, node: Node, mesh_port: int) -> str:
    """The exact line for the mesh port, as this very node; the PEM files are written at start."""
    tls = config.node.data_dir / TLS_NAME
    host = split_address(config.mesh.listen, port_min=0)[0]
    reach = join_address(ANY_HOST.get(host, host), mesh_port)
    files = (("cacert", "identity.pem"), ("cert", "chain.pem"), ("key", "leaf.key"))
    shown = " ".join(f"-{flag} {quoted(tls / name)}" for flag, name in files)
    return f"grpcurl {shown} -authority {tls_name_of(node.node_id)} {reach} offgrid.v1.MeshService/GetStatus"
