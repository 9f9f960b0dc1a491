"""The node's own Ed25519 key: how it signs and where it is kept (RFC 8032).

A key file is one line of text, "offgrid-key ed25519 <seed> <fingerprint>". The fingerprint is there for people, and as
a checksum: a seed with one flipped bit would otherwise be a perfectly good other node. It is the node's id while the
node has its first key; behind that of a later one stands the id. The secret is never logged or shown.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shlex
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey

from offgrid_node.keys.private import OTHERS_ANY, POSIX_MODES, exposed, make_private_folder
from offgrid_node.keys.verifying import DIGEST_BYTES
from offgrid_node.keys.words import words_of
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, NotFound, Unavailable
from offgrid_node.protocol.ids import NODE_ID, base32, node_id_of, unbase32
from offgrid_node.protocol.mesh.wrapping import WrappingKey

SEED_BYTES = 32
KEY_FILE_BYTES_MAX = 256
NUMBERS_REMEMBERED = 256  # of wrapping keys, which objects of old are still wrapped for
_MAGIC = "offgrid-key ed25519"
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class NodeKey:
    """An Ed25519 key pair; it is the `Signer` of protocol.effects. The mesh's root key is one as well."""

    def __init__(self, seed: bytes, node_id: str = "") -> None:
        """From a seed of 32 secret bytes, without touching the disk. `node_id`: whose it is, unless the key itself says
        that, as a node's first key does."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
        self._key = SigningKey(seed)
        self._public_key = bytes(self._key.verify_key)
        self._node_id = node_id or node_id_of(self._public_key)

    def __repr__(self) -> str:
        return f"NodeKey({self._node_id})"

    @property
    def node_id(self) -> str:
        return self._node_id

    @property
    def public_key(self) -> bytes:
        return self._public_key

    @property
    def seed(self) -> bytes:
        """The secret itself, for recovery words (`words.py`)."""
        return bytes(self._key)

    def sign(self, digest: bytes) -> bytes:
        """64 bytes over a digest of 32, as `protocol.signing.digest_of` makes them.

        Anything longer is refused: a certificate body could otherwise be signed where a digest was meant.
        """
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes, got {len(digest)}")
        return self._key.sign(digest).signature

    def certificate_signer(self) -> Ed25519PrivateKey:
        """The same key, in the form that certificates are signed with; nothing else may use it."""
        return Ed25519PrivateKey.from_private_bytes(bytes(self._key))

    @lru_cache(NUMBERS_REMEMBERED)  # noqa: B019 - as below
    def exchange_secret(self) -> bytes:
        """The same key as X25519 knows it (RFC 7748); for `letters.py` and below alone."""
        return bytes(self._key.to_curve25519_private_key())

    def wrapping_secret(self, number: int) -> bytes:
        """The X25519 secret of a wrapping key; for `wraps.py` alone."""
        if number == 0:
            return self.exchange_secret()
        salt = number.to_bytes(16, "big")
        return hashlib.blake2b(bytes(self._key), digest_size=32, salt=salt, person=b"og.wrapkey.v1").digest()

    def note_secret(self) -> bytes:
        """What seals that which this node alone is to know; for `notes.py` alone."""
        return hashlib.blake2b(bytes(self._key), digest_size=32, person=b"og.notekey.v1").digest()

    @lru_cache(NUMBERS_REMEMBERED)  # noqa: B019 - a node has its key for as long as it lives
    def wrapping_key(self, number: int) -> WrappingKey:
        """What others wrap object keys for."""
        if number == 0:
            return WrappingKey(0, self._public_key)
        return WrappingKey(number, crypto_scalarmult_base(self.wrapping_secret(number)))

    def recovery_words(self) -> str:
        """The secret itself, as 24 words to be written down; for whoever owns the key and asks."""
        return words_of(bytes(self._key))

    @classmethod
    def create(cls, folder: Path, name: str = "node", node_id: str = "", seed: bytes = b"") -> NodeKey:
        """Makes a key, of a seed if one is given, and writes it durably to `<folder>/<name>.key` (0600; folder 0700).

        Raises AlreadyExists rather than overwrite, Unavailable when the disk refuses.
        """
        path = key_path(folder, name)
        key = cls(seed or secrets.token_bytes(SEED_BYTES), node_id)
        try:
            make_private_folder(folder)
            if POSIX_MODES:
                folder.chmod(0o700)
            write_key_file(path, key._line())
        except FileExistsError as error:
            raise AlreadyExists(f"{path} exists; a key is never overwritten. Move it away first.") from error
        except OSError as error:
            raise Unavailable(f"{path}: cannot be written: {error.strerror}", reason="DiskError") from error
        return key

    def keep(self, folder: Path, name: str = "node") -> None:
        """Writes this key as `create` does; where it is there already it stays. Raises AlreadyExists where another one
        is."""
        path = key_path(folder, name)
        try:
            make_private_folder(folder)
            if POSIX_MODES:
                folder.chmod(0o700)
            write_key_file(path, self._line())
        except FileExistsError as error:
            if NodeKey.load(folder, name).public_key != self._public_key:
                raise AlreadyExists(f"{path} exists; a key is never overwritten. Move it away first.") from error
        except OSError as error:
            raise Unavailable(f"{path}: cannot be written: {error.strerror}", reason="DiskError") from error

    def _line(self) -> bytes:
        fingerprint = node_id_of(self._public_key)
        whose = [self._node_id] if self._node_id != fingerprint else []
        return f"{' '.join([_MAGIC, base32(bytes(self._key)), fingerprint, *whose])}\n".encode("ascii")

    @classmethod
    def load(cls, folder: Path, name: str = "node") -> NodeKey:
        """Reads a key back.

        Raises NotFound when there is none, FailedPrecondition when others may read it or this user may not, Corrupt
        when it is not what `create` wrote; each names the file and what to do.
        """
        path = key_path(folder, name)
        return cls(*_read_key(path, read_key_file(path)))

    @classmethod
    def read(cls, path: Path) -> NodeKey:
        """As `load`, from any file."""
        return cls(*_read_key(path, read_key_file(path)))

    @classmethod
    def load_or_create(cls, folder: Path, name: str = "node", node_id: str = "") -> NodeKey:
        """The key that is there, or a new one; two callers at once end up with the same."""
        try:
            return cls.load(folder, name)
        except NotFound:
            try:
                return cls.create(folder, name, node_id)
            except AlreadyExists:
                return cls.load(folder, name)


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def _read_key(path: Path, content: bytes) -> tuple[bytes, str]:
    """Seed, and the node's id where it is not the key's own fingerprint."""
    remedy = f"Restore {path} from a backup, or move it away and start anew: this node will then be another one."
    if len(content) > KEY_FILE_BYTES_MAX:
        raise Corrupt(f"{path} is no key file: longer than {KEY_FILE_BYTES_MAX} bytes. {remedy}")
    magic, _, rest = content.partition(b" ed25519 ")
    words = rest.split()
    if magic != b"offgrid-key" or len(words) not in (2, 3):
        raise Corrupt(f"{path} is no key file: it must read '{_MAGIC} <seed> <fingerprint>'. {remedy}")
    try:
        seed = unbase32(words[0].decode("ascii"))
    except ValueError as error:
        raise Corrupt(f"{path}: the seed is damaged ({error}). {remedy}") from error
    if len(seed) != SEED_BYTES:
        raise Corrupt(f"{path}: the seed has {len(seed)} bytes in place of {SEED_BYTES}. {remedy}")
    if NodeKey(seed).node_id.encode("ascii") != words[1] or not all(NODE_ID.match(w.decode()) for w in words[2:]):
        raise Corrupt(f"{path}: seed and node id do not belong together, one of them is damaged. {remedy}")
    return seed, words[2].decode("ascii") if len(words) == 3 else ""


def read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if mode := exposed(os.fstat(file.fileno()), OTHERS_ANY):
                raise FailedPrecondition(
                    f"{path} may be used by others (mode {mode}), so its key may no longer be secret. "
                    f"Type: chmod 600 {shlex.quote(str(path))}",
                    reason="KeyFileExposed",
                )
            return file.read(KEY_FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise NotFound(
            f"{path} does not exist. Restore it from a backup or by its recovery words (offgrid-node words --enter); "
            "if those are lost too, have the mesh's root replace it (offgrid-node rotate identity --root-key FILE), or "
            "start anew in another folder: offgrid-node join TOKEN --dir ANOTHER-FOLDER (or init)"
        ) from error
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be read: {error.strerror}. Run as the user who owns it.", reason="KeyFileUnreadable"
        ) from error


def write_key_file(path: Path, content: bytes) -> None:
    """Durable and whole or not at all; raises FileExistsError when `path` is taken, even by a racing process."""
    if path.exists():
        raise FileExistsError(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _name_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _name_new(temporary: Path, path: Path) -> None:
    """Gives the file its name unless that is taken. A POSIX rename would replace, so it is a link where links exist."""
    if POSIX_MODES:
        try:
            os.link(temporary, path)
            return
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if path.exists():
                raise FileExistsError(path) from error
    temporary.rename(path)


def fsync_folder(folder: Path) -> None:
    if not POSIX_MODES:
        return  # Windows cannot open a folder, and journals the rename itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
