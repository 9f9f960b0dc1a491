"""Nobody poses as another: 1,000 leaves in a member's name, signed by a trusted member with its real identity key,
tried on gRPC's own handshake from both ends; and what each lock is for.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Sequence

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from forger import (
    DNS_ALICE,
    DNS_MALLORY,
    KINDS,
    authority,
    forgeries,
    leaf,
    unconstrained,
)
from tls_house import (
    ALICE,
    ALICE_NAME,
    ALICE_TLS,
    ALL,
    CORE,
    CORE_TLS,
    FORGERIES,
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
    NodeTls,
    check_identity_certificate,
    pem_of,
)
from offgrid_node.protocol.errors import InvalidRequest

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
