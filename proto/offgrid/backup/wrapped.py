"""The keys of sessions, sealed for a recovery key: one file beside the backups, replaced whole.

    "OGKW" version 2 | public key 32 | sealed box of: count times (session id 26 | key 32) | digest 16

The digest is BLAKE2b-128 over everything before it: by it a damaged file is told from one for another recovery key.
Version 1, which need not have it, is read as well: copies of such files lie elsewhere, beside backups of that time.
A backup has what sessions say, but not their keys; with this file and the recovery key's secret it can be read. So
whoever purges a session must have this file replaced too, and a copy of it elsewhere opens what was purged since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from offgrid.backup import BackupDamaged, BackupUnknown
from offgrid.backup.recovery import KEY_BYTES, Recipient, Secret

WRAPPED_KEYS = "keys.wrapped"
ID_CHARS = 26
_MAGIC, _FORMER, _VERSION, _DIGEST_BYTES = b"OGKW", 1, 2, 16
_AT_KEY = len(_MAGIC) + 1
_AT_BOX = _AT_KEY + KEY_BYTES
_ENTRY_BYTES = ID_CHARS + KEY_BYTES


def wrap_keys(keys: Mapping[str, bytes], public_key: bytes) -> bytes:
    """The file's content."""
    from nacl.bindings import crypto_box_seal

    clear = b"".join(session_id.encode("ascii") + key for session_id, key in keys.items())
    body = _MAGIC + bytes([_VERSION]) + public_key + crypto_box_seal(clear, public_key)
    return body + _digest(body)


def unwrap_keys(content: bytes, secret: Secret) -> dict[str, bytes]:
    """The inverse of `wrap_keys`. Raises BackupUnknown, BackupDamaged, SecretNeeded."""
    from nacl.bindings import crypto_box_seal_open
    from nacl.exceptions import CryptoError

    known = {_MAGIC + bytes([version]): version for version in (_FORMER, _VERSION)}
    version = known.get(content[:_AT_KEY])
    if version is None:
        raise BackupUnknown(f"it is no file of wrapped keys of version {_VERSION}")
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    right = _digest(body) == digest
    if version == _FORMER and not right:
        body, right = content, True  # the box tells as much
    if len(body) < _AT_BOX or not right:
        raise BackupDamaged("its checksum is wrong: it is damaged, or cut off")
    recipient = Recipient(body[_AT_KEY:_AT_BOX])
    private = secret.key_for(recipient)
    try:
        clear = crypto_box_seal_open(body[_AT_BOX:], recipient.public_key, private)
    except (CryptoError, ValueError, TypeError):
        raise BackupDamaged("what is in it does not open: it is damaged, or cut off") from None
    entries = (clear[at : at + _ENTRY_BYTES] for at in range(0, len(clear), _ENTRY_BYTES))
    return {entry[:ID_CHARS].decode("ascii"): entry[ID_CHARS:] for entry in entries}


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES, person=b"og.wkeys.v1").digest()
