"""The handshake by two independent Noise libraries, each way round, and by everything that is not to be let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.blake2s import Blake2sHash
from dissononce.processing.handshakepatterns.interactive.IK import IKHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier
from noise.connection import Keypair, NoiseConnection

from offgrid_transports.noise import FIRST_BYTES, NAME, SECOND_BYTES, HandshakeFailed, Initiator, Keys, Responder

OURS, THEIRS = (X25519PrivateKey.from_private_bytes(bytes((n,)) * 32) for n in (1, 2))
PSK, PROLOGUE = b"k" * 32, b"prologue"
SMALL_ORDER = (
    bytes(32),
    bytes((1,)) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class Library(Protocol):
    """Another one's handshake: who of the two it is, is said when it is made; afterwards it speaks under its keys."""

    binding: bytes

    def write(self, payload: bytes) -> bytes: ...

    def read(self, message: bytes) -> bytes: ...

    def encrypt(self, clear: bytes) -> bytes: ...

    def decrypt(self, sealed: bytes) -> bytes: ...


class NoiseProtocol:
    """noiseprotocol 0.3.1."""

    def __init__(self, static: X25519PrivateKey, responder: bytes | None) -> None:
        self._noise = noise = NoiseConnection.from_name(NAME)
        noise.set_psks(PSK)
        noise.set_prologue(PROLOGUE)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, static.private_bytes_raw())
        if responder is None:
            noise.set_as_responder()
        else:
            noise.set_as_initiator()
            noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, responder)
        noise.start_handshake()

    def write(self, payload: bytes) -> bytes:
        return bytes(self._noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self._noise.read_message(message))

    @property
    def binding(self) -> bytes:
        return bytes(self._noise.get_handshake_hash())

    def encrypt(self, clear: bytes) -> bytes:
        return bytes(self._noise.encrypt(clear))

    def decrypt(self, sealed: bytes) -> bytes:
        return bytes(self._noise.decrypt(sealed))


class Dissononce:
    """dissononce 0.34.3."""

    def __init__(self, static: X25519PrivateKey, responder: bytes | None) -> None:
        self._initiates = responder is not None
        self._symmetric = SymmetricState(CipherState(ChaChaPolyCipher()), Blake2sHash())
        self._state, curve = HandshakeState(self._symmetric, X25519DH()), X25519DH()
        self._state.initialize(
            PSKPatternModifier(2).modify(IKHandshakePattern()),
            self._initiates,
            PROLOGUE,
            s=curve.generate_keypair(PrivateKey(static.private_bytes_raw())),
            rs=None if responder is None else curve.create_public(responder),
            psks=[PSK],
        )

    def write(self, payload: bytes) -> bytes:
        out = bytearray()
        self._ciphers = self._state.write_message(payload, out)
        return bytes(out)

    def read(self, message: bytes) -> bytes:
        out = bytearray()
        self._ciphers = self._state.read_message(message, out)
        return bytes(out)

    @property
    def binding(self) -> bytes:
        return bytes(self._symmetric.get_handshake_hash())

    def encrypt(self, clear: bytes) -> bytes:
        return bytes(self._ciphers[0 if self._initiates else 1].encrypt_with_ad(b"", clear))

    def decrypt(self, sealed: bytes) -> bytes:
        return bytes(self._ciphers[1 if self._initiates else 0].decrypt_with_ad(b"", sealed))


LIBRARIES = pytest.mark.parametrize("library", [NoiseProtocol, Dissononce])


def initiator(psk: bytes = PSK, prologue: bytes = PROLOGUE, responder: bytes = public(THEIRS)) -> Initiator:
    return Initiator(OURS, responder, psk, prologue, X25519PrivateKey.generate())


def responder(psk: bytes = PSK, prologue: bytes = PROLOGUE, static: X25519PrivateKey = THEIRS) -> Responder:
    return Responder(static, psk, prologue)


def assert_agree(keys: Keys, library: Library) -> None:
    """Binding and both keys are the same."""
    assert keys.binding == library.binding
    assert ChaCha20Poly1305(keys.receiving).decrypt(bytes(12), library.encrypt(b"to us"), b"") == b"to us"
    assert library.decrypt(ChaCha20Poly1305(keys.sending).encrypt(bytes(12), b"from us", b"")) == b"from us"


@LIBRARIES
@pytest.mark.parametrize("payload", [b"", b"0-RTT"])
def test_we_begin_and_another_library_answers(library: Callable[..., Library], payload: bytes) -> None:
    us, they = initiator(), library(THEIRS, None)
    assert they.read(us.first(payload)) == payload
    back, keys = us.second(they.write(payload[::-1]))
    assert back == payload[::-1]
    assert_agree(keys, they)


@LIBRARIES
@pytest.mark.parametrize("payload", [b"", b"0-RTT"])
def test_another_library_begins_and_we_answer(library: Callable[..., Library], payload: bytes) -> None:
    us, they = responder(), library(OURS, public(THEIRS))
    assert us.first(they.write(payload)) == payload
    assert us.initiator == public(OURS)
    message, keys = us.second(payload[::-1], X25519PrivateKey.generate())
    assert they.read(message) == payload[::-1]
    assert_agree(keys, they)


def test_the_messages_are_as_long_as_noise_has_them_and_no_two_handshakes_are_alike() -> None:
    seen = set[bytes]()
    for _ in range(2):
        us, they = initiator(), responder()
        first = us.first(b"")
        they.first(first)
        second, theirs = they.second(b"", X25519PrivateKey.generate())
        assert (len(first), len(second)) == (FIRST_BYTES, SECOND_BYTES) == (96, 48)
        _, ours = us.second(second)
        assert (ours.sending, ours.receiving, ours.binding) == (theirs.receiving, theirs.sending, theirs.binding)
        seen |= {first, second, *ours}
    assert len(seen) == 10


@pytest.mark.parametrize(
    "other",
    [responder(prologue=b"another"), responder(static=X25519PrivateKey.generate())],
    ids=["another prologue", "another node"],
)
def test_a_first_message_for_somebody_else_is_refused(other: Responder) -> None:
    with pytest.raises(HandshakeFailed):
        other.first(initiator().first(b""))


def test_without_the_pre_shared_key_no_answer_can_be_read() -> None:
    us, they = initiator(), responder(psk=b"x" * 32)
    they.first(us.first(b""))
    with pytest.raises(HandshakeFailed):
        us.second(they.second(b"", X25519PrivateKey.generate())[0])


def test_an_answer_to_another_handshake_of_the_same_two_is_refused() -> None:
    us, others, they = initiator(), initiator(), responder()
    us.first(b"")
    they.first(others.first(b""))
    with pytest.raises(HandshakeFailed):
        us.second(they.second(b"", X25519PrivateKey.generate())[0])


def test_any_bit_that_flips_and_any_byte_that_is_missing_makes_a_message_none() -> None:
    us, they = initiator(), responder()
    first = us.first(b"stamp")
    for bad in altered(first):
        with pytest.raises(HandshakeFailed):
            responder().first(bad)
    they.first(first)
    second, keys = they.second(b"sid", X25519PrivateKey.generate())
    for bad in altered(second):
        with pytest.raises(HandshakeFailed):
            us.second(bad)
    assert us.second(second)[1].sending == keys.receiving, "a forged answer spoils nothing"


def altered(message: bytes) -> list[bytes]:
    """One bit of each byte flipped, all eight in turn, and cut off anywhere."""
    flipped = [bytearray(message) for _ in message]
    for at, copied in enumerate(flipped):
        copied[at] ^= 1 << at % 8
    return [bytes(each) for each in flipped] + [message[:end] for end in range(len(message))] + [message + b"x"]


@pytest.mark.parametrize("small", SMALL_ORDER, ids=lambda key: key[:4].hex())
def test_keys_of_small_order_are_refused_wherever_they_stand(small: bytes) -> None:
    with pytest.raises(HandshakeFailed):
        initiator(responder=small).first(b"")
    us, they = initiator(), responder()
    first = us.first(b"")
    with pytest.raises(HandshakeFailed):
        they.first(small + first[32:])
    with pytest.raises(HandshakeFailed):
        us.second(small + bytes(16))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_has_32_bytes(length: int) -> None:
    with pytest.raises(HandshakeFailed):
        initiator(responder=bytes((9,)) * length).first(b"")
