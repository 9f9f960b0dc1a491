"""Functions as jobs, for the client: the codec is `offgrid.by_value`, which a host's worker imports without gRPC."""

from __future__ import annotations

from offgrid.by_value import (
    FUNCTION_BYTES_MAX,
    PYTHON,
    RemoteError,
    RemoteTraceback,
    TooLarge,
    Untrusted,
    decode_failure,
    decode_result,
    encode_call,
    encode_function,
    name_of,
)

__all__ = [
    "FUNCTION_BYTES_MAX",
    "PYTHON",
    "RemoteError",
    "RemoteTraceback",
    "TooLarge",
    "Untrusted",
    "decode_failure",
    "decode_result",
    "encode_call",
    "encode_function",
    "name_of",
]
