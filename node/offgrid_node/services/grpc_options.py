"""The bounds that gRPC itself keeps for us, on both ends of a connection.

Names are those of gRPC core's `grpc_types.h`. Where a default is changed, what it did is written beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

Options = tuple[tuple[str, str | int], ...]

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
DOOR_MESSAGE_BYTES_MAX = 64 * 1024
RECEIVE_FACTOR = 2  # what a server lets gRPC receive of a message that is too large, so that we can refuse it in words
LOOKAHEAD_BYTES = 64 * 1024  # of a request that nobody reads yet
METADATA_BYTES_MAX = 8 * 1024
METADATA_BYTES_HARD = 16 * 1024
HANDSHAKE_TIMEOUT_MS = 2_000
STREAMS_PER_CONNECTION_MAX = 1_024  # 100 turned half of a burst of 5,000 calls into UNAVAILABLE
PENDING_MAX = 8_192  # the default refuses part of such a burst with CANCELLED
KEEPALIVE_MS = 15_000
KEEPALIVE_TIMEOUT_MS = 5_000
PING_INTERVAL_MIN_MS = 5_000
CONNECTIONS_MAX = 1_024
CONNECTION_AGE_MAX_MS = 1_800_000  # so that a removed member's connection, useless as it is, does not stay for ever
DOOR_CONNECTIONS_MAX = 64
DOOR_CONNECTION_IDLE_MS = 5_000
DOOR_CONNECTION_AGE_MAX_MS = 30_000
RECONNECT_FIRST_MS = 100
RECONNECT_MAX_MS = 2_000
CONNECT_TIMEOUT_MS = 2_000

_SERVER: Mapping[str, int] = {
    "grpc.so_reuseport": 0,  # with it two daemons share a port and neither is told
    "grpc.server_handshake_timeout_ms": HANDSHAKE_TIMEOUT_MS,  # 120 s: idle connections block everyone
    "grpc.max_receive_message_length": RECEIVE_FACTOR * MESSAGE_BYTES_MAX,
    "grpc.http2.bdp_probe": 0,  # with it, 64 large requests of one peer kept 170 MiB; large ones go framed
    "grpc.http2.lookahead_bytes": LOOKAHEAD_BYTES,
    "grpc.max_metadata_size": METADATA_BYTES_MAX,
    "grpc.absolute_max_metadata_size": METADATA_BYTES_HARD,
    "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
    "grpc.server.max_pending_requests": PENDING_MAX,
    "grpc.server.max_pending_requests_hard_limit": 2 * PENDING_MAX,
    "grpc.max_allowed_incoming_connections": CONNECTIONS_MAX,
    "grpc.keepalive_time_ms": KEEPALIVE_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.http2.min_ping_interval_without_data_ms": PING_INTERVAL_MIN_MS,
    "grpc.keepalive_permit_without_calls": 1,
}
ADMIN_SERVER: Options = tuple(_SERVER.items())
MESH_SERVER: Options = tuple({**_SERVER, "grpc.max_connection_age_ms": CONNECTION_AGE_MAX_MS}.items())
DOOR_SERVER: Options = tuple(
    {
        **_SERVER,
        "grpc.max_receive_message_length": RECEIVE_FACTOR * DOOR_MESSAGE_BYTES_MAX,
        "grpc.max_concurrent_streams": 4,
        "grpc.max_allowed_incoming_connections": DOOR_CONNECTIONS_MAX,
        "grpc.max_connection_idle_ms": DOOR_CONNECTION_IDLE_MS,
        "grpc.max_connection_age_ms": DOOR_CONNECTION_AGE_MAX_MS,
        "grpc.max_connection_age_grace_ms": DOOR_CONNECTION_IDLE_MS,
    }.items()
)
CHANNEL: Options = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_HARD),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_HARD),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),  # also how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # two nodes in one process share no connection and no backoff
    ("grpc.enable_http_proxy", 0),  # members are reached directly, whatever the environment says
)
