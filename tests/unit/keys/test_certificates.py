"""An identity certificate has one form; anything else is refused, and told why."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.keys import (
    NodeKey,
    check_identity_certificate,
    fingerprint_in_leaf,
    fingerprint_of,
    identity_certificate,
    issue_leaf,
)
from offgrid_node.keys.certificates import CERTIFICATE_BYTES_MAX
from offgrid_node.protocol.errors import InvalidRequest

KEY, OTHER = NodeKey(b"k" * 32), NodeKey(b"o" * 32)
NAME, OTHER_NAME = f"{KEY.node_id}.node", f"{OTHER.node_id}.node"
GOOD = identity_certificate(KEY)

DIGITAL_SIGNATURE_TOO = x509.KeyUsage(True, False, False, False, False, True, False, False, False)


def rebuilt(
    *,
    replace: tuple[x509.ExtensionType, bool] | None = None,
    drop: x509.ObjectIdentifier | None = None,
    add: x509.ExtensionType | None = None,
    signer: NodeKey = KEY,
    subject: str = KEY.node_id,
    serial: int | None = None,
    until: datetime.datetime = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC),
) -> bytes:
    """The good certificate through pyca's builder, with one thing changed."""
    good = x509.load_der_x509_certificate(GOOD)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(good.issuer)
        .serial_number(serial or good.serial_number)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(until)
        .public_key(good.public_key())
    )
    for extension in good.extensions:
        value, critical = extension.value, extension.critical
        if extension.oid == drop:
            continue
        if replace and extension.oid == replace[0].oid:
            value, critical = replace
        builder = builder.add_extension(value, critical)
    if add:
        builder = builder.add_extension(add, critical=False)
    return builder.sign(signer.certificate_signer(), None).public_bytes(Encoding.DER)


def permitting(*names: x509.GeneralName) -> tuple[x509.NameConstraints, bool]:
    return x509.NameConstraints(list(names), None), True


def test_it_is_the_same_every_time_and_names_its_key() -> None:
    assert identity_certificate(NodeKey(b"k" * 32)) == GOOD
    assert check_identity_certificate(GOOD) == KEY.public_key


def test_another_library_builds_the_same_bytes() -> None:
    assert rebuilt() == GOOD


def test_it_says_what_the_design_asks() -> None:
    parsed = x509.load_der_x509_certificate(GOOD)
    parsed.verify_directly_issued_by(parsed)
    assert (parsed.not_valid_before_utc.year, parsed.not_valid_after_utc.year) == (1970, 9999)
    constraints = parsed.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value == x509.NameConstraints([x509.DNSName(NAME)], None)
    basic = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = parsed.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature


@given(st.binary(min_size=32, max_size=32))
def test_every_key_has_one_that_passes(seed: bytes) -> None:
    key = NodeKey(seed)
    assert check_identity_certificate(identity_certificate(key)) == key.public_key


def p256_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, KEY.node_id)])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1).public_key(key.public_key())
    )
    built = builder.not_valid_before(day).not_valid_after(day).sign(key, hashes.SHA256())
    return built.public_bytes(Encoding.DER)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "no constraint": (lambda: rebuilt(drop=ExtensionOID.NAME_CONSTRAINTS), "has no name constraint"),
    "constraint not critical": (
        lambda: rebuilt(replace=(permitting(x509.DNSName(NAME))[0], False)),
        "name constraint is not critical",
    ),
    "constraint for all nodes": (lambda: rebuilt(replace=permitting(x509.DNSName("node"))), "permits other than"),
    "constraint for two": (
        lambda: rebuilt(replace=permitting(x509.DNSName(NAME), x509.DNSName(OTHER_NAME))),
        "permits other than",
    ),
    "constraint for another": (lambda: rebuilt(replace=permitting(x509.DNSName(OTHER_NAME))), "permits other than"),
    "constraint of addresses": (
        lambda: rebuilt(replace=permitting(x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")))),
        "permits other than",
    ),
    "constraint that only excludes": (
        lambda: rebuilt(replace=(x509.NameConstraints(None, [x509.DNSName(OTHER_NAME)]), True)),
        "permits other than",
    ),
    "no name": (lambda: rebuilt(drop=ExtensionOID.SUBJECT_ALTERNATIVE_NAME), "has no subject alternative name"),
    "another's name": (
        lambda: rebuilt(replace=(x509.SubjectAlternativeName([x509.DNSName(OTHER_NAME)]), False)),
        "subject alternative name is not",
    ),
    "two names": (
        lambda: rebuilt(replace=(x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName(OTHER_NAME)]), False)),
        "subject alternative name is not",
    ),
    "no CA": (lambda: rebuilt(replace=(x509.BasicConstraints(False, None), True)), "canonical form"),
    "longer path": (lambda: rebuilt(replace=(x509.BasicConstraints(True, 1), True)), "canonical form"),
    "more usage": (lambda: rebuilt(replace=(DIGITAL_SIGNATURE_TOO, True)), "canonical form"),
    "one extension more": (lambda: rebuilt(add=x509.OCSPNoCheck()), "canonical form"),
    "another subject": (lambda: rebuilt(subject=OTHER.node_id), "canonical form"),
    "another serial": (lambda: rebuilt(serial=1), "canonical form"),
    "another end": (lambda: rebuilt(until=datetime.datetime(2049, 1, 1, tzinfo=datetime.UTC)), "canonical form"),
    "another's signature": (lambda: rebuilt(signer=OTHER), "not signed by its own key"),
    "damaged signature": (lambda: GOOD[:-1] + bytes((GOOD[-1] ^ 1,)), "not signed by its own key"),
    "P-256": (p256_certificate, "not Ed25519"),
    "small-order key": (
        lambda: GOOD.replace(KEY.public_key, (1).to_bytes(32, "little")),
        "small-order point",
    ),
    "trailing byte": (lambda: GOOD + b"\x00", "not one DER certificate"),
    "two certificates": (lambda: GOOD + GOOD, "not one DER certificate"),
    "cut off": (lambda: GOOD[:-1], "not one DER certificate"),
    "nothing": (lambda: b"", "not one DER certificate"),
    "too long": (lambda: GOOD + bytes(CERTIFICATE_BYTES_MAX), f"at most {CERTIFICATE_BYTES_MAX}"),
}


@pytest.mark.parametrize("kind", BAD)
def test_any_other_certificate_is_refused_and_told_why(kind: str) -> None:
    make, reason = BAD[kind]
    with pytest.raises(InvalidRequest, match=reason) as caught:
        check_identity_certificate(make())
    assert [violation.field for violation in caught.value.violations] == ["certificate"]


def test_no_flipped_bit_passes() -> None:
    for bit in range(len(GOOD) * 8):
        damaged = bytearray(GOOD)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidRequest):
            check_identity_certificate(bytes(damaged))


@given(
    st.binary(max_size=600)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=40)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + len(cut[1]) :]
    )
)
def test_hostile_bytes_are_an_invalid_request_and_nothing_else(der: bytes) -> None:
    try:
        assert check_identity_certificate(der) == KEY.public_key
        assert der == GOOD
    except InvalidRequest:
        pass


def test_a_leaf_is_fresh_each_time_and_speaks_for_its_node() -> None:
    first, second = issue_leaf(KEY), issue_leaf(KEY)
    assert first.key_pem != second.key_pem
    assert fingerprint_in_leaf(first.chain_pem) == fingerprint_of(KEY.public_key) == KEY.node_id
    leaf, identity = x509.load_pem_x509_certificates(first.chain_pem)
    leaf.verify_directly_issued_by(identity)
    assert identity.public_bytes(Encoding.DER) == GOOD
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert first.key_pem.decode() not in repr(first)


@given(st.binary(max_size=200))
def test_no_garbage_speaks_for_anyone(leaf_pem: bytes) -> None:
    assert fingerprint_in_leaf(leaf_pem) is None
