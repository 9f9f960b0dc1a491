"""`offgrid-node words` and `rotate` as people type them; what they do to a folder stands in test_rotating*.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from offgrid_node.folder import ROOT_KEY, Folder
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest
from offgrid_node.root import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return found(tmp_path / "node", "home", "attic", ["core"], {}).folder


def typed(folder: Folder, *command: str, words: str = "") -> Result:
    result = CliRunner().invoke(ROOT, [*command, "--dir", str(folder.path)], input=f"{words}\n" if words else None)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize(("option", "name"), [((), "node"), (("--root",), ROOT_KEY)])
def test_words_that_were_written_down_bring_a_lost_key_back(folder: Folder, option: tuple[str, ...], name: str) -> None:
    written = (folder.keys_path / f"{name}.key").read_bytes()
    words = typed(folder, "words", *option).stdout.splitlines()[0]
    shutil.rmtree(folder.keys_path)
    with pytest.raises(InvalidRequest, match="23 words"):
        typed(folder, "words", "--enter", *option, words=words.rsplit(" ", 1)[0])
    result = typed(folder, "words", "--enter", *option, words=words)
    assert f"written: {folder.keys_path / name}.key" in result.stdout
    assert (folder.keys_path / f"{name}.key").read_bytes() == written


def test_the_roots_words_of_before_sign_nothing_and_those_of_now_do(folder: Folder) -> None:
    old = typed(folder, "words", "--root").stdout.splitlines()[0]
    said = typed(folder, "rotate", "root").stdout
    assert "mesh home has its root key number 1" in said
    assert f"offgrid-node words --root --dir {folder.path}" in said
    new = typed(folder, "words", "--root").stdout.splitlines()[0]
    with pytest.raises(FailedPrecondition, match="was replaced; the one in force is number 1"):
        typed(folder, "rotate", "root", "--root-words", words=old)
    assert "root key number 2" in typed(folder, "rotate", "root", "--root-words", words=new).stdout
    path = folder.keys_path / f"{ROOT_KEY}.key"
    assert "has its key number 1" in typed(folder, "rotate", "identity", "--root-key", str(path)).stdout


def test_a_change_that_is_taken_is_named(folder: Folder, tmp_path: Path) -> None:
    member = Folder(shutil.copytree(folder.path, tmp_path / "member"))
    typed(folder, "rotate", "root")
    file = str(folder.path / "root_change")
    for said in ("taken: the key of the mesh's root (number 1)\n", "nothing new\n"):
        assert typed(member, "rotate", "take", file).stdout.startswith(said)
    assert NodeKey.load(member.keys_path, ROOT_KEY).public_key != NodeKey.load(folder.keys_path, ROOT_KEY).public_key
