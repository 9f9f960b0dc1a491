"""How `offgrid-node` says that a command line is wrong: as `offgrid` does, in one sentence and the next command."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_command import typed

from offgrid.command_line import exits


def said(*argv: str) -> tuple[int, list[str]]:
    done = typed(*argv)
    return done.exit_code, done.stderr.splitlines()


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
    argv: tuple[str, ...], sentence: str, path: str
) -> None:
    code, lines = said(*argv)
    assert code == exits.USAGE
    assert lines == [
        f"offgrid-node: {sentence}", f"  → offgrid-node{path} --help shows what is possible"
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["down", "restart"])
@pytest.mark.parametrize("made", [True, False])
def test_a_mesh_that_is_not_there_is_not_found(tmp_path: Path, command: str, made: bool) -> None:
    folder = tmp_path / "mesh"
    if made:
        folder.mkdir()
    code, lines = said(command, "--dir", str(folder))
    assert (code, lines) == (
        exits.NOT_FOUND,
        [f"offgrid-node: there is no mesh in {folder}; offgrid-node up makes one"],
    )
