"""Calls to the node over gRPC: for what is large, and where the node has no framed carrier for us."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc

from offgrid.client.address import Address
from offgrid.client.errors import from_rpc

REPLY_BYTES_MAX = 4 * 1024 * 1024  # what a node sends at most; outputs and logs are bounded far below it
RECONNECT_MS, RECONNECT_MS_MAX = 50, 1_000
CLOSING_S = 1.0


class GrpcCalls:
    """One channel; thread-safe. Requests and answers are bytes; raises OffgridError."""

    def __init__(self, address: Address) -> None:
        self._metadata = (("authorization", f"Bearer {address.token}"),) if address.token else ()
        self._channel = grpc.insecure_channel(
            address.target,
            options=(
                ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
                ("grpc.default_authority", "localhost"),
                ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
                ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
                ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
                ("grpc.enable_http_proxy", 0),
                ("grpc.enable_retries", 0),
            ),
        )

    def unary(self, method: str, data: bytes, timeout_s: float) -> bytes:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"/offgrid.v1.{method}")
        try:
            return call(data, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as raised:
            raise from_rpc(raised) from None

    def stream(
        self, method: str, data: bytes, timeout_s: float | None, on_start: Callable[[Callable[[], object]], None]
    ) -> Iterator[bytes]:
        start: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(f"/offgrid.v1.{method}")
        call = start(data, timeout=timeout_s, metadata=self._metadata)
        on_start(call.cancel)
        try:
            yield from call
        except grpc.RpcError as raised:
            raise from_rpc(raised) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Ends what is under way. A channel waits for its calls to end, and a call whose start was struck by a signal
        has nobody who would see it end: such a channel is left behind."""
        closing = threading.Thread(target=self._channel.close, name="closing", daemon=True)
        closing.start()
        closing.join(CLOSING_S)
