"""Faults on packet links: the bytes of the `google.rpc.Status` that gRPC carries, and back."""

from __future__ import annotations

from offgrid_node.protocol.errors import Fault, PeerFault
from offgrid_node.services.status import described_fault, status_of


def fault_to_bytes(fault: Fault) -> bytes:
    """A serialised `google.rpc.Status`, a few kilobytes at most."""
    data: bytes = status_of(fault).SerializeToString()
    return data


def fault_from_bytes(raw: bytes) -> Fault:
    """The fault that the peer described; a PeerFault when these bytes describe none."""
    unreadable = PeerFault("the peer answered with an error that describes nothing", reason="MalformedStatus")
    return described_fault(raw) or unreadable
