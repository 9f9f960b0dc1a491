"""What TLS shows of a node: a short-lived P-256 leaf under the node's identity (RFC 5280).

gRPC's TLS takes no Ed25519 leaf (NO_COMMON_SIGNATURE_ALGORITHMS), so each process makes itself a P-256 key that never
touches the disk, and the identity signs it. Its dates say nothing: whom to trust is membership's business.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from offgrid_node.keys.certificates import check_identity_certificate, identity_certificate, tls_name_of
from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.ids import NODE_ID, node_id_bytes, node_id_of

_ENCODING_DER = 2  # of Python's own certificate objects
_NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NodeTls:
    """One process's TLS key and its chain (leaf, then identity), both PEM, with the identity as DER."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    identity_der: bytes


def fingerprint_of(public_key: bytes) -> str:
    """The 32 characters by which TLS names the holder of a key; for a node's first key its node id."""
    return node_id_of(public_key)


def issue_leaf(key: NodeKey) -> NodeTls:
    """A fresh P-256 leaf for this process, usable as server and as client, signed by the node's identity."""
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    fingerprint = fingerprint_of(key.public_key)
    name = tls_name_of(fingerprint)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(fingerprint))
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .public_key(leaf_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_DIGITAL_SIGNATURE, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(node_id_bytes(fingerprint), None, None), critical=False)
        .sign(key.certificate_signer(), None)
    )
    identity_der = identity_certificate(key)
    return NodeTls(
        key_pem=leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        chain_pem=leaf.public_bytes(serialization.Encoding.PEM) + pem_of(identity_der),
        identity_der=identity_der,
    )


def identity_at(address: str, tls: NodeTls, timeout_s: float = 10.0) -> bytes:
    """The identity certificate (DER) that whoever listens at "host:port" shows, believed for nothing yet: for whoever
    knows nobody and has to begin with somebody. Raises Unavailable where nobody answers, PeerFault where it is none."""
    host, _, port = address.rpartition(":")
    try:
        plain = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
        with plain, _blind_context(tls).wrap_socket(plain) as secure:
            chain = _chain_of(secure)
    except OSError as error:
        why = error.strerror or error
        raise Unavailable(f"no member answers at {address}: {why}", reason="NotConnected") from error
    for der in reversed(chain):
        try:
            check_identity_certificate(der)
        except InvalidRequest:
            continue
        return der
    raise PeerFault(f"{address}: who listens there is no node of a mesh", reason="NoIdentity")


def _blind_context(tls: NodeTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:  # 0700; Python's TLS reads a key from a file alone
        path = Path(folder) / "own.pem"
        path.write_bytes(tls.chain_pem + tls.key_pem)
        context.load_cert_chain(path)
    return context


def _chain_of(secure: ssl.SSLSocket) -> list[bytes]:
    """As it was sent, the leaf first. Python 3.13 has a method for it; before, its own object has one."""
    if sys.version_info >= (3, 13):
        return list(secure.get_unverified_chain())
    shown = secure._sslobj.get_unverified_chain() or []  # type: ignore[attr-defined]
    return [certificate.public_bytes(_ENCODING_DER) for certificate in shown]


def pem_of(certificate_der: bytes) -> bytes:
    """A DER certificate as PEM (RFC 7468)."""
    return ssl.DER_cert_to_PEM_cert(certificate_der).encode("ascii")


def own_leaf(tls: NodeTls) -> bytes:
    """The leaf that this process shows, as DER."""
    return x509.load_pem_x509_certificate(tls.chain_pem).public_bytes(serialization.Encoding.DER)


def is_twin(leaf_der: bytes, own: NodeTls) -> bool:
    """Whether another process than this one has our identity: it shows a leaf that our key has signed, and not ours."""
    try:
        x509.load_der_x509_certificate(leaf_der).verify_directly_issued_by(
            x509.load_der_x509_certificate(own.identity_der)
        )
    except (ValueError, TypeError, InvalidSignature, *_PARSE_ERRORS):
        return False
    return leaf_der != own_leaf(own)


def fingerprint_in_leaf(leaf_pem: bytes) -> str | None:
    """For whom a leaf speaks whose chain TLS has verified; None for anything but what `issue_leaf` makes.

    Two locks of their own: its only alternative name is `<fingerprint>.node`, a DNS name (a NameConstraint on DNS
    names says nothing of a URI); and its issuer's name, which TLS has matched with a trusted identity, is that
    fingerprint too.
    """
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
        names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        issuer = leaf.issuer
    except (ValueError, *_PARSE_ERRORS):
        return None
    if len(names) != 1 or not isinstance(names[0], x509.DNSName):
        return None
    fingerprint = names[0].value.removesuffix(".node")
    if not NODE_ID.match(fingerprint) or names[0].value != tls_name_of(fingerprint):
        return None
    return fingerprint if issuer == _common_name(fingerprint) else None


def _common_name(value: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])


_PARSE_ERRORS = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
