"""A store's copy becomes a backup: whole and checked under its own name, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offgrid.backup.container import BackupReader, Manifest
from offgrid.backup.recovery import Recipient, Secret, public_of
from offgrid_node.backups import taking
from offgrid_node.backups.taking import SEGMENT_ROWS, Facts, take_backup
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, Exhausted, FailedPrecondition, Unavailable
from offgrid_node.protocol.objects.tables import REPLICAS
from offgrid_node.storage.copying import copy_store
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.store import Batch

FACTS = Facts("n-1", "attic", "home", 1_790_000_000_000_000, "0.1")
NAME = "backup-20260921T141320Z-3.zip"
LIMIT = 64 * 1024 * 1024
ROWS = SEGMENT_ROWS + 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that is closed."""
    path = tmp_path / "memory.db"
    store = LmdbStore.open(path, limit_bytes=LIMIT)
    store.commit(Batch(events=[b"first", b"second"], writes={("jobs", b"%06d" % n): b"row" for n in range(ROWS)}))
    store.commit(Batch(events=[b"third"], writes={("tasks", b"one"): b"planted", (REPLICAS, b"kept"): b"another's"}))
    store.close()
    return path


def take(path: Path, target: Path, recipient: Recipient | None = None) -> tuple[Path, Manifest]:
    return take_backup(copy_store(path), target, FACTS, recipient, lambda doing, done, total: None)


def rows_in(file: Path, secret: Secret | None = None) -> tuple[dict[tuple[str, bytes], bytes], list[bytes]]:
    with BackupReader.open(file, secret=secret) as reader:
        reader.check()
        segments = [*reader.segments()]
    rows = {(table.name, row.key): row.value for each in segments for table in each.tables for row in table.rows}
    return rows, [event for each in segments for part in each.events for event in part.events]


def test_it_has_all_rows_and_events_but_those_kept_for_others(path: Path, tmp_path: Path) -> None:
    file, manifest = take(path, tmp_path)
    assert file == tmp_path / NAME
    rows, events = rows_in(file)
    assert rows == {("jobs", b"%06d" % n): b"row" for n in range(ROWS)} | {("tasks", b"one"): b"planted"}
    assert events == [b"first", b"second", b"third"]
    assert (manifest.rows, manifest.damaged) == ({"jobs": ROWS, "tasks": 1}, ())
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("more", [True, False])
def test_events_that_are_kept_no_more_are_not_in_it(path: Path, tmp_path: Path, more: bool) -> None:
    store = LmdbStore.open(path, limit_bytes=LIMIT)
    store.commit(Batch(events=[b"twelfth"] if more else [], floor=11))
    store.close()
    file, manifest = take(path, tmp_path)
    assert rows_in(file)[1] == ([b"twelfth"] if more else [])
    assert (manifest.journal_floor, manifest.journal_seq) == (11, 11 + more)


def test_a_sealed_one_is_read_back_before_it_has_its_name(path: Path, tmp_path: Path) -> None:
    secret = Secret(key=b"s" * 32)
    file, _ = take(path, tmp_path, Recipient(public_of(secret.key)))
    assert file.suffix == ".sealed"
    assert rows_in(file, secret)[0]["tasks", b"one"] == b"planted"


def test_a_damaged_row_is_left_out_and_named(path: Path, tmp_path: Path) -> None:
    data = path / "data.mdb"
    content = data.read_bytes()
    assert content.count(b"planted") == 1
    data.write_bytes(content.replace(b"planted", b"plantex"))
    file, manifest = take(path, tmp_path)
    assert file.name == NAME.replace(".zip", "-damaged.zip")
    assert manifest.damaged == ("row tasks/'one'",)
    assert (len(rows_in(file)[0]), manifest.rows) == (ROWS, {"jobs": ROWS})


def test_a_damaged_journal_makes_no_backup(path: Path, tmp_path: Path) -> None:
    data = path / "data.mdb"
    content = data.read_bytes()
    data.write_bytes(content.replace(b"second", b"secomd"))
    with pytest.raises(Corrupt, match="the pack at event 1"):
        take(path, tmp_path)
    assert not [*tmp_path.glob("backup*")]


def test_nothing_is_overwritten_and_no_folder_made(path: Path, tmp_path: Path) -> None:
    take(path, tmp_path / "mine")
    with pytest.raises(AlreadyExists, match="never overwritten"):
        take(path, tmp_path / "mine")
    with pytest.raises(FailedPrecondition, match="is no folder"):
        take(path, tmp_path / "nowhere" / "mine")


def test_a_full_disk_is_said_before_anything_is_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_store(path)
    monkeypatch.setattr("offgrid_node.storage.copying.free_bytes", lambda folder: 1_000)
    with pytest.raises(Exhausted, match="1000 are free"):
        take_backup(copy, tmp_path, FACTS, None, lambda doing, done, total: None)
    assert not [*tmp_path.glob("backup*")]


def failing_at(step: int, real: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """The step with this number fails, and all behind it."""
    count = iter(range(1_000))

    def run(*args: Any, **kwargs: Any) -> Any:
        if next(count) >= step:
            raise error
        return real(*args, **kwargs)

    return run


@pytest.mark.parametrize("name", ["sync_file", "sync_folder", "BackupReader.open", "BackupWriter.add"])
def test_a_disk_that_refuses_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy, target = copy_store(path), tmp_path / "target"
    target.mkdir()
    kind, _, attribute = name.rpartition(".")
    where = getattr(taking, kind) if kind else taking
    monkeypatch.setattr(
        where, attribute, failing_at(1 if "add" in name else 0, getattr(where, attribute), OSError(5, "no"))
    )
    with pytest.raises(Unavailable, match="cannot write"):
        take_backup(copy, target, FACTS, None, lambda doing, done, total: None)
    assert [each.name for each in target.iterdir()] == ([NAME] if name == "sync_folder" else [])


def test_a_disk_that_lies_is_found_out(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(descriptor: int) -> None:
        new = tmp_path / "backup.new"
        content = new.read_bytes()
        new.write_bytes(content[:300] + b"\0" * 8 + content[308:])

    copy = copy_store(path)
    monkeypatch.setattr(taking, "sync_file", lies)
    with pytest.raises(Unavailable, match="does not read back as it was written"):
        take_backup(copy, tmp_path, FACTS, None, lambda doing, done, total: None)
    assert not [*tmp_path.glob("backup*")]


def test_what_a_killed_one_left_is_written_over(path: Path, tmp_path: Path) -> None:
    (tmp_path / "backup.new").write_bytes(b"half of it")
    take(path, tmp_path)
    assert [each.name for each in tmp_path.glob("backup*")] == [NAME]
