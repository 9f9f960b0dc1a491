"""What applications import: `connect()` and, on the client, one room per domain of the wire.

    client.mesh    status, peers, invite, remove
    client.links   list, roads, ping
    client.missions, client.tasks, client.jobs, client.market
    client.events  list, watch
    client.objects, client.quorum, client.ledger

Calls are synchronous and thread-safe. Every unary call has a deadline; a call whose outcome is unknown is repeated
with the same request id, so nothing is done twice. Errors are `OffgridError`.
"""

from __future__ import annotations

from dataclasses import replace

from offgrid.client.address import Address, NoNode, find, is_url
from offgrid.client.client import DEFAULT_TIMEOUT_S, Client
from offgrid.client.errors import OffgridError, Violation
from offgrid.client.silence import RECONNECT_S, Say

__all__ = ["DEFAULT_TIMEOUT_S", "Address", "Client", "NoNode", "OffgridError", "Violation", "connect", "find"]


def connect(
    address: str | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    reconnect_s: float = RECONNECT_S,
    on_silence: Say | None = None,
    token: str = "",
) -> Client:
    """A client of the node at `address`; close it, or use it in a `with` block.

    `address` is the URL of a node's gateway, which may be on another machine (with its `token`, if it asks for one),
    or, of this machine, `unix:/path`, the socket's path, a node's folder (or its data folder), or a loopback
    `127.0.0.1:port` whose token file lies in one of the usual places; None looks in ./data, in the data_dir of
    ./offgrid.toml and in ~/.offgrid/data. `timeout_s` is each unary call's deadline, repetitions included.

    What follows something to its end (futures of jobs, `watch`, `progress`) waits `reconnect_s` for a node that falls
    silent, and goes on when it is back. `on_silence` is given a sentence then, once for all that wait; without it the
    sentence is a warning of the logger "offgrid", which Python writes to standard error where nothing else is set up.

    Nothing is sent yet: a node that does not answer shows at the first call. Raises NoNode, which names every place
    that was tried, when there is no address to call, and OffgridError(INVALID_ARGUMENT) for one that cannot be used.
    """
    found = find(address)
    if token and is_url(found.target):
        found = replace(found, token=token)
    return Client(found, timeout_s=timeout_s, reconnect_s=reconnect_s, on_silence=on_silence)
