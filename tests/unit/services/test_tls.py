"""Mutual TLS between members, on real gRPC servers: who gets in, from when on, and that nobody poses as another.

The second half is the demanding part: 1,000 leaves in another member's name, signed by a trusted member with its real
identity key, tried on gRPC's own handshake from both ends.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from offgrid_node.keys import (
    NodeKey,
    NodeTls,
    check_identity_certificate,
    identity_certificate,
    issue_leaf,
    pem_of,
    tls_name_of,
)
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.services.tls import caller_fingerprint, channel_credentials, server_credentials

NOBODY = ""
TIMEOUT_S = 5.0
METHOD = "/offgrid.test.Test/WhoAmI"

CORE, HOST, STRANGER = NodeKey(b"c" * 32), NodeKey(b"h" * 32), NodeKey(b"s" * 32)
CORE_TLS, HOST_TLS, STRANGER_TLS = issue_leaf(CORE), issue_leaf(HOST), issue_leaf(STRANGER)
MEMBERS = (CORE_TLS.identity_der, HOST_TLS.identity_der)


@dataclass
class Door:
    """A running server: where it listens and what gRPC told it about each caller that came through."""

    port: int = 0
    seen: list[dict[str, list[bytes]]] = field(default_factory=list)


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials) -> AsyncIterator[Door]:
    """A server whose one method answers with the caller's fingerprint, or NOBODY."""
    door = Door()

    async def who_am_i(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        auth = context.auth_context()
        door.seen.append({key: list(values) for key, values in auth.items()})
        return (caller_fingerprint(auth) or NOBODY).encode()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(who_am_i)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("offgrid.test.Test", {"WhoAmI": handler}),))
    door.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield door
    finally:
        await server.stop(None)


@asynccontextmanager
async def member_serving(tls: NodeTls, trusted: Callable[[], Sequence[bytes]]) -> AsyncIterator[Door]:
    async with serving(server_credentials(tls, trusted)) as door:
        yield door


def channel_to(port: int, tls: NodeTls, target_certificate_der: bytes) -> grpc.aio.Channel:
    """A channel with a connection of its own: gRPC would otherwise share one between equal channels."""
    credentials, options = channel_credentials(tls, target_certificate_der)
    own = [*options, ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=own)


async def ask(channel: grpc.aio.Channel) -> str | None:
    """The answer over an open channel: a fingerprint, NOBODY, or None when there is no connection."""
    who_am_i: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    try:
        return (await who_am_i(b"", timeout=TIMEOUT_S)).decode()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return None


async def who_am_i(port: int, tls: NodeTls, target_certificate_der: bytes) -> str | None:
    """`ask` over a new connection."""
    async with channel_to(port, tls, target_certificate_der) as channel:
        return await ask(channel)


def test_members_know_each_other_over_tls_1_3() -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, lambda: MEMBERS) as door:
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id
            assert await who_am_i(door.port, CORE_TLS, CORE_TLS.identity_der) == CORE.node_id
            assert [auth["ssl_tls_version"] for auth in door.seen] == [[b"TLSv1.3"]] * 2

    asyncio.run(scenario())


def test_a_stranger_is_refused() -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, lambda: MEMBERS) as door:
            assert await who_am_i(door.port, STRANGER_TLS, CORE_TLS.identity_der) is None
            assert door.seen == []

    asyncio.run(scenario())


def test_a_client_refuses_any_node_but_the_one_it_means() -> None:
    async def scenario() -> None:
        everyone = (*MEMBERS, STRANGER_TLS.identity_der)
        async with member_serving(STRANGER_TLS, lambda: everyone) as door:
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None
            assert await who_am_i(door.port, HOST_TLS, STRANGER_TLS.identity_der) == HOST.node_id

    asyncio.run(scenario())


def test_members_come_and_go_without_a_restart() -> None:
    async def scenario() -> None:
        members: tuple[bytes, ...] = (CORE_TLS.identity_der,)
        async with member_serving(CORE_TLS, lambda: members) as door:
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None
            members = MEMBERS
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id
            members = (CORE_TLS.identity_der,)
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None
            assert await who_am_i(door.port, CORE_TLS, CORE_TLS.identity_der) == CORE.node_id

    asyncio.run(scenario())


def test_a_connection_that_is_open_outlives_the_membership() -> None:
    """Why the carrier has to close it and each call has to ask who is a member."""

    async def scenario() -> None:
        members: tuple[bytes, ...] = MEMBERS
        async with (
            member_serving(CORE_TLS, lambda: members) as door,
            channel_to(door.port, HOST_TLS, CORE_TLS.identity_der) as channel,
        ):
            assert await ask(channel) == HOST.node_id
            members = (CORE_TLS.identity_der,)
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None
            assert await ask(channel) == HOST.node_id

    asyncio.run(scenario())


def test_the_node_itself_is_always_let_in() -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, tuple) as door:
            assert await who_am_i(door.port, CORE_TLS, CORE_TLS.identity_der) == CORE.node_id
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None

    asyncio.run(scenario())


def test_while_membership_cannot_be_read_no_other_node_is_let_in(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        broken = False

        def trusted() -> tuple[bytes, ...]:
            if broken:
                raise OSError("no members today")
            return MEMBERS

        async with member_serving(CORE_TLS, trusted) as door:
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id
            broken = True
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) is None
            broken = False
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id

    asyncio.run(scenario())
    assert "no members today" in caplog.text


@pytest.mark.parametrize("bad", [b"", b"no certificate", b"\x30\x03\x02\x01\x01"])
def test_one_bad_certificate_shuts_nobody_else_out_and_keeps_nobody_in(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        members = (*MEMBERS, STRANGER_TLS.identity_der)
        async with member_serving(CORE_TLS, lambda: members) as door:
            assert await who_am_i(door.port, STRANGER_TLS, CORE_TLS.identity_der) == STRANGER.node_id
            members = (bad, *MEMBERS)
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id
            assert await who_am_i(door.port, STRANGER_TLS, CORE_TLS.identity_der) is None

    asyncio.run(scenario())
    assert "a member is not trusted" in caplog.text


def test_credentials_shared_by_two_ports_are_refused_when_bound() -> None:
    """A change would reach one of the ports only, and a removed member could use the other."""

    async def scenario() -> None:
        credentials = server_credentials(CORE_TLS, lambda: MEMBERS)
        async with serving(credentials):
            with pytest.raises(RuntimeError, match="Failed to bind"):
                async with serving(credentials):
                    pytest.fail("the second port was bound")

    asyncio.run(scenario())


def test_a_channel_needs_a_sound_identity() -> None:
    with pytest.raises(InvalidRequest, match="not one DER certificate"):
        channel_credentials(HOST_TLS, b"")


def test_the_options_name_the_target() -> None:
    _, options = channel_credentials(HOST_TLS, CORE_TLS.identity_der)
    name = tls_name_of(CORE.node_id)
    assert dict(options) == {"grpc.ssl_target_name_override": name, "grpc.default_authority": name}


def test_whoever_shows_no_certificate_is_refused() -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, lambda: MEMBERS) as door:
            _, options = channel_credentials(HOST_TLS, CORE_TLS.identity_der)
            for channel in (
                grpc.aio.secure_channel(
                    f"127.0.0.1:{door.port}",
                    grpc.ssl_channel_credentials(ssl.DER_cert_to_PEM_cert(CORE_TLS.identity_der).encode()),
                    options=options,
                ),
                grpc.aio.insecure_channel(f"127.0.0.1:{door.port}"),
            ):
                async with channel:
                    assert await ask(channel) is None
            assert door.seen == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "auth_context",
    [
        {},
        {"x509_pem_cert": [HOST_TLS.chain_pem]},
        {"transport_security_type": [b"insecure"], "x509_pem_cert": [HOST_TLS.chain_pem]},
        {"transport_security_type": [b"ssl"], "peer_dns": [f"{HOST.node_id}.node".encode()]},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": [HOST_TLS.chain_pem, CORE_TLS.chain_pem]},
    ],
)
def test_nobody_is_known_by_less_than_one_verified_leaf(auth_context: dict[str, list[bytes]]) -> None:
    assert caller_fingerprint(auth_context) is None


# ---- other TLS stacks


def openssl_client(tls: NodeTls, folder: Path) -> ssl.SSLContext:
    """Python's own OpenSSL, as strict as RFC 5280 asks (the default from Python 3.13 on)."""
    context = ssl.create_default_context(cadata=CORE_TLS.identity_der)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    key, chain = folder / "leaf.key", folder / "leaf.pem"
    key.write_bytes(tls.key_pem)
    chain.write_bytes(tls.chain_pem)
    context.load_cert_chain(chain, key)
    return context


def shake_hands(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool]:
    """One handshake, as far as the server's first HTTP/2 frame, which leaves only when it has accepted the client.

    Returns the session and whether it was resumed; raises OSError when refused.
    """
    name = tls_name_of(CORE.node_id)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=name, session=session) as sock,
    ):
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        if not sock.recv(9):
            raise ConnectionResetError("closed without a word")
        return sock.session, bool(sock.session_reused)


def test_a_strict_openssl_client_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member_serving(CORE_TLS, lambda: MEMBERS) as door:
            await asyncio.to_thread(shake_hands, door.port, openssl_client(HOST_TLS, tmp_path))
            with pytest.raises(OSError, match=r"(?i)unknown ca|closed|reset"):
                await asyncio.to_thread(shake_hands, door.port, openssl_client(STRANGER_TLS, tmp_path))

    asyncio.run(scenario())


def test_a_removed_member_cannot_come_back_by_resuming_its_session(tmp_path: Path) -> None:
    """A resumed TLS session shows no certificate again; a change of members must void the tickets."""

    async def scenario() -> None:
        members: tuple[bytes, ...] = MEMBERS
        context = openssl_client(HOST_TLS, tmp_path)
        async with member_serving(CORE_TLS, lambda: members) as door:
            session, _ = await asyncio.to_thread(shake_hands, door.port, context)
            assert session is not None
            _, resumed = await asyncio.to_thread(shake_hands, door.port, context, session)
            assert resumed  # or the rest would show nothing
            session, _ = await asyncio.to_thread(shake_hands, door.port, context)
            members = (CORE_TLS.identity_der,)
            with pytest.raises(OSError, match=r"(?i)unknown ca|closed|reset"):
                await asyncio.to_thread(shake_hands, door.port, context, session)

    asyncio.run(scenario())


def test_a_hundred_members_stay_quick_to_let_in() -> None:
    async def scenario() -> None:
        many = MEMBERS + tuple(identity_certificate(NodeKey(n.to_bytes(32, "big"))) for n in range(98))
        async with member_serving(CORE_TLS, lambda: many) as door:
            assert await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der) == HOST.node_id
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(20):
                await who_am_i(door.port, HOST_TLS, CORE_TLS.identity_der)
            assert (loop.time() - began) / 20 < 0.25  # some 3 ms on an idle machine

    asyncio.run(scenario())


# ---- posing as another: mallory is a member like any other

FORGERIES = 1000
ALICE, MALLORY = NodeKey(b"a" * 32), NodeKey(b"m" * 32)
ALICE_TLS, MALLORY_TLS = issue_leaf(ALICE), issue_leaf(MALLORY)
ALL = (CORE_TLS.identity_der, ALICE_TLS.identity_der, MALLORY_TLS.identity_der)
ALICE_NAME, MALLORY_NAME = f"{ALICE.node_id}.node", f"{MALLORY.node_id}.node"

LEAF_KEY = ec.generate_private_key(ec.SECP256R1())
LEAF_KEY_PEM = LEAF_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


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
