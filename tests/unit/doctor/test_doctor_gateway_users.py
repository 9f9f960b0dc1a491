"""Who else may use a gateway without a token, where the system does not tell users apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import template
from offgrid_node.doctor import State, gateway_users
from offgrid_node.doctor.gateway_users import CHECKS, named
from offgrid_node.doctor.running import examine
from offgrid_node.doctor.subject import Subject

TOLD, NOT_TOLD = frozenset({0, 1000}), None
OTHERS = ["ada", "bo", "cy", "dee"]


def said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, uids: frozenset[int] | None, others: list[str], **settings: object
) -> tuple[State, str, str]:
    """State, sentence, command."""
    monkeypatch.setattr(gateway_users, "trusted_uids", lambda: uids)
    monkeypatch.setattr(gateway_users, "other_users", lambda: others)
    values = {f"gateway.{name}": value for name, value in settings.items()}
    (folder / "offgrid.toml").write_text(template("home", "here", ("core",), values=values))
    (found,) = examine(Subject(folder, {}), CHECKS, 60.0)
    return found.state, found.sentence, found.command


def test_other_users_are_named_with_the_command_that_makes_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, sentence, command = said(tmp_path, monkeypatch, NOT_TOLD, OTHERS)
    assert state is State.WARNING
    assert "other users of this machine (ada, bo, cy, …)" in sentence
    assert "OFFGRID_GATEWAY__TOKEN=" in command
    assert str(tmp_path / ".env") in command


@pytest.mark.parametrize(
    ("uids", "others", "settings"),
    [
        (TOLD, OTHERS, {}),
        (NOT_TOLD, [], {}),
        (NOT_TOLD, OTHERS, {"token": "a-token-of-the-owner"}),
        (NOT_TOLD, OTHERS, {"listen": "off"}),
    ],
)
def test_all_is_well_where_none_gets_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uids: frozenset[int] | None,
    others: list[str],
    settings: dict[str, object],
) -> None:
    assert said(tmp_path, monkeypatch, uids, others, **settings)[0] in (State.OK, State.NOT_APPLICABLE)


def test_folders_of_the_system_are_nobody_s() -> None:
    assert named(iter(["Public", "bo", "Default User", "All Users", "ada", "Shared"])) == ["ada", "bo"]


def test_whoever_is_here_is_found_without_a_fault() -> None:
    assert isinstance(gateway_users.other_users(), list)
