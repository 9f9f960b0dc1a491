"""Ed25519 signatures and public keys of others, checked strictly.

RFC 8032 leaves room that verifiers fill differently: under a small-order key one signature can verify many messages,
and a non-canonical encoding gives one key two names. We take the strict reading of "Taming the many EdDSAs" (Chalkias,
Garillot, Nikolaenko, 2020, section 3 and table 1): such keys are refused when they are met first, and libsodium's
verifier, which refuses them too, checks every signature.
"""

from __future__ import annotations

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.signing import SIGNATURE_BYTES

PUBLIC_KEY_BYTES = 32
DIGEST_BYTES = 32

_P = 2**255 - 19
_Y_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The eight points whose order divides the cofactor have these five y; x = ±√… takes the sign bit.
SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y_ORDER_8, _P - _Y_ORDER_8})


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) by `public_key` (32) covers `digest` (32).

    False, never an exception, for anything malformed, small-order and non-canonical keys included.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(digest) != DIGEST_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    return verify_message(public_key, digest, signature)


def verify_message(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """As `verify`, over a message of any length. Only certificates, which are not ours to digest, need it."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def check_public_key(public_key: bytes) -> None:
    """Raises InvalidRequest unless these 32 bytes are the canonical encoding of a point of the prime-order group."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise InvalidRequest.field("public_key", f"{len(public_key)} bytes, an Ed25519 key has {PUBLIC_KEY_BYTES}")
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if y % _P in SMALL_ORDER_Y:
        raise InvalidRequest.field("public_key", "a small-order point: its signatures would prove nothing")
    if y >= _P:
        raise InvalidRequest.field("public_key", "not in canonical form: y is not reduced modulo 2^255 - 19")
    if not crypto_core_ed25519_is_valid_point(public_key):
        raise InvalidRequest.field("public_key", "not a point of the curve's prime-order group")
