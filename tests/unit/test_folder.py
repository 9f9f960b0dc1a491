"""A node's folder: private whatever the umask, one mesh in its life, and messages that lead somewhere."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid_node import joining
from offgrid_node.config import Config
from offgrid_node.folder import ROOT_KEY, Folder, Made, open_store
from offgrid_node.founding import found
from offgrid_node.joining import join
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
HOST = ("host",)


def make(path: Path, mesh: str = "home", name: str = "first") -> Made:
    return found(path, mesh, name, HOST, {})


def directory_of(path: Path) -> Directory:
    store = open_store(Folder(path).config({}), create=False)
    try:
        return Directory.load(store, verify, check_identity_certificate)
    finally:
        store.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def admit_another(path: Path) -> str:
    """Somebody else joins the mesh of this founder."""
    directory, root = directory_of(path), NodeKey.load(path / "keys", ROOT_KEY)
    other = NodeKey(bytes(32))
    record = MemberRecord(other.node_id, "other", other.public_key, ROLES_ALL, 1_000, "", 1)
    directory.accept_member(issue_member(directory.genesis, record, identity_certificate(other), root))
    store = open_store(Folder(path).config({}), create=False)
    store.commit(Batch(writes=dict(directory.rows(other.node_id))))
    store.close()
    return other.node_id


def token_of(directory: Directory) -> str:
    """Nobody is at its door."""
    return str(InviteToken(directory.genesis.mesh_tag, bytes(range(16)), ("127.0.0.1:1",)))


class TestOneMesh:
    def test_a_second_mesh_is_not_founded_over_a_store(self, tmp_path: Path) -> None:
        make(tmp_path)
        before = directory_of(tmp_path).digest()
        config = (tmp_path / "offgrid.toml").rename(tmp_path / "kept.toml")
        shutil.move(tmp_path / "keys", tmp_path / "kept-keys")
        with pytest.raises(FailedPrecondition, match="another folder") as caught:
            make(tmp_path, "other")
        assert caught.value.reason == "StoreNotEmpty"
        assert "'home'" in caught.value.message
        assert not (tmp_path / "keys").exists(), "no new keys in the place of those to restore"
        assert not (tmp_path / "offgrid.toml").exists()
        config.rename(tmp_path / "offgrid.toml")
        assert directory_of(tmp_path).digest() == before

    @pytest.mark.parametrize("lost", ["node.key", "mesh_root.key"])
    def test_nor_the_same_one_by_other_keys(self, tmp_path: Path, lost: str) -> None:
        make(tmp_path)
        (tmp_path / "offgrid.toml").unlink()
        (tmp_path / "keys" / lost).unlink()
        with pytest.raises(FailedPrecondition, match=r"restore its offgrid\.toml and keys"):
            make(tmp_path)
        assert not (tmp_path / "keys" / lost).exists()

    def test_nor_anew_once_others_have_joined(self, tmp_path: Path) -> None:
        make(tmp_path)
        other = admit_another(tmp_path)
        assert other in directory_of(tmp_path).live()
        (tmp_path / "offgrid.toml").unlink()
        with pytest.raises(FailedPrecondition) as caught:
            make(tmp_path)
        assert caught.value.reason == "StoreNotEmpty"

    def test_an_interrupted_init_is_finished_with_the_same_genesis(self, tmp_path: Path) -> None:
        first = make(tmp_path)
        genesis = directory_of(tmp_path).signed_genesis
        (tmp_path / "offgrid.toml").rename(tmp_path / "offgrid.toml.draft")  # it ended just before `keep`
        second = make(tmp_path, name="renamed")
        after = directory_of(tmp_path)
        assert second.node_id == first.node_id
        assert after.signed_genesis == genesis
        assert after.live() == [first.node_id]
        assert after.resolve("renamed") == first.node_id

    def test_joining_another_mesh_is_refused_before_anyone_is_asked(self, tmp_path: Path) -> None:
        make(tmp_path / "elsewhere", "other")
        make(tmp_path / "a")
        (tmp_path / "a" / "offgrid.toml").unlink()
        token = token_of(directory_of(tmp_path / "elsewhere"))
        with pytest.raises(FailedPrecondition) as caught:
            join(tmp_path / "a", token, "late", HOST, {"mesh.mdns": False}, 0.1)
        assert caught.value.reason == "StoreNotEmpty"

    @pytest.mark.parametrize("keys_lost", [False, True])
    def test_an_interrupted_join_asks_again_with_the_same_key_only(self, tmp_path: Path, keys_lost: bool) -> None:
        make(tmp_path)
        token = token_of(directory_of(tmp_path))
        (tmp_path / "offgrid.toml").unlink()
        if keys_lost:
            shutil.rmtree(tmp_path / "keys")
        with pytest.raises(FailedPrecondition if keys_lost else Unavailable) as caught:
            join(tmp_path, token, "late", HOST, {}, 0.1)
        assert caught.value.reason == ("StoreNotEmpty" if keys_lost else "NoDoor")

    def test_what_another_command_has_made_meanwhile_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two at once in one folder: the second has its draft and waits for the store while the first one ends."""
        token = token_of(directory_of(make(tmp_path / "a").folder.path))

        def first(config: Config, *, create: bool) -> LoggedStore:
            (tmp_path / "b" / "offgrid.toml").write_text("of the first")
            return open_store(config, create=create)

        monkeypatch.setattr(joining, "open_store", first)
        with pytest.raises(AlreadyExists):
            join(tmp_path / "b", token, "late", HOST, {"mesh.mdns": False}, 0.1)
        assert (tmp_path / "b" / "offgrid.toml").read_text() == "of the first"

    def test_a_node_lives_here_already(self, tmp_path: Path) -> None:
        make(tmp_path)
        with pytest.raises(AlreadyExists, match="--dir ANOTHER-FOLDER"):
            make(tmp_path)


@posix
class TestPrivacy:
    @pytest.fixture(autouse=True)
    def no_umask(self) -> Iterator[None]:
        before = os.umask(0)
        yield
        os.umask(before)

    def test_all_that_is_made_is_the_owners_alone(self, tmp_path: Path) -> None:
        make(tmp_path / "above" / "node")
        folder = tmp_path / "above" / "node"
        assert mode(folder / "offgrid.toml") == 0o600
        for private in (tmp_path / "above", folder, folder / "data", folder / "data" / "memory.db", folder / "keys"):
            assert mode(private) == 0o700, private
        Folder(folder).check_private()

    @pytest.mark.parametrize("name", [".", "offgrid.toml", ".env"])
    @pytest.mark.parametrize("bits", [0o020, 0o002])
    def test_what_others_may_write_is_refused_with_the_command_that_helps(
        self, tmp_path: Path, name: str, bits: int
    ) -> None:
        make(tmp_path / "my node")
        path = tmp_path / "my node" / name
        if name == ".env":
            path.write_text("")
        path.chmod(0o700 | bits)
        with pytest.raises(FailedPrecondition) as caught:
            Folder(tmp_path / "my node").check_private()
        assert caught.value.reason == "FilesExposed"
        assert caught.value.message.endswith(f"Type: chmod go-w '{path}'")
        path.chmod(0o700)
        (tmp_path / "my node" / ".env").unlink(missing_ok=True)
        Folder(tmp_path / "my node").check_private()

    def test_a_data_folder_that_others_may_write_is_refused(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / "data").chmod(0o770)
        with pytest.raises(FailedPrecondition, match=r"chmod go-w .*data"):
            open_store(Folder(tmp_path).config({}), create=False)

    def test_a_folder_that_is_there_keeps_its_mode_and_is_refused_at_once_when_others_may_write_it(
        self, tmp_path: Path
    ) -> None:
        shared, readable = tmp_path / "shared", tmp_path / "readable"
        shared.mkdir(mode=0o775)
        readable.mkdir(mode=0o755)
        with pytest.raises(FailedPrecondition, match="chmod go-w"):
            make(shared)
        assert list(shared.iterdir()) == []
        make(readable)
        assert mode(readable) == 0o755


class TestTheStore:
    @pytest.mark.parametrize("mounted", [False, True], ids=["no folder", "an empty mount point"])
    def test_one_that_is_not_there_is_never_replaced_by_an_empty_one(self, tmp_path: Path, mounted: bool) -> None:
        make(tmp_path)
        store = tmp_path / "data" / "memory.db"
        shutil.rmtree(store)
        if mounted:
            store.mkdir()
        with pytest.raises(FailedPrecondition, match="Is its disk mounted") as caught:
            open_store(Folder(tmp_path).config({}), create=False)
        assert caught.value.reason == "StoreMissing"
        assert str(store) in caught.value.message
        assert store.exists() == mounted
        assert not mounted or list(store.iterdir()) == []
