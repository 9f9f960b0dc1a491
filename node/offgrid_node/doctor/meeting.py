"""Who is behind an address: whether somebody listens there, speaks TLS, and which key that shows."""

from __future__ import annotations

import socket
import ssl
from enum import Enum

from offgrid_node.config import split_address
from offgrid_node.keys import fingerprint_in_leaf

CONNECT_S = 1.2


class Met(Enum):
    """What is behind an address."""

    NOBODY = "nobody listens there: the machine is up, and the node is not"
    SILENCE = "no answer: the machine is off or gone, or a firewall there drops what comes in"
    NO_TLS = (
        "it takes connections, and then nothing comes: the node there hangs, or packets of full size get lost (MTU)"
    )
    OTHER = "another node than that is there"
    THERE = "it listens, and ends calls from here"


def meet(address: str) -> tuple[Met, str]:
    """And the fingerprint of the key that it shows, "" where it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        plain = socket.create_connection(split_address(address), timeout=CONNECT_S)
    except ConnectionRefusedError:
        return Met.NOBODY, ""
    except OSError:
        return Met.SILENCE, ""
    try:
        with plain, context.wrap_socket(plain) as wrapped:
            leaf = wrapped.getpeercert(binary_form=True)
    except TimeoutError:
        return Met.NO_TLS, ""
    except OSError:
        return Met.OTHER, ""
    shown = fingerprint_in_leaf(ssl.DER_cert_to_PEM_cert(leaf).encode()) if leaf else None
    return (Met.THERE, shown) if shown else (Met.OTHER, "")
