"""Nodes by name: added, chosen, forgotten; and which address a command takes in the end."""

from __future__ import annotations

import errno
import json
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid_tools.cli import run
from offgrid_tools.cli.contexts import changing, load

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's config folder of this test's own, and no node that is found from here."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("OFFGRID_CONTEXT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "config" / "offgrid" / "contexts.json"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(*argv: str) -> tuple[int, str, str]:
        code = run(argv)
        said = capsys.readouterr()
        return code, said.out, said.err

    return say


def test_a_node_that_was_named_is_reached_by_its_name(say: Say, node: SmallNode) -> None:
    assert say("status")[0] == exits.UNAVAILABLE
    assert say("--socket", node.address, "context", "add", "lab")[0] == exits.OK
    assert say("status")[0] == exits.UNAVAILABLE, "a name alone puts nothing in force"
    assert "attic" in say("--context", "lab", "status")[1]


def test_one_is_in_force_until_another_is_said(say: Say, node: SmallNode, monkeypatch: pytest.MonkeyPatch) -> None:
    say("--socket", node.address, "context", "add", "lab")
    assert say("context", "use", "lab")[0] == exits.OK
    assert "attic" in say("status")[1]
    assert say("--context", "none", "status")[0] == exits.UNAVAILABLE
    monkeypatch.setenv("OFFGRID_CONTEXT", "none")
    assert say("status")[0] == exits.UNAVAILABLE
    assert "attic" in say("--context", "lab", "status")[1], "an option goes before the environment"
    monkeypatch.delenv("OFFGRID_CONTEXT")
    say("context", "use", "none")
    assert say("status")[0] == exits.UNAVAILABLE


def test_what_is_said_outright_goes_before_any_context(say: Say, node: SmallNode, tmp_path: Path) -> None:
    say("--socket", node.address, "context", "add", "lab")
    say("context", "use", "lab")
    assert say("--node-dir", str(tmp_path), "status")[0] == exits.UNAVAILABLE


def test_the_list_says_which_is_in_force(say: Say, node: SmallNode) -> None:
    assert say("context", "ls")[1].startswith("there are no contexts")
    say("--socket", node.address, "context", "add", "lab")
    say("context", "use", "lab")
    listed = json.loads(say("--json", "context", "ls")[1])
    assert listed["current"] == "lab"
    assert [(each["name"], each["current"]) for each in listed["contexts"]] == [("lab", True)]


def test_the_one_in_force_may_be_forgotten(say: Say, node: SmallNode) -> None:
    say("--socket", node.address, "context", "add", "lab")
    say("context", "use", "lab")
    assert say("context", "rm", "lab")[0] == exits.OK
    assert json.loads(say("--json", "context", "ls")[1]) == {"current": "", "contexts": []}


def test_nobody_else_may_read_them(say: Say, node: SmallNode, config: Path) -> None:
    say("--socket", node.address, "context", "add", "lab")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700


def test_a_wrong_name_is_told_with_what_may_have_been_meant(say: Say, node: SmallNode) -> None:
    say("--socket", node.address, "context", "add", "lab")
    code, _, err = say("--context", "lba", "status")
    assert code == exits.NOT_FOUND
    assert "there is no context 'lba'; did you mean 'lab'?" in err
    assert "offgrid context ls" in err


@pytest.mark.parametrize("name", ["none", "", "a b", "../x", "x" * 65])
def test_names_that_would_mislead_are_refused(say: Say, node: SmallNode, name: str) -> None:
    assert say("--socket", node.address, "context", "add", name)[0] == exits.USAGE


def test_no_name_for_where_no_node_is(say: Say, tmp_path: Path, config: Path) -> None:
    assert say("--node-dir", str(tmp_path), "context", "add", "lab")[0] == exits.UNAVAILABLE
    assert not config.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"current": "", "contexts": {"x": {"ftp": "y"}}}'])
def test_a_file_that_is_none_is_named_and_left_alone(say: Say, config: Path, text: str) -> None:
    config.parent.mkdir(parents=True)
    config.write_text(text)
    code, _, err = say("status")
    assert code == exits.USAGE
    assert "contexts.json is not what `offgrid context` writes" in err
    assert config.read_text() == text


def test_none_of_several_that_are_added_at_once_is_lost(config: Path) -> None:
    def add(name: str) -> None:
        with changing() as contexts:
            time.sleep(0.02)  # others come meanwhile
            contexts.by_name[name] = {"node_dir": f"/{name}"}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, "abcdefgh"))
    assert "".join(sorted(load().by_name)) == "abcdefgh"


def test_a_home_without_locks_keeps_contexts_all_the_same(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("offgrid_tools.cli.contexts.lock", lock)
    with changing() as contexts:
        contexts.by_name["a"] = {"node_dir": "/a"}
    assert [*load().by_name] == ["a"]


def test_what_fails_changes_nothing(config: Path) -> None:
    def failing() -> None:
        with changing() as contexts:
            contexts.by_name["a"] = {"node_dir": "/a"}
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert not load().by_name


@pytest.mark.parametrize("words", [("doctor",), ("debug", "bundle"), ("mesh", "rotate")])
def test_what_looks_at_a_nodes_files_names_itself_where_the_node_is_elsewhere(say: Say, words: tuple[str, ...]) -> None:
    code, _, said = say("--socket", "http://192.0.2.1:8001", *words)
    assert (code, f"type `offgrid {' '.join(words)}` there" in said) == (exits.USAGE, True)
