"""The key file: durable, private, never overwritten, and never mistaken."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from offgrid_node.keys import NodeKey
from offgrid_node.keys.store import KEY_FILE_BYTES_MAX
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, Fault, NotFound, Unavailable
from offgrid_node.protocol.ids import node_id_of

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
not_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys"


def test_a_key_comes_back_as_it_was_made(folder: Path) -> None:
    made = NodeKey.create(folder)
    loaded = NodeKey.load(folder)
    assert loaded.public_key == made.public_key
    assert loaded.sign(bytes(32)) == made.sign(bytes(32))
    assert made.node_id == node_id_of(made.public_key)


def test_it_is_a_signer() -> None:
    signer: Signer = NodeKey(bytes(32))
    assert len(signer.sign(bytes(32))) == 64


def test_two_names_are_two_keys(folder: Path) -> None:
    assert NodeKey.create(folder).node_id != NodeKey.create(folder, "mesh_root").node_id
    assert sorted(path.name for path in folder.iterdir()) == ["mesh_root.key", "node.key"]


@posix
def test_file_and_folder_are_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        NodeKey.create(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "node.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten(folder: Path) -> None:
    made = NodeKey.create(folder)
    with pytest.raises(AlreadyExists, match=r"node\.key exists"):
        NodeKey.create(folder)
    assert NodeKey.load(folder).node_id == made.node_id


def test_load_or_create_makes_one_key_and_keeps_it(folder: Path) -> None:
    assert NodeKey.load_or_create(folder).node_id == NodeKey.load_or_create(folder).node_id


def test_whoever_comes_second_gets_the_first_ones_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = NodeKey.create(folder)
    monkeypatch.setattr(Path, "exists", lambda _: False)  # both looked before either had written
    with pytest.raises(AlreadyExists):
        NodeKey.create(folder)
    monkeypatch.undo()
    assert NodeKey.load(folder).node_id == first.node_id
    assert [path.name for path in folder.iterdir()] == ["node.key"]


@posix
def test_a_file_system_without_hard_links_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")  # EPERM, as FAT answers

    monkeypatch.setattr(os, "link", no_links)
    made = NodeKey.create(folder)
    assert NodeKey.load(folder).node_id == made.node_id
    with pytest.raises(AlreadyExists):
        NodeKey.create(folder)


def test_the_file_is_synced_before_it_has_its_name_and_the_folder_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append([path.name for path in folder.iterdir() if not path.name.startswith(".")])
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    NodeKey.create(folder)
    assert seen == ([[], ["node.key"]] if os.name == "posix" else [[]])


def test_a_failed_sync_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Unavailable, match="No space left on device"):
        NodeKey.create(folder)
    assert list(folder.iterdir()) == []


def test_a_missing_key_says_where_one_may_come_from(folder: Path) -> None:
    with pytest.raises(
        NotFound, match=r"Restore it from a backup or by its recovery words.*start anew in another folder"
    ):
        NodeKey.load(folder)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_an_exposed_key_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "my keys"
    NodeKey.create(folder)
    path = folder / "node.key"
    path.chmod(mode)
    with pytest.raises(FailedPrecondition) as caught:
        NodeKey.load(folder)
    assert f"{mode:04o}" in caught.value.message
    assert caught.value.message.endswith(f"Type: chmod 600 '{path}'")


@not_root
def test_an_unreadable_key_is_refused(folder: Path) -> None:
    NodeKey.create(folder)
    (folder / "node.key").chmod(0)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        NodeKey.load(folder)


@posix
def test_a_folder_in_the_keys_place_is_refused(folder: Path) -> None:
    (folder / "node.key").mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        NodeKey.load(folder)


def write_key(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no key file"),
        (b"\x00" * 64, "no key file"),
        (bytes(range(192, 256)), "no key file"),
        (b"-----BEGIN PRIVATE KEY-----\n", "no key file"),
        (b"offgrid-key ed25519 aaaa\n", "no key file"),
        (b"offgrid-key ed25519 aaaaaaaa aaaa\n", "5 bytes in place of 32"),
        (b"offgrid-key ed25519 0189!!!! aaaa\n", "seed is damaged"),
        (b"offgrid-key ed25519 \xff\xfe aaaa\n", "seed is damaged"),
        (b"x" * (KEY_FILE_BYTES_MAX + 1), "longer than"),
    ],
)
def test_garbage_is_corrupt_and_says_what_to_do(folder: Path, content: bytes, reason: str) -> None:
    path = write_key(folder, content)
    with pytest.raises(Corrupt) as caught:
        NodeKey.load(folder)
    assert reason in caught.value.message
    assert str(path) in caught.value.message
    assert "Restore" in caught.value.message


def test_no_flipped_bit_yields_another_node(folder: Path) -> None:
    made = NodeKey.create(folder)
    good = (folder / "node.key").read_bytes()
    refused = 0
    for bit in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        write_key(folder, bytes(damaged))
        try:
            assert NodeKey.load(folder).node_id == made.node_id  # the closing newline may be any white space
        except Fault:
            refused += 1
    assert refused >= (len(good) - 1) * 8


def test_the_secret_is_not_shown(folder: Path) -> None:
    key = NodeKey.create(folder)
    seed = (folder / "node.key").read_text().split()[2]
    assert seed not in repr(key)
    assert key.node_id in repr(key)
