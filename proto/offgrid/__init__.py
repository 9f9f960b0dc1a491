"""offgrid: the wire (`offgrid.v1`, generated) and the client that applications import.

    import offgrid

    @offgrid.job
    def double(number: int) -> int:
        return 2 * number

    with offgrid.connect() as client:
        print(client.mesh.status().name)
        print(double.submit(client, 21).result())

Importing this package loads nothing heavy; gRPC comes with the first `connect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offgrid.by_value import RemoteError, Untrusted
    from offgrid.client import Client, OffgridError, connect
    from offgrid.client.futures import Future, JobFailed, JobFuture, as_completed
    from offgrid.inside import progress
    from offgrid.job_function import JobFunction, job

__all__ = [
    "Client",
    "Future",
    "JobFailed",
    "JobFunction",
    "JobFuture",
    "OffgridError",
    "RemoteError",
    "Untrusted",
    "as_completed",
    "connect",
    "job",
    "progress",
]

_PLACES = {
    **dict.fromkeys(("Client", "OffgridError", "connect"), "offgrid.client"),
    **dict.fromkeys(("Future", "JobFailed", "JobFuture", "as_completed"), "offgrid.client.futures"),
    **dict.fromkeys(("RemoteError", "Untrusted"), "offgrid.by_value"),
    **dict.fromkeys(("JobFunction", "job"), "offgrid.job_function"),
    "progress": "offgrid.inside",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'offgrid' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
