"""Mutual TLS between members, on gRPC: whom a server lets in, whom a client means, and who is calling.

A client trusts the target's identity alone; a server trusts all members' identities, asked for anew at each connection,
so that members come and go without a restart. What is open stays open, and a handshake begun before a removal may
still end after it: taking a member out also means closing its connections and asking at each call whether the caller
is a member now.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import cast

import grpc

from offgrid_node.keys import (
    NodeTls,
    check_identity_certificate,
    fingerprint_in_leaf,
    fingerprint_of,
    pem_of,
    tls_name_of,
)
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest

LEAVES_REMEMBERED = 1_024  # a connection each
ChannelOptions = tuple[tuple[str, str], ...]

_log = logging.getLogger(__name__)


def server_credentials(tls: NodeTls, trusted: Callable[[], Sequence[bytes]]) -> grpc.ServerCredentials:
    """Credentials for one mesh port: a client must hold an identity that `trusted` returns (DER), or this node's own.

    `trusted` is called before each handshake, on a thread of gRPC's: it must be quick and thread-safe (membership
    keeps a tuple and replaces it whole). Should it fail, this node alone is let in until it works again. Each port
    needs credentials of its own, since only one would hear of a change; a second one is refused when it is bound.
    """
    roots = _Roots(tls, trusted)
    # Typeshed's stub leaves out that None stands for "as before".
    changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", roots.changed)
    return grpc.dynamic_ssl_server_credentials(roots.configuration(), changed, require_client_authentication=True)


def channel_credentials(tls: NodeTls, target_certificate_der: bytes) -> tuple[grpc.ChannelCredentials, ChannelOptions]:
    """Credentials and channel options for calling exactly the node whose identity certificate is given.

    Raises InvalidRequest when that is no identity certificate. The options must go into the channel: by them the
    address dialled plays no part in whom we trust.
    """
    name = tls_name_of(fingerprint_of(check_identity_certificate(target_certificate_der)))
    credentials = grpc.ssl_channel_credentials(pem_of(target_certificate_der), tls.key_pem, tls.chain_pem)
    return credentials, (("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))


def caller_fingerprint(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The fingerprint of the member at the other end, from a servicer context's `auth_context()`; None if unproven.

    It is read from the leaf itself. The names that gRPC lists beside it are cut off at a NUL byte on their way into
    Python: `<other>.node\\0.<own>.node` satisfies the issuer's NameConstraint and shows up as the other (measured).
    """
    leaves = list(auth_context.get("x509_pem_cert", ()))
    if list(auth_context.get("transport_security_type", ())) != [b"ssl"] or len(leaves) != 1:
        return None
    return _fingerprint(leaves[0])


@lru_cache(LEAVES_REMEMBERED)
def _fingerprint(leaf_pem: bytes) -> str | None:
    """A certificate says the same at each call of its connection, and parsing it costs 50 µs."""
    return fingerprint_in_leaf(leaf_pem)


class _Roots:
    """The trusted roots in gRPC's form, built anew only when membership has changed: 3 ms for 100, 140 for 1,000."""

    def __init__(self, tls: NodeTls, trusted: Callable[[], Sequence[bytes]]) -> None:
        self._tls = tls
        self._trusted = trusted
        self._lock = threading.Lock()
        self._current: tuple[bytes, ...] = ()
        self._pem_of: dict[bytes, bytes] = {}

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None while the members are the same."""
        with self._lock:
            before, self._current = self._current, self._members()
            return None if self._current == before else self._build()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The configuration as of now."""
        with self._lock:
            self._current = self._members()
            return self._build()

    def _members(self) -> tuple[bytes, ...]:
        try:
            return tuple(self._trusted())
        except Exception:  # noqa: BLE001 - raised on, gRPC would keep its roots and let in a member just removed
            said = fields("members_unread")
            _log.exception("the list of members cannot be read: no other node is let in", extra=said)
            return ()

    def _build(self) -> grpc.ServerCertificateConfiguration:
        known = self._pem_of
        self._pem_of = {
            der: known[der] if der in known else root_pem(der) for der in (self._tls.identity_der, *self._current)
        }
        return grpc.ssl_server_certificate_configuration(
            [(self._tls.key_pem, self._tls.chain_pem)], b"".join(self._pem_of.values())
        )


def root_pem(der: bytes) -> bytes:
    """The last gate before the roots: an unconstrained one could speak for every member, and a broken one would make
    gRPC keep the old set whole. Such a member is left out; the others are served."""
    try:
        check_identity_certificate(der)
    except InvalidRequest as error:
        _log.error(
            "a member's certificate is wrong: it is not trusted", extra=fields("member_untrusted", why=error.message)
        )
        return b""
    return pem_of(der)
