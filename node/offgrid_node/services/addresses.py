"""Whether "host:port" can be listened on, asked of the system before gRPC is.

gRPC wraps a port above 65535 around, is content when only some of a name's addresses are free, and says of a failure no
more than that it was one.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from offgrid_node.config import BadAddress, split_address
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest


def check_free(address: str) -> None:
    """Raises FailedPrecondition naming the address if it is taken, wholly or in part, or not this machine's; and
    InvalidRequest if it is no "host:port" (port 0: any)."""
    try:
        host, port = split_address(address, port_min=0)
    except BadAddress as bad:
        raise InvalidRequest.field("address", f"{address}: {bad}") from bad
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refusal(address, error) from error
    refused = [no for family, kind, proto, _, where in found if (no := _try(family, kind, proto, where))]
    taken = next((no for no in refused if no.errno == errno.EADDRINUSE), None)
    # A name may stand for an address of a family that this machine has switched off, if it has the other.
    if taken or len(refused) == len(found):
        raise _refusal(address, taken or refused[0])


def _try(family: int, kind: int, proto: int, where: tuple[Any, ...]) -> OSError | None:
    try:
        with socket.socket(family, kind, proto) as probe:
            # As gRPC will: a closed connection that lingers on the port is no reason to wait.
            if sys.platform == "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        return error
    return None


def _refusal(address: str, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot listen on {address}: {error.strerror or error}",
        reason="AddressInUse" if error.errno == errno.EADDRINUSE else "AddressUnusable",
        metadata={"address": address},
    )
