"""A backup is read as it was written, or not at all: whatever byte of it is changed, missing or too many."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from offgrid.backup import BackupDamaged, BackupError, BackupUnknown, SecretNeeded
from offgrid.backup.container import MANIFEST, BackupReader, BackupWriter, Manifest
from offgrid.backup.recovery import Recipient, Secret, for_passphrase, public_of
from offgrid.backup.sealed import HEAD_BYTES, PIECE_BYTES, TAG_BYTES, SealedReader, SealedWriter
from offgrid.v1 import state_pb2

FACTS: dict[str, Any] = {
    "node_id": "n-1", "node": "attic", "mesh": "home", "life": 0, "journal_floor": 0, "made_us": 1,
    "made_by": "0", "damaged": (),
}  # fmt: skip
SECRET = Secret(key=b"s" * 32)
RECIPIENT = Recipient(public_of(SECRET.key))
PLANTED = b"what nobody may change"


def segments(noise: int = 0) -> list[state_pb2.Segment]:
    rows, events = state_pb2.Segment(), state_pb2.Segment()
    rows.tables.add(name="jobs").rows.add(key=b"one", value=PLANTED)
    rows.tables[0].rows.add(key=b"two", value=Random(noise).randbytes(noise))
    events.events.add(first_seq=1, events=[b"first", b"second"])
    return [rows, events]


def write(path: Path, recipient: Recipient | None = None, noise: int = 500, **facts: Any) -> Manifest:
    with path.open("wb") as file, BackupWriter(file, recipient) as writer:
        for segment in segments(noise):
            writer.add(segment)
        return writer.finish(**{**FACTS, "rows": {"jobs": 2}, "journal_seq": 2, **facts})


def read(path: Path, secret: Secret | None = SECRET) -> tuple[Manifest, list[state_pb2.Segment]]:
    with BackupReader.open(path, secret=secret) as reader:
        return reader.check(), [*reader.segments()]


@pytest.fixture(params=[None, RECIPIENT], ids=["in clear", "sealed"])
def recipient(request: pytest.FixtureRequest) -> Recipient | None:
    found: Recipient | None = request.param
    return found


def test_it_is_read_as_it_was_written(tmp_path: Path, recipient: Recipient | None) -> None:
    path = tmp_path / "backup"
    manifest = write(path, recipient)
    assert read(path) == (manifest, segments(500))
    assert (manifest.node, manifest.rows, manifest.journal_seq) == ("attic", {"jobs": 2}, 2)


def test_any_zip_program_opens_one_that_is_not_sealed(tmp_path: Path) -> None:
    write(tmp_path / "backup")
    with zipfile.ZipFile(tmp_path / "backup") as file:
        assert file.testzip() is None
        assert json.loads(file.read(MANIFEST))["mesh"] == "home"


def test_nothing_of_a_sealed_one_is_in_clear(tmp_path: Path) -> None:
    write(tmp_path / "backup", RECIPIENT)
    content = (tmp_path / "backup").read_bytes()
    assert not any(word in content for word in (PLANTED, b"PK", b"attic", b"manifest"))


def flipped(content: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def zeroed(content: bytes, rng: Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.choice([1, 16, 512])
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def truncated(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


def lengthened(content: bytes, rng: Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 100))


@pytest.mark.parametrize("damage", [flipped, zeroed, truncated, lengthened])
def test_no_damage_passes(
    tmp_path: Path, recipient: Recipient | None, damage: Callable[[bytes, Random], bytes]
) -> None:
    path, rng = tmp_path / "backup", Random(7)
    write(path, recipient, noise=200)
    content = path.read_bytes()
    for _ in range(150):
        path.write_bytes(changed := damage(content, rng))
        if changed == content:
            continue  # zeros in the place of zeros
        with pytest.raises(BackupError):
            read(path)


def pieces_of(path: Path) -> tuple[bytes, list[bytes]]:
    """Head and pieces of a sealed file of clear bytes."""
    with path.open("wb") as file, SealedWriter(file, RECIPIENT) as sealed:
        sealed.write(Random(1).randbytes(3 * PIECE_BYTES + 10))
    content, size = path.read_bytes(), PIECE_BYTES + TAG_BYTES
    rest = content[HEAD_BYTES:]
    return content[:HEAD_BYTES], [rest[at : at + size] for at in range(0, len(rest), size)]


def opened(path: Path, *parts: bytes) -> bytes:
    path.write_bytes(b"".join(parts))
    with path.open("rb") as file, SealedReader(file, secret=SECRET) as sealed:
        return sealed.read()


def test_a_sealed_file_shows_by_itself_that_its_end_is_missing(tmp_path: Path) -> None:
    head, pieces = pieces_of(tmp_path / "sealed")
    assert opened(tmp_path / "sealed", head, *pieces) == Random(1).randbytes(3 * PIECE_BYTES + 10)
    for left in range(4):
        with pytest.raises(BackupDamaged, match=r"does not open|cut off"):
            opened(tmp_path / "sealed", head, *pieces[:left])


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 0, 2, 3), (0, 2, 3), (0, 1, 2, 3, 3)])
def test_pieces_of_a_sealed_file_open_in_their_places_alone(tmp_path: Path, order: tuple[int, ...]) -> None:
    head, pieces = pieces_of(tmp_path / "sealed")
    with pytest.raises(BackupDamaged, match=r"does not open|cut off"):
        opened(tmp_path / "sealed", head, *(pieces[at] for at in order))


def test_pieces_of_another_sealed_file_do_not_open(tmp_path: Path) -> None:
    _, pieces = pieces_of(tmp_path / "other")
    head, _ = pieces_of(tmp_path / "sealed")
    with pytest.raises(BackupDamaged, match="does not open"):
        opened(tmp_path / "sealed", head, *pieces)


def test_it_opens_for_its_recipient_alone(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    write(path, RECIPIENT)
    with pytest.raises(SecretNeeded, match="sealed for the recovery key ogr-"):
        read(path, None)
    with pytest.raises(SecretNeeded, match="sealed for another recovery key, ogr-"):
        read(path, Secret(key=b"t" * 32))


def test_a_passphrase_opens_it_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    write(path, for_passphrase(b"correct horse", passes=1, memory_kib=64))
    read(path, Secret(passphrase=b"correct horse"))
    with pytest.raises(SecretNeeded, match="the passphrase is another one"):
        read(path, Secret(passphrase=b"battery staple"))
    with pytest.raises(SecretNeeded, match="sealed by a passphrase"):
        read(path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"journal_seq": 3}, "its events end at 2, not at 3"),
        ({"rows": {"jobs": 3}}, "not the rows that its manifest counts"),
        ({"rows": {"jobs": 2, "tasks": 1}}, "not the rows that its manifest counts"),
    ],
)
def test_what_it_lacks_is_said(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    write(tmp_path / "backup", **facts)
    with pytest.raises(BackupDamaged, match=said):
        read(tmp_path / "backup")


def test_events_that_are_missing_in_between_are_noticed(tmp_path: Path) -> None:
    path, late = tmp_path / "backup", state_pb2.Segment()
    late.events.add(first_seq=2, events=[b"second"])
    with path.open("wb") as file, BackupWriter(file) as writer:
        writer.add(late)
        writer.finish(**FACTS, rows={}, journal_seq=2)
    with pytest.raises(BackupDamaged, match="goes on at event 2, 1 is needed"):
        read(path)


def test_events_may_begin_behind_those_that_are_kept_no_more(tmp_path: Path) -> None:
    path, late = tmp_path / "backup", state_pb2.Segment(floor=7)
    late.events.add(first_seq=8, events=[b"eighth"])
    with path.open("wb") as file, BackupWriter(file) as writer:
        writer.add(late)
        writer.finish(**{**FACTS, "journal_floor": 7}, rows={}, journal_seq=8)
    assert read(path)[1] == [late]


def test_one_of_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    write(tmp_path / "backup", format=2)
    with pytest.raises(BackupUnknown, match="of format 2, this program knows 1"):
        read(tmp_path / "backup")


@pytest.mark.parametrize("content", [b"", b"no backup", b"x" * 4096])
def test_what_is_no_backup_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "backup").write_bytes(content)
    with pytest.raises(BackupUnknown, match=r"(is no|are no) backup"):
        read(tmp_path / "backup")
