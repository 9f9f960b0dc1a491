"""What is said on a terminal fits it; commands stay whole, and into a file nothing is broken."""

from __future__ import annotations

import sys

import pytest
from cli_run import Run
from click import unstyle
from small_node import SmallNode

from offgrid_node.doctor import Finding, State
from offgrid_node.doctor_command import _show
from offgrid_node.protocol.errors import FailedPrecondition

LONG = "the disk under the store is full " * 6
COMMAND = "offgrid-node run --dir " + "x" * 90


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("COLUMNS", "80")
    return bool(request.param)


def test_an_error_fits_the_terminal(og: Run, node: SmallNode, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    node.stumble("GetStatus", FailedPrecondition(LONG.strip()))
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: terminal)
    said = og("status")[2]
    assert " ".join(said.split()) == f"offgrid: {LONG.strip()}"
    assert (max(map(len, said.splitlines())) <= 80) is terminal


def test_a_doctors_sentence_fits_the_terminal_and_its_command_is_left_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: terminal)
    _show([Finding("disk", State.FAULT, LONG.strip(), COMMAND)], everything=False)
    *sentence, command, _ = unstyle(capsys.readouterr().out).splitlines()
    assert command.endswith(f"$ {COMMAND}")
    assert (len(sentence) > 1) is terminal
    assert (max(map(len, sentence)) <= 80) is terminal
