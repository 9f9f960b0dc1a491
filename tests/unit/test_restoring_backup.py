"""A node comes back from a backup: whole, and in a new life; the same command ends what was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offgrid.backup.recovery import Recipient, Secret, public_of
from offgrid.backup.wrapped import WRAPPED_KEYS, wrap_keys
from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node import restoring_backup
from offgrid_node.backups.taking import Facts, take_backup
from offgrid_node.folder import Folder, open_store
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, Fault
from offgrid_node.protocol.ledger.tables import LEARN_KEY
from offgrid_node.protocol.ledger.tables import META as LEDGER
from offgrid_node.protocol.objects.tables import KEPT, LAST_NUMBER, META, OBJECTS
from offgrid_node.protocol.state.fence import NUMBERS_AHEAD
from offgrid_node.protocol.state.tables import JOURNAL, STATE_KEY
from offgrid_node.restoring_backup import FROM_KEY, CameBack, restore_backup
from offgrid_node.rotating import rotate_identity
from offgrid_node.storage.copying import copy_store
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_node.storage.store import Batch

SECRET = Secret(key=b"s" * 32)
SESSION = f"s-{'a' * 24}"


@pytest.fixture
def before(tmp_path: Path) -> Folder:
    """A node with something to lose."""
    folder = found(tmp_path / "before", "home", "attic", ["core"], {}).folder
    store = open_store(folder.config({}), create=False)
    row = objects_pb2.ObjectRow()
    row.object.local = True
    state = state_pb2.JournalRow(life=3, number=7, base=2)
    store.commit(
        Batch(
            events=[b"first", b"second"],
            writes={
                ("tasks", b"one"): b"planted",
                (OBJECTS, b"o-1"): row.SerializeToString(),
                (KEPT, b"another's"): b"kept for it",
                (JOURNAL, STATE_KEY): state.SerializeToString(),
            },
        )
    )
    store.close()
    return folder


def backup_of(folder: Folder, file: Path, recipient: Recipient | None = None) -> Path:
    config = folder.config({})
    copy = copy_store(config.storage.memory_db)
    facts = Facts(NodeKey.load(folder.keys_path).node_id, config.node.name, config.mesh.name, 1, "0.1")
    take_backup(copy, file, facts, recipient, lambda doing, done, total: None)
    return file


@pytest.fixture
def backup(before: Folder, tmp_path: Path) -> Path:
    return backup_of(before, tmp_path / "backup")


@pytest.fixture
def key(before: Folder) -> NodeKey:
    return NodeKey.load(before.keys_path)


def restore(tmp_path: Path, backup: Path, key: NodeKey, **given: Any) -> CameBack:
    given.setdefault("secret", SECRET)
    return restore_backup(tmp_path / "after", backup, key, ["core"], {}, **given)


@pytest.fixture
def after(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "after")


def opened(folder: Folder) -> Iterator[LoggedStore]:
    store = open_store(folder.config({}), create=False)
    yield store
    store.close()


def test_all_comes_back_in_a_new_life(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    made = restore(tmp_path, backup, key)
    assert (made.node_id, made.manifest.life, made.sessions) == (key.node_id, 3, 0)
    assert NodeKey.load(after.keys_path).public_key == key.public_key
    for store in opened(after):
        assert [event for _, event in store.events()] == [b"first", b"second"]
        assert store.get("tasks", b"one") == b"planted"
        assert store.verify() == []


def test_a_journal_that_begins_late_comes_back_so(tmp_path: Path, before: Folder, key: NodeKey, after: Folder) -> None:
    store = open_store(before.config({}), create=False)
    store.commit(Batch(events=[b"twelfth"], floor=11))
    store.close()
    restore(tmp_path, backup_of(before, tmp_path / "later"), key)
    for store in opened(after):
        assert (store.journal_floor, [*store.events()]) == (11, [(12, b"twelfth")])
        assert store.verify() == []


def test_what_is_known_to_others_is_not_given_again(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    restore(tmp_path, backup, key)
    for store in opened(after):
        state = state_pb2.JournalRow.FromString(store.get(JOURNAL, STATE_KEY) or b"")
        assert (state.life > 3, state.number, state.base, bool(state.token)) == (True, 7, 0, True)
        assert int.from_bytes(store.get(META, LAST_NUMBER) or b"", "big") == NUMBERS_AHEAD * state.life
        assert store.get(LEDGER, LEARN_KEY) == b"\1"


def test_what_lay_beside_the_store_is_not_there(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    """It keeps nothing for others, and reads its own objects from hosts."""
    restore(tmp_path, backup, key)
    for store in opened(after):
        assert store.get(KEPT, b"another's") is None
        assert not objects_pb2.ObjectRow.FromString(store.get(OBJECTS, b"o-1") or b"").object.local


def test_a_dry_run_writes_nothing(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    assert restore(tmp_path, backup, key, dry_run=True).manifest.journal_seq == 2
    assert not after.path.exists()


def test_where_a_node_lives_nothing_is_restored(tmp_path: Path, backup: Path, key: NodeKey) -> None:
    restore(tmp_path, backup, key)
    with pytest.raises(AlreadyExists, match="a node lives in this folder"):
        restore(tmp_path, backup, key)


def test_another_node_s_key_does_not_fit(tmp_path: Path, backup: Path, after: Folder) -> None:
    with pytest.raises(FailedPrecondition, match="of no member of mesh home"):
        restore(tmp_path, backup, NodeKey(b"k" * 32))
    assert not after.config_path.exists()


def test_a_key_that_was_replaced_does_not_fit(tmp_path: Path, before: Folder, key: NodeKey) -> None:
    rotate_identity(before.path)
    backup = backup_of(before, tmp_path / "later")
    with pytest.raises(FailedPrecondition, match="replaced since: it is number 1 now"):
        restore(tmp_path, backup, key)
    assert restore(tmp_path, backup, NodeKey.load(before.keys_path)).node_id == key.node_id


def test_nothing_of_a_damaged_one_is_used(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    content = backup.read_bytes()
    backup.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    with pytest.raises(Corrupt, match="its digest is wrong"):
        restore(tmp_path, backup, key)
    assert not after.path.exists()


def test_a_sealed_one_wants_its_secret(tmp_path: Path, before: Folder, key: NodeKey) -> None:
    backup = backup_of(before, tmp_path / "sealed", Recipient(public_of(SECRET.key)))
    with pytest.raises(FailedPrecondition, match="sealed for the recovery key ogr-"):
        restore(tmp_path, backup, key, secret=Secret())
    restore(tmp_path, backup, key)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_sessions_are_read_by_their_wrapped_keys(
    tmp_path: Path, backup: Path, key: NodeKey, after: Folder, elsewhere: bool
) -> None:
    wrapped = tmp_path / ("elsewhere" if elsewhere else WRAPPED_KEYS)
    wrapped.write_bytes(wrap_keys({SESSION: b"k" * 32}, public_of(SECRET.key)))
    assert restore(tmp_path, backup, key, wrapped=wrapped if elsewhere else None).sessions == 1
    assert SessionKeys(after.config({}).node.data_dir / SESSION_KEYS).get(SESSION) == b"k" * 32


def test_without_the_secret_sessions_come_back_unread(tmp_path: Path, backup: Path, key: NodeKey) -> None:
    (tmp_path / WRAPPED_KEYS).write_bytes(wrap_keys({SESSION: b"k" * 32}, public_of(SECRET.key)))
    said: list[str] = []
    assert restore(tmp_path, backup, key, secret=Secret(), say=said.append).sessions == 0
    assert "what they say cannot be read" in said[0]


class Killed(BaseException):
    pass


STEPS = ["Replay.check_end", "without_blobs", "NodeKey.keep", "Path.rename", "sync_folder", "write_keys", "Folder.keep"]


@pytest.mark.parametrize("step", STEPS)
def test_whoever_is_killed_ends_it_by_the_same_command(
    tmp_path: Path, backup: Path, key: NodeKey, after: Folder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def kill(*args: object) -> None:
        raise Killed

    kind, _, name = step.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(restoring_backup, kind) if kind else restoring_backup, name, kill)
        with pytest.raises(Killed):
            restore(tmp_path, backup, key)
    assert not after.config_path.exists()
    restore(tmp_path, backup, key)
    for store in opened(after):
        assert (store.get("tasks", b"one"), store.journal_seq) == (b"planted", 2)
        assert store.get(JOURNAL, FROM_KEY)


def test_another_store_in_its_place_stays(tmp_path: Path, backup: Path, key: NodeKey, after: Folder) -> None:
    place = after.path / "data" / "memory.db"
    LoggedStore.open(place, limit_bytes=64 * 1024 * 1024).close()
    with pytest.raises(Fault, match="a store is never overwritten"):
        restore(tmp_path, backup, key)
