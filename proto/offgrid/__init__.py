"""offgrid: the wire (`offgrid.v1`, generated) and the client that applications import.

    import offgrid

    with offgrid.connect() as client:
        print(client.mesh.status().name)

Importing this package loads nothing heavy; gRPC comes with the first `connect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offgrid.client import Client, OffgridError, connect
    from offgrid.inside import progress

__all__ = ["Client", "OffgridError", "connect", "progress"]


def __getattr__(name: str) -> Any:
    if name == "progress":
        from offgrid.inside import progress

        return progress
    if name in __all__:
        from offgrid import client

        return getattr(client, name)
    raise AttributeError(f"module 'offgrid' has no attribute {name!r}")
