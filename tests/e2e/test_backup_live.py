"""Backups of a node that serves: taken, checked, its sessions shredded in them, and the node brought back from one."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, eventually, mesh_of, offgrid, offgrid_node

from offgrid.backup.recovery import make_secret, public_text, read_secret
from offgrid.backup.wrapped import WRAPPED_KEYS, unwrap_keys
from offgrid.client import Client
from offgrid_node.local_mesh import LocalMesh, LocalNode

MARKERS = [f"PLANTED-{number}" for number in range(20)]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    make_secret(tmp_path / "recovery")
    return tmp_path / "recovery"


@pytest.fixture
def mesh(tmp_path: Path, secret: Path) -> Iterator[LocalMesh]:
    settings = {"state__recovery_key": public_text(_public(secret)), "state__store_raw_content": True}
    with mesh_of(tmp_path / "mesh", {"lone": ["core"]}, **settings) as mesh:
        yield mesh


def wrapped_in(folder: Path, secret: Path, count: int) -> dict[str, bytes]:
    """Once there are so many."""
    keys = unwrap_keys((folder / WRAPPED_KEYS).read_bytes(), read_secret(secret))
    return keys if len(keys) == count else {}


def _public(secret: Path) -> bytes:
    from offgrid.backup.recovery import public_of

    return public_of(read_secret(secret).key)


def recorded(client: Client, name: str) -> str:
    with client.session(name) as session:
        for marker in MARKERS:
            session.record("health.heartbeat", {"marker": f"{name} {marker}"})
    return session.session_id


def backed_up(lone: LocalNode, *arguments: str | Path) -> Path:
    done = offgrid(lone, "state", "backup", *arguments, "--json")
    assert done.code == 0, done.said
    return Path(json.loads(done.out)["backup"]["path"])


def said_in(client: Client, session: str) -> list[str]:
    return [json.loads(record.data)["marker"] for record in client.sessions.records(session)]


def test_what_was_backed_up_comes_back_but_for_what_was_shredded(mesh: LocalMesh, tmp_path: Path, secret: Path) -> None:
    lone = mesh["lone"]
    with lone.client() as client:
        kept, shredded = recorded(client, "kept"), recorded(client, "shredded")
        clear, sealed = backed_up(lone), backed_up(lone, tmp_path / "sealed", "--encrypt")
        status = client.mesh.status()
        keys = eventually(lambda: wrapped_in(clear.parent, secret, 2), "both keys are wrapped")
        assert {*keys} == {kept, shredded}
        client.sessions.purge([shredded])
        assert {*unwrap_keys((clear.parent / WRAPPED_KEYS).read_bytes(), read_secret(secret))} == {kept}
        client.backups.list()
    no_bytes_of(lone.folder, shredded, keys[shredded])
    verified = offgrid(lone, "state", "verify-backup", clear)
    assert (verified.code, "it is whole" in verified.out) == (0, True), verified.said
    assert offgrid(lone, "state", "verify-backup", sealed).code == 1
    assert offgrid(lone, "state", "verify-backup", sealed, "--recovery-secret", secret).code == 0
    damaged = tmp_path / "damaged"
    damaged.write_bytes(clear.read_bytes()[:-1000])
    assert offgrid(lone, "state", "verify-backup", damaged).code == 1

    elsewhere = tmp_path / "clear"
    shutil.copy(clear, elsewhere)
    shutil.copy(clear.parent / WRAPPED_KEYS, tmp_path / WRAPPED_KEYS)
    later, backups = tmp_path / "later", lone.folder / "data" / "backups"
    for file in (sealed, elsewhere):
        come_back(lone, file, secret)
        with lone.client() as client:
            assert said_in(client, kept) == [f"kept {marker}" for marker in MARKERS]
            assert client.mesh.status().node_id == status.node_id
            with pytest.raises(Exception, match="cannot be read"):
                said_in(client, shredded)
            if file == sealed:
                recorded(client, "afterwards")
                backed_up(lone, later)
                eventually(lambda: wrapped_in(backups, secret, 2), "the key of this session is wrapped")
                shutil.copy(backups / WRAPPED_KEYS, tmp_path / "later.keys")
    restored = offgrid(lone, "state", "restore", later, "--recovery-secret", secret,
                       "--wrapped-keys", tmp_path / "later.keys", "--json")  # fmt: skip
    assert restored.code == 0, restored.said
    told = [json.loads(line) for line in restored.out.splitlines()]
    assert sorted(each["outcome"] for each in told) == ["here", "here", "restored"]
    with lone.client() as client:
        assert said_in(client, "afterwards") == [f"afterwards {marker}" for marker in MARKERS]


def come_back(lone: LocalNode, file: Path, secret: Path) -> None:
    """Its folder is lost but for its key."""
    lone.kill()
    aside = lone.folder.with_name(f"{lone.folder.name}-lost-{file.name}")
    lone.folder.rename(aside)
    settings = [f"--set={key}={str(value).lower()}" for key, value in lone.settings.items()]
    words = ["restore", "--backup", str(file), "--recovery-secret", str(secret), "--key", str(aside / "keys/node.key")]
    restored = offgrid_node(*words, "--dir", str(lone.folder), "--role", "core", *settings)
    assert restored.code == 0, restored.said
    lone.run("run")
    lone.wait_ready()


def no_bytes_of(folder: Path, session: str, key: bytes) -> None:
    """Neither in any file, nor in what a backup has in it once it is unpacked."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_socket():
            continue
        contents = [path.read_bytes()]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                contents += [file.read(name) for name in file.namelist()]
        for content in contents:
            assert b"PLANTED" not in content, path
            assert key not in content, path


def test_a_file_is_made_small_while_it_serves(mesh: LocalMesh) -> None:
    lone = mesh["lone"]
    with lone.client() as client:
        for number in range(3):
            recorded(client, f"run {number}")
        compacted = offgrid(lone, "state", "compact", "--json")
        assert compacted.code == 0, compacted.said
        sizes = json.loads(compacted.out)
        assert 0 < sizes["after_bytes"] <= sizes["before_bytes"]
        session = recorded(client, "behind it")
        lone.kill()
        lone.run("run")
        lone.wait_ready()
        assert len(said_in(client, session)) == len(MARKERS)
    assert offgrid(lone, "state", "backups").code == 0


def test_a_passphrase_is_asked_for(mesh: LocalMesh, tmp_path: Path) -> None:
    lone, words = mesh["lone"], "correct horse battery staple\n"

    def typed(*arguments: str | Path) -> int:
        command = [BIN / "offgrid", "--node-dir", lone.folder, "state", *arguments]
        ended = subprocess.run(
            [str(word) for word in command], input=words, capture_output=True, text=True, timeout=GIVE_UP_S, check=False
        )
        return ended.returncode

    assert typed("backup", tmp_path / "mine", "--passphrase") == 0
    assert typed("verify-backup", tmp_path / "mine", "--passphrase") == 0
    assert offgrid(lone, "state", "verify-backup", tmp_path / "mine").code == 1
