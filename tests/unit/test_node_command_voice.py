"""How `offgrid-node` says that a command line is wrong: as `offgrid` does, in one sentence and the next command."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.__main__ import main

USAGE, NOT_FOUND = 2, 3


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str) -> tuple[object, list[str]]:
    monkeypatch.setattr("sys.argv", ["offgrid-node", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("argv", "sentence", "path"),
    [
        (("dwn",), "there is no command 'dwn'; did you mean 'down'?", ""),
        (("xyzzy",), "there is no command 'xyzzy'", ""),
        (("rotate", "rot"), "there is no command 'rot'; did you mean 'root'?", " rotate"),
        (("service", "instal"), "there is no command 'instal'; did you mean 'install'?", " service"),
        (("down", "--purge", "core"), "--purge removes the whole mesh: name no node", " down"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_command_line_is_one_sentence_and_where_help_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], sentence: str, path: str
) -> None:
    code, lines = said(capsys, monkeypatch, *argv)
    assert code == USAGE
    assert lines == [
        f"offgrid-node: {sentence}", f"  → offgrid-node{path} --help shows what is possible"
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["down", "restart"])
@pytest.mark.parametrize("made", [True, False])
def test_a_mesh_that_is_not_there_is_not_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, made: bool
) -> None:
    folder = tmp_path / "mesh"
    if made:
        folder.mkdir()
    code, lines = said(capsys, monkeypatch, command, "--dir", str(folder))
    assert (code, lines) == (NOT_FOUND, [f"offgrid-node: there is no mesh in {folder}; offgrid-node up makes one"])
