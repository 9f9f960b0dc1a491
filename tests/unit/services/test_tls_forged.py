"""Nobody poses as another: 1,000 leaves in a member's name, signed by a trusted member with its real identity key,
tried on gRPC's own handshake from both ends; and what each lock is for.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tls_house import (
    ALICE,
    ALICE_NAME,
    ALICE_TLS,
    ALL,
    CORE,
    CORE_TLS,
    FORGERIES,
    LEAF_KEY,
    LEAF_KEY_PEM,
    MALLORY,
    MALLORY_NAME,
    MALLORY_TLS,
    NOBODY,
    Door,
    member_serving,
    serving,
    who_am_i,
)

from offgrid_node.keys import (
    NodeKey,
    NodeTls,
    check_identity_certificate,
    pem_of,
)
from offgrid_node.protocol.errors import InvalidRequest

# ---- the forger's workshop


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


# ---- the two ends


def test_no_server_takes_one_of_1000_forged_leaves_for_alice() -> None:
    async def scenario() -> None:
        taken_for: Counter[str | None] = Counter()
        wrong: list[str] = []
        async with member_serving(CORE_TLS, lambda: ALL) as door:
            for kind, tls in forgeries():
                who = await who_am_i(door.port, tls, CORE_TLS.identity_der)
                taken_for[who] += 1
                if who == ALICE.node_id:
                    wrong.append(kind)
            # The door stands open for whoever is what it says.
            assert await who_am_i(door.port, ALICE_TLS, CORE_TLS.identity_der) == ALICE.node_id
            assert await who_am_i(door.port, MALLORY_TLS, CORE_TLS.identity_der) == MALLORY.node_id
        assert wrong == []
        # Most die in the handshake; what gRPC lets through, because the name is not DNS or has a NUL, is nobody.
        assert taken_for.keys() == {None, NOBODY}
        assert taken_for.total() == FORGERIES

    asyncio.run(scenario())


def test_no_client_takes_a_server_with_one_of_1000_forged_leaves_for_alice() -> None:
    async def scenario() -> None:
        made = forgeries()
        shown: list[str] = []
        queue = iter([*made, ("alice herself", ALICE_TLS)])

        def next_forgery() -> grpc.ServerCertificateConfiguration:
            kind, tls = next(queue)
            shown.append(kind)
            return configured(tls, ALL)

        first = configured(MALLORY_TLS, ALL)
        async with serving(grpc.dynamic_ssl_server_credentials(first, next_forgery, True)) as door:
            for number in range(FORGERIES):
                assert await who_am_i(door.port, CORE_TLS, ALICE_TLS.identity_der) is None, shown[-1]
                assert len(shown) == number + 1
            assert door.seen == []
            assert await who_am_i(door.port, CORE_TLS, ALICE_TLS.identity_der) == CORE.node_id

    asyncio.run(scenario())


def test_every_kind_of_forgery_is_really_shown() -> None:
    """gRPC would quietly go on with its last good certificate, and the test above would show nothing."""

    async def scenario() -> None:
        blind = ssl.create_default_context()
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
        blind.set_alpn_protocols(["h2"])
        for kind in KINDS:
            forged = KINDS[kind]()
            first = configured(forged, ALL)
            async with serving(
                grpc.dynamic_ssl_server_credentials(first, itertools.repeat(first).__next__, True)
            ) as door:
                shown = await asyncio.to_thread(certificate_shown, door.port, blind)
            assert forged.chain_pem.startswith(ssl.DER_cert_to_PEM_cert(shown).encode()), kind

    asyncio.run(scenario())


def certificate_shown(port: int, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw) as sock:
        return sock.getpeercert(binary_form=True) or b""


def configured(tls: NodeTls, roots: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
    """gRPC without any check of ours."""
    return grpc.ssl_server_certificate_configuration(
        [(tls.key_pem, tls.chain_pem)], b"".join(pem_of(root) for root in roots)
    )


# ---- what each lock is for: regressions on gRPC as it is


async def at_a_bare_server(tls: NodeTls, roots: Sequence[bytes]) -> tuple[str | None, Door]:
    """What a server makes of a caller when it trusts `roots` unchecked."""
    first = configured(CORE_TLS, roots)
    async with serving(grpc.dynamic_ssl_server_credentials(first, lambda: configured(CORE_TLS, roots), True)) as door:
        return await who_am_i(door.port, tls, CORE_TLS.identity_der), door


def test_grpc_takes_an_unconstrained_identity_s_word_for_any_name() -> None:
    """Why check_identity_certificate refuses such an identity at join, and the trusted roots do so again."""

    async def scenario() -> None:
        bare = unconstrained(MALLORY)
        who, door = await at_a_bare_server(leaf(DNS_ALICE, chain=b""), [bare])
        assert [auth["peer_dns"] for auth in door.seen] == [[ALICE_NAME.encode()]]
        assert who == NOBODY  # the issuer's name is our second lock
        posing = x509.load_pem_x509_certificate(authority(ALICE.node_id, ALICE.node_id, MALLORY, MALLORY))
        posing_der = posing.public_bytes(Encoding.DER)
        who, _ = await at_a_bare_server(leaf(DNS_ALICE, issuer=ALICE.node_id, chain=b""), [posing_der])
        assert who == ALICE.node_id  # and that one falls too, once such a root is trusted

        for identity in (bare, posing_der):
            with pytest.raises(InvalidRequest, match="no name constraint"):
                check_identity_certificate(identity)
        async with member_serving(CORE_TLS, lambda: (ALICE_TLS.identity_der, bare, posing_der)) as guarded:
            for issuer in (MALLORY.node_id, ALICE.node_id):
                forged = leaf(DNS_ALICE, issuer=issuer, chain=b"")
                assert await who_am_i(guarded.port, forged, CORE_TLS.identity_der) is None
            assert await who_am_i(guarded.port, ALICE_TLS, CORE_TLS.identity_der) == ALICE.node_id

    asyncio.run(scenario())


def test_the_constraint_alone_stops_that_leaf() -> None:
    async def scenario() -> None:
        who, door = await at_a_bare_server(leaf(DNS_ALICE), [MALLORY_TLS.identity_der])
        assert who is None
        assert door.seen == []

    asyncio.run(scenario())


def test_grpc_shows_python_a_name_only_as_far_as_its_first_nul() -> None:
    """Why the caller is read from the leaf: the constraint holds for the whole name, the list shows alice's."""

    async def scenario() -> None:
        who, door = await at_a_bare_server(KINDS["alice's name, NUL, own"](), ALL)
        assert [auth["peer_dns"] for auth in door.seen] == [[ALICE_NAME.encode()]]
        assert [auth["x509_subject_alternative_name"] for auth in door.seen] == [[ALICE_NAME.encode()]]
        assert who == NOBODY

    asyncio.run(scenario())


def test_grpc_lists_names_that_no_constraint_on_dns_names_covers() -> None:
    async def scenario() -> None:
        who, door = await at_a_bare_server(KINDS["URI"](), ALL)
        assert [auth["x509_subject_alternative_name"] for auth in door.seen] == [[ALICE_NAME.encode()]]
        assert who == NOBODY

    asyncio.run(scenario())


def test_a_member_poses_as_nobody_with_more_names_than_its_own() -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, lambda: ALL) as door:
            for names in ((DNS_MALLORY, DNS_MALLORY), (DNS_MALLORY, x509.DNSName(f"x.{MALLORY_NAME}"))):
                assert await who_am_i(door.port, leaf(*names), CORE_TLS.identity_der) == NOBODY
            assert await who_am_i(door.port, leaf(DNS_MALLORY), CORE_TLS.identity_der) == MALLORY.node_id

    asyncio.run(scenario())
