"""Mutual TLS between members, on real gRPC servers: who gets in, and from when on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tls_house import (
    CORE,
    CORE_TLS,
    HOST,
    HOST_TLS,
    MEMBERS,
    STRANGER,
    STRANGER_TLS,
    ask,
    channel_to,
    member_serving,
    serving,
    who_am_i,
)

from offgrid_node.keys import (
    NodeKey,
    NodeTls,
    identity_certificate,
    tls_name_of,
)
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.services.tls import caller_fingerprint, channel_credentials, server_credentials


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
    assert "it is not trusted" in caplog.text


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
