"""A trusted member's workshop: leaves in another's name, signed with its real identity key."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tls_house import (
    ALICE,
    ALICE_NAME,
    ALICE_TLS,
    FORGERIES,
    LEAF_KEY,
    LEAF_KEY_PEM,
    MALLORY,
    MALLORY_NAME,
    MALLORY_TLS,
)

from offgrid_node.keys import (
    NodeKey,
    NodeTls,
    pem_of,
)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def certificate(
    subject: str,
    issuer: str,
    holder: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    signer: Ed25519PrivateKey,
    *extensions: x509.ExtensionType,
) -> bytes:
    """A certificate, PEM, that says whatever it is told to."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
        .public_key(holder)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, None).public_bytes(Encoding.PEM)


def authority(subject: str, issuer: str, holder: NodeKey, signer: NodeKey) -> bytes:
    """A CA certificate without any constraint, PEM."""
    public = holder.certificate_signer().public_key()
    alt = x509.SubjectAlternativeName([x509.DNSName(f"{subject}.node")])
    return certificate(subject, issuer, public, signer.certificate_signer(), x509.BasicConstraints(True, None), alt)


def leaf(
    *names: x509.GeneralName,
    raw_names: bytes | None = None,
    subject: str = "leaf",
    issuer: str = MALLORY.node_id,
    signer: NodeKey = MALLORY,
    chain: bytes = pem_of(MALLORY_TLS.identity_der),
) -> NodeTls:
    """A leaf for `names` (or none, or a subjectAltName given as DER) with the chain that goes with it."""
    extensions: list[x509.ExtensionType] = []
    if names:
        extensions.append(x509.SubjectAlternativeName(names))
    if raw_names is not None:
        extensions.append(x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, raw_names))
    pem = certificate(subject, issuer, LEAF_KEY.public_key(), signer.certificate_signer(), *extensions)
    return NodeTls(LEAF_KEY_PEM, pem + chain, MALLORY_TLS.identity_der)


def raw_dns(name: bytes) -> bytes:
    """A subjectAltName of one DNS name that no library would write; at most 123 bytes."""
    return bytes((0x30, len(name) + 2, 0x82, len(name))) + name


def unconstrained(key: NodeKey) -> bytes:
    """What an identity would be without its NameConstraint, DER."""
    return x509.load_pem_x509_certificate(authority(key.node_id, key.node_id, key, key)).public_bytes(Encoding.DER)


HELPER = NodeKey(b"x" * 32)  # an intermediate's key
DNS_ALICE, DNS_MALLORY = x509.DNSName(ALICE_NAME), x509.DNSName(MALLORY_NAME)
MALLORY_PEM, ALICE_PEM = pem_of(MALLORY_TLS.identity_der), pem_of(ALICE_TLS.identity_der)

Forge = Callable[[], NodeTls]
KINDS: dict[str, Forge] = {
    "alice's name": lambda: leaf(DNS_ALICE),
    "alice's name, and no chain": lambda: leaf(DNS_ALICE, chain=b""),
    "own name, then alice's": lambda: leaf(DNS_MALLORY, DNS_ALICE),
    "alice's name, then own": lambda: leaf(DNS_ALICE, DNS_MALLORY),
    "alice's name in capitals": lambda: leaf(x509.DNSName(ALICE_NAME.upper())),
    "alice's name, rooted": lambda: leaf(raw_names=raw_dns(ALICE_NAME.encode() + b".")),
    "any node": lambda: leaf(x509.DNSName("*.node")),
    "any name under own": lambda: leaf(x509.DNSName(f"*.{MALLORY_NAME}")),
    "alice's name under own": lambda: leaf(x509.DNSName(f"{ALICE_NAME}.{MALLORY_NAME}")),
    "alice's name, NUL, own": lambda: leaf(raw_names=raw_dns(f"{ALICE_NAME}\0.{MALLORY_NAME}".encode())),
    "alice's name, NUL": lambda: leaf(raw_names=raw_dns(ALICE_NAME.encode() + b"\0")),
    "alice's name, NUL, own, issued by 'alice'": lambda: leaf(
        raw_names=raw_dns(f"{ALICE_NAME}\0.{MALLORY_NAME}".encode()), issuer=ALICE.node_id
    ),
    "common name only": lambda: leaf(subject=ALICE_NAME),
    "own name, alice in the common name": lambda: leaf(x509.DNSName(f"x.{MALLORY_NAME}"), subject=ALICE_NAME),
    "URI": lambda: leaf(x509.UniformResourceIdentifier(ALICE_NAME)),
    "URI beside own name": lambda: leaf(x509.UniformResourceIdentifier(ALICE_NAME), DNS_MALLORY),
    "e-mail": lambda: leaf(x509.RFC822Name(ALICE_NAME)),
    "directory name": lambda: leaf(x509.DirectoryName(named(ALICE_NAME))),
    "address": lambda: leaf(x509.IPAddress(ipaddress.ip_address("127.0.0.1")), subject=ALICE_NAME),
    "self-issued leaf": lambda: leaf(DNS_ALICE, subject=MALLORY.node_id),
    "issued by 'alice'": lambda: leaf(DNS_ALICE, issuer=ALICE.node_id, chain=ALICE_PEM),
    "an intermediate named alice": lambda: leaf(
        DNS_ALICE,
        issuer=ALICE.node_id,
        signer=HELPER,
        chain=authority(ALICE.node_id, MALLORY.node_id, HELPER, MALLORY) + MALLORY_PEM,
    ),
    "an intermediate of its own name, which the path length does not count": lambda: leaf(
        DNS_ALICE,
        signer=HELPER,
        chain=authority(MALLORY.node_id, MALLORY.node_id, HELPER, MALLORY) + MALLORY_PEM,
    ),
    "its identity without the constraint in the chain": lambda: leaf(DNS_ALICE, chain=pem_of(unconstrained(MALLORY))),
    "an identity named alice in the chain": lambda: leaf(
        DNS_ALICE, issuer=ALICE.node_id, chain=authority(ALICE.node_id, ALICE.node_id, MALLORY, MALLORY)
    ),
}


def forgeries() -> list[tuple[str, NodeTls]]:
    """1,000 different leaves, all kinds in turn."""
    made = [(kind, KINDS[kind]()) for kind in itertools.islice(itertools.cycle(KINDS), FORGERIES)]
    assert len({tls.chain_pem for _, tls in made}) == FORGERIES
    return made
