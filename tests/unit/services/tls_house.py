"""Members with their TLS identities, and bare gRPC servers to meet at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from offgrid_node.keys import (
    NodeKey,
    NodeTls,
    issue_leaf,
)
from offgrid_node.services.tls import caller_fingerprint, channel_credentials, server_credentials

NOBODY = ""
TIMEOUT_S = 60.0
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


FORGERIES = 1000
ALICE, MALLORY = NodeKey(b"a" * 32), NodeKey(b"m" * 32)
ALICE_TLS, MALLORY_TLS = issue_leaf(ALICE), issue_leaf(MALLORY)
ALL = (CORE_TLS.identity_der, ALICE_TLS.identity_der, MALLORY_TLS.identity_der)
ALICE_NAME, MALLORY_NAME = f"{ALICE.node_id}.node", f"{MALLORY.node_id}.node"

LEAF_KEY = ec.generate_private_key(ec.SECP256R1())
LEAF_KEY_PEM = LEAF_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
