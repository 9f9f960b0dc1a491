"""Files in the data folder by which this machine's owner, and their tools, find the running node.

offgrid.address   "127.0.0.1:port" where administration is no unix socket (Windows); offgrid.token beside it
offgrid.framed    there too: where the framed carrier takes the same token
gateway.address   "host:port" where the gateway listens, when it does: with gateway.listen = "auto" the next start tries
                  that port first
metrics.address   "host:port" where GET /metrics is answered, when it is
tls/              identity.pem, chain.pem, leaf.key (0600): for grpcurl over the mesh port, new at each start
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.keys import NodeTls, pem_of

if TYPE_CHECKING:
    from offgrid_node.config import Config

TOKEN_NAME, ADDRESS_NAME, FRAMED_NAME = "offgrid.token", "offgrid.address", "offgrid.framed"
GATEWAY_NAME, METRICS_NAME, TLS_NAME = "gateway.address", "metrics.address", "tls"


def write_access_files(
    config: Config, admin: str, tls: NodeTls, metrics: str = "", framed: str = "", gateway: str = ""
) -> None:
    """Raises OSError when the data folder cannot be written. What an earlier run left and no longer holds goes."""
    data_dir = config.node.data_dir
    if not admin.startswith("unix:"):
        _write_private(data_dir / ADDRESS_NAME, admin.encode())
        _write_private(data_dir / FRAMED_NAME, framed.encode())
    for name, address in ((METRICS_NAME, metrics), (GATEWAY_NAME, gateway)):
        (data_dir / name).unlink(missing_ok=True)
        if address:
            _write_private(data_dir / name, address.encode())
    folder = data_dir / TLS_NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    _write_private(folder / "identity.pem", pem_of(tls.identity_der))
    _write_private(folder / "chain.pem", tls.chain_pem)
    _write_private(folder / "leaf.key", tls.key_pem)


def _write_private(path: Path, content: bytes) -> None:
    """Replaces the file; nobody but the owner can read it at any moment."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
