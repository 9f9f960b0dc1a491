"""`offgrid-node restore --backup`: a node comes back from a file that it wrote (backups/taking.py), without any other,
unless hosts keep what is newer (newer_at_hosts.py).

As from its hosts (restoring.py) the store is put together beside its place and takes it when all is there; then key and
config follow, the config last. It begins a new life, by chance far enough behind the one of the backup: whatever the
node did since then is given up, and of numbers that it gave meanwhile none is given again. What it had kept for others
they bring anew, and its own objects are read from hosts. Interrupted anywhere, the same command begins again, or ends
what is done but for its last steps.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from offgrid.backup import BackupDamaged, BackupError, SecretNeeded
from offgrid.backup.container import BackupReader, Manifest
from offgrid.backup.recovery import Secret
from offgrid.backup.wrapped import WRAPPED_KEYS, unwrap_keys
from offgrid.v1 import state_pb2
from offgrid_node.folder import MIB, STORE_FILE, Folder
from offgrid_node.keys import NodeKey, make_private_folder
from offgrid_node.newer_at_hosts import check_newest
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, Fault
from offgrid_node.protocol.objects.lives import TOKEN_BYTES, Life
from offgrid_node.protocol.state.chain import Replay, writes_of
from offgrid_node.protocol.state.fence import LIVES_APART, life_after, without_blobs
from offgrid_node.protocol.state.tables import JOURNAL, STATE_KEY
from offgrid_node.regaining import owner_of
from offgrid_node.restoring import ASIDE, behind
from offgrid_node.rotating import directory_in
from offgrid_node.storage.disk import sync_folder
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.session_keys import SESSION_KEYS, write_keys
from offgrid_node.storage.store import Batch

if TYPE_CHECKING:
    from offgrid_node.config import Config

FROM_KEY = b"from_backup"  # in JOURNAL: digest of the backup that the store came from

Say = Callable[[str], None]


class CameBack(msgspec.Struct, frozen=True):
    """What came back, or would. `sessions`: how many of them can be read."""

    manifest: Manifest
    node_id: str
    sessions: int


def restore_backup(
    path: Path,
    file: Path,
    key: NodeKey,
    roles: Sequence[str],
    values: Mapping[str, object],
    *,
    secret: Secret,
    wrapped: Path | None = None,
    via: str | None = None,
    gives_up: bool = False,
    dry_run: bool = False,
    say: Say = lambda sentence: None,
) -> CameBack:
    """Puts config, key, store and the keys of sessions into the folder; with `dry_run` nothing. `wrapped`: the file of
    those keys; None: the one beside the backup, if it is there and the secret opens it. `via`: a member, to be asked
    for what is newer, which `gives_up` gives up.

    Raises AlreadyExists where a node lives in the folder, Corrupt (BackupDamaged), FailedPrecondition (BackupUnread,
    NotThisNode, KeyReplaced, LivesOver), what `check_newest` raises, and what opening the store raises."""
    folder = Folder(path)
    folder.check_empty()
    try:
        with BackupReader.open(file, secret=secret) as reader:
            manifest = reader.check()
            for each in manifest.damaged:
                say(f"not in the backup, since it was damaged in the store: {each}")
            check_newest(reader, key, via, say, gives_up=gives_up)
            keys = _session_keys(file, wrapped, secret, say)
            if dry_run:
                return CameBack(manifest, key.node_id, len(keys))
            config = folder.draft(manifest.mesh, manifest.node, roles, values)
            owner = _put_together(config, folder, reader, key, say)
    except BackupError as error:
        raise refused(file, error) from error
    write_keys(config.node.data_dir / SESSION_KEYS, keys)
    folder.keep()
    return CameBack(manifest, owner, len(keys))


def refused(file: Path, error: BackupError) -> Fault:
    """The fault of a file that is not to be used."""
    if isinstance(error, BackupDamaged):
        return Corrupt(f"{file}: {error}", reason="BackupDamaged")
    return FailedPrecondition(f"{file}: {error}", reason="BackupUnread")


def _put_together(config: Config, folder: Folder, reader: BackupReader, key: NodeKey, say: Say) -> str:
    """Store, then key; whichever is there already stays. Returns whose it is."""
    place, limit_bytes = config.storage.memory_db, config.storage.limit_mb * MIB
    aside = place.with_name(place.name + ASIDE)
    if place.exists():
        owner = _check_ours(place, limit_bytes, reader, key)
        say(f"{place} has come from this backup already")
    else:
        shutil.rmtree(aside, ignore_errors=True)
        make_private_folder(config.node.data_dir)
        aside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = _fill(aside, limit_bytes, reader, key, say)
    NodeKey(key.seed, owner).keep(folder.keys_path)
    if not place.exists():
        aside.rename(place)
        sync_folder(place.parent)
    return owner


def _check_ours(place: Path, limit_bytes: int, reader: BackupReader, key: NodeKey) -> str:
    """Raises AlreadyExists unless the store there is what an interrupted restore of this backup has left."""
    taken = AlreadyExists(
        f"{place} is there already, and a store is never overwritten: move it away", reason="StoreNotEmpty"
    )
    if not (place / STORE_FILE).is_file():
        raise taken
    store = LoggedStore.open(place, limit_bytes=limit_bytes)
    try:
        if store.get(JOURNAL, FROM_KEY) != reader.digest:
            raise taken
        return owner_of(directory_in(store), key, reader.manifest.node)
    finally:
        store.close()


def _fill(aside: Path, limit_bytes: int, reader: BackupReader, key: NodeKey, say: Say) -> str:
    store, count = LoggedStore.open(aside, limit_bytes=limit_bytes), len(reader.manifest.members)
    try:
        replay = Replay()
        for at, segment in enumerate(reader.segments(), 1):
            store.commit(Batch(replay.add(segment), dict(writes_of(segment)), replay.floor))
            if at % 16 == 0 or at == count:
                say(f"part {at} of {count}")
        replay.check_end(reader.manifest.journal_seq)
        directory = directory_in(store)
        owner = owner_of(directory, key, reader.manifest.node)
        state = state_pb2.JournalRow.FromString(store.get(JOURNAL, STATE_KEY) or b"")
        begun = life_after(state.life, secrets.randbelow(LIVES_APART), directory.key_number(owner))
        life = Life(owner, begun, state.number, secrets.token_bytes(TOKEN_BYTES))
        writes = dict([*behind(store, life), *without_blobs(store)])
        store.commit(Batch(writes={**writes, (JOURNAL, FROM_KEY): reader.digest}))
        return owner
    finally:
        store.close()


def _session_keys(file: Path, wrapped: Path | None, secret: Secret, say: Say) -> Mapping[str, bytes]:
    place = wrapped or file.with_name(WRAPPED_KEYS)
    if wrapped is None and not place.exists():
        say(f"there is no {place}: sessions come back, but what they say cannot be read")
        return {}
    try:
        return unwrap_keys(place.read_bytes(), secret)
    except SecretNeeded as error:
        if wrapped is not None:
            raise refused(place, error) from error
        say(f"{place}: {error}; sessions come back, but what they say cannot be read")
        return {}
    except BackupError as error:
        raise refused(place, error) from error
