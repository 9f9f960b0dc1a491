"""Mutual TLS for the framed carrier, by Python's own ssl: the same leaves, roots and locks as on gRPC (`tls.py`).

A client trusts the target's identity alone and checks the leaf's name; a server trusts all members' identities. Both
read the leaf themselves as well. TLS 1.3 only, no session tickets, and a protocol name (ALPN, RFC 7301) of its own, so
that neither end takes what was meant for gRPC's port, whose leaf is the same.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from offgrid_node.keys import (
    NodeTls,
    check_identity_certificate,
    fingerprint_in_leaf,
    fingerprint_of,
    pem_of,
    tls_name_of,
)
from offgrid_node.logs import fields
from offgrid_node.services.tls import root_pem

PROTOCOL = "offgrid-framed/1"

_log = logging.getLogger(__name__)


class TrustedMembers:
    """The server's context, built anew only when membership has changed."""

    def __init__(self, tls: NodeTls, trusted: Callable[[], Sequence[bytes]]) -> None:
        """`trusted` gives the identity certificates (DER) that may connect, asked at each connection; should it fail,
        this node alone is let in."""
        self._tls, self._trusted = tls, trusted
        self._members: tuple[bytes, ...] | None = None
        self._pem_of: dict[bytes, bytes] = {}
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        try:
            members = tuple(self._trusted())
        except Exception:  # noqa: BLE001 - else a member just removed would stay trusted
            said = fields("members_unread")
            _log.exception("the list of members cannot be read: no other node is let in", extra=said)
            members = ()
        if self._context is None or members != self._members:
            context = _context(ssl.PROTOCOL_TLS_SERVER, self._tls)
            context.num_tickets = 0  # a session resumed would skip the question whether its member still is one
            roots = dict.fromkeys((self._tls.identity_der, *members))
            context.load_verify_locations(cadata=b"".join(root_pem(der) for der in roots).decode("ascii"))
            self._context, self._members = context, members
        return self._context


class Target:
    """Whom a client means: exactly the node whose identity certificate is given."""

    def __init__(self, tls: NodeTls, certificate_der: bytes) -> None:
        """Raises InvalidRequest when that is no identity certificate."""
        self._fingerprint = fingerprint_of(check_identity_certificate(certificate_der))
        self.name = tls_name_of(self._fingerprint)
        self.context = _context(ssl.PROTOCOL_TLS_CLIENT, tls)
        self.context.load_verify_locations(cadata=certificate_der)

    def is_at(self, end: ssl.SSLObject) -> bool:
        """Whether the finished handshake was with the target."""
        return end.selected_alpn_protocol() == PROTOCOL and fingerprint_in_leaf(leaf_of(end)) == self._fingerprint


def leaf_of(end: ssl.SSLObject) -> bytes:
    """The certificate that the other end has shown, PEM; empty when there is none."""
    der = end.getpeercert(binary_form=True)
    return pem_of(der) if der else b""


def _context(side: int, tls: NodeTls) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([PROTOCOL])
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: NodeTls) -> None:
    """The ssl module reads keys from files alone: what touches the disk for a moment is sealed with a password that
    exists in memory alone."""
    password = secrets.token_bytes(32).hex().encode()
    key = serialization.load_pem_private_key(tls.key_pem, None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    with tempfile.TemporaryDirectory(prefix="offgrid-") as folder:  # mode 0700
        path = Path(folder) / "leaf.pem"
        path.write_bytes(tls.chain_pem + sealed)
        context.load_cert_chain(path, password=password)
