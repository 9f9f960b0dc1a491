"""The identity certificate: self-signed Ed25519, in one form that the public key determines (RFC 5280, RFC 8410).

Every byte but the signature follows from the key: serial, names, 1970 to 9999 (off-grid clocks lie). Its critical
NameConstraint lets the key vouch for `<fingerprint>.node` and nothing else; without it gRPC takes a member's leaf in
another member's name. So a certificate is checked by building the one that it should be and comparing bytes. The DER
is written here rather than by a library, so that two versions of a library cannot disagree about who is a member.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID

from offgrid_node.keys.store import NodeKey
from offgrid_node.keys.verifying import check_public_key, verify_message
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.ids import node_id_bytes, node_id_of

CERTIFICATE_BYTES_MAX = 2048
_SERIAL_BYTES = 16

# DER tags (X.690)
_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _UTF8 = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _SET = 0x17, 0x18, 0x30, 0x31
_DNS_NAME, _SUBTREES_PERMITTED, _EXPLICIT_VERSION, _EXPLICIT_EXTENSIONS = 0x82, 0xA0, 0xA0, 0xA3


def tls_name_of(fingerprint: str) -> str:
    """The DNS name by which TLS knows a node."""
    return f"{fingerprint}.node"


def identity_certificate(key: NodeKey) -> bytes:
    """The key's identity certificate, DER; the same bytes every time."""
    body = _body_of(key.public_key)
    return _certificate(body, key.certificate_signer().sign(body))


def check_identity_certificate(der: bytes) -> bytes:
    """The 32-byte public key of an identity certificate in its one canonical form.

    Raises InvalidRequest (field `certificate`) with what is wrong of anything else. Call it on every certificate
    that a stranger hands in, before it may become a trusted root.
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise _refusal(f"{len(der)} bytes, at most {CERTIFICATE_BYTES_MAX} allowed")
    try:
        parsed = x509.load_der_x509_certificate(der)
        public_key = parsed.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise _refusal("not one DER certificate") from error
    if not isinstance(public_key, Ed25519PublicKey):
        raise _refusal("its key is not Ed25519")
    raw_key = public_key.public_bytes_raw()
    try:
        check_public_key(raw_key)
    except InvalidRequest as error:
        raise _refusal(f"its key is {error.violations[0].description}") from error
    body = _body_of(raw_key)
    # The parsed view only names the fault; the bytes decide.
    if der != _certificate(body, parsed.signature):
        raise _refusal(_difference(parsed, tls_name_of(node_id_of(raw_key))))
    if not verify_message(raw_key, body, parsed.signature):
        raise _refusal("not signed by its own key")
    return raw_key


def _refusal(reason: str) -> InvalidRequest:
    return InvalidRequest.field("certificate", f"not an identity certificate: {reason}")


def _difference(found: x509.Certificate, name: str) -> str:
    """Why a well-formed certificate is not the canonical one, in the order of how much it matters."""
    try:
        constraints = found.extensions.get_extension_for_oid(ExtensionOID.NAME_CONSTRAINTS)
        wanted = x509.NameConstraints([x509.DNSName(name)], None)
        if not constraints.critical:
            return "its name constraint is not critical"
        if constraints.value != wanted:
            return f"its name constraint permits other than {name} alone"
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(names) != [x509.DNSName(name)]:
            return f"its subject alternative name is not {name} alone"
    except x509.ExtensionNotFound as error:
        missing = "name constraint" if error.oid == ExtensionOID.NAME_CONSTRAINTS else "subject alternative name"
        return f"it has no {missing}"
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return "its extensions are malformed"
    return "not in the canonical form"


def _body_of(public_key: bytes) -> bytes:
    """The to-be-signed part for a key: RFC 5280 section 4.1, extensions in the order of its section 4.2."""
    fingerprint = node_id_of(public_key)
    dns = _tlv(_DNS_NAME, tls_name_of(fingerprint).encode("ascii"))
    serial = bytearray(hashlib.blake2b(public_key, digest_size=_SERIAL_BYTES, person=b"og.cert-serial").digest())
    serial[0] = serial[0] & 0x7F | 0x40  # positive and never shortened (section 4.1.2.2)
    name = _tlv(_SEQUENCE, _tlv(_SET, _tlv(_SEQUENCE, _COMMON_NAME, _tlv(_UTF8, fingerprint.encode("ascii")))))
    key_id = _tlv(_OCTET_STRING, node_id_bytes(fingerprint))
    extensions = (
        _extension(_SUBJECT_KEY_ID, key_id, critical=False),
        _extension(_KEY_USAGE, _tlv(_BIT_STRING, b"\x02\x04"), critical=True),  # keyCertSign alone
        _extension(_SUBJECT_ALT_NAME, _tlv(_SEQUENCE, dns), critical=False),
        _extension(_BASIC_CONSTRAINTS, _tlv(_SEQUENCE, _TRUE, _tlv(_INTEGER, b"\x00")), critical=True),  # CA, pathlen 0
        _extension(
            _NAME_CONSTRAINTS,
            _tlv(_SEQUENCE, _tlv(_SUBTREES_PERMITTED, _tlv(_SEQUENCE, dns))),
            critical=True,
        ),
    )
    return _tlv(
        _SEQUENCE,
        _tlv(_EXPLICIT_VERSION, _tlv(_INTEGER, b"\x02")),
        _tlv(_INTEGER, bytes(serial)),
        _ED25519,
        name,
        _tlv(_SEQUENCE, _tlv(_UTC_TIME, b"700101000000Z"), _tlv(_GENERALIZED_TIME, b"99991231235959Z")),
        name,
        _tlv(_SEQUENCE, _ED25519, _tlv(_BIT_STRING, b"\x00", public_key)),
        _tlv(_EXPLICIT_EXTENSIONS, _tlv(_SEQUENCE, *extensions)),
    )


def _certificate(body: bytes, signature: bytes) -> bytes:
    return _tlv(_SEQUENCE, body, _ED25519, _tlv(_BIT_STRING, b"\x00", signature))


def _extension(oid: bytes, value: bytes, *, critical: bool) -> bytes:
    return _tlv(_SEQUENCE, oid, _TRUE if critical else b"", _tlv(_OCTET_STRING, value))


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Tag, definite length, value (X.690 sections 8.1 and 10.1)."""
    value = b"".join(parts)
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + value


_TRUE = _tlv(_BOOLEAN, b"\xff")
_ED25519 = _tlv(_SEQUENCE, _tlv(_OID, bytes((43, 101, 112))))  # 1.3.101.112
_COMMON_NAME = _tlv(_OID, bytes((85, 4, 3)))  # 2.5.4.3
_SUBJECT_KEY_ID = _tlv(_OID, bytes((85, 29, 14)))  # 2.5.29.14
_KEY_USAGE = _tlv(_OID, bytes((85, 29, 15)))
_SUBJECT_ALT_NAME = _tlv(_OID, bytes((85, 29, 17)))
_BASIC_CONSTRAINTS = _tlv(_OID, bytes((85, 29, 19)))
_NAME_CONSTRAINTS = _tlv(_OID, bytes((85, 29, 30)))
