"""A start that is refused leaves its reason in the folder, until one succeeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offgrid_node.last_refusal import REFUSAL_NAME, forget_refusal, last_refusal, refusal_kept
from offgrid_node.protocol.errors import FailedPrecondition


def refused(folder: Path, why: str) -> None:
    with pytest.raises(FailedPrecondition), refusal_kept(folder):
        raise FailedPrecondition(why)


def test_the_latest_reason_is_kept_for_its_owner_until_a_start_succeeds(tmp_path: Path) -> None:
    assert last_refusal(tmp_path) == ""
    refused(tmp_path, "the disk is full")
    refused(tmp_path, "the store is another node's: attic's")
    assert last_refusal(tmp_path) == "the store is another node's: attic's"
    if os.name == "posix":
        assert (tmp_path / REFUSAL_NAME).stat().st_mode & 0o077 == 0
    forget_refusal(tmp_path)
    assert last_refusal(tmp_path) == ""


def test_a_second_process_beside_the_running_one_says_nothing_of_that(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition), refusal_kept(tmp_path):
        raise FailedPrecondition("in use by another daemon", reason="AlreadyRunning")
    assert last_refusal(tmp_path) == ""


def test_where_nothing_can_be_written_the_refusal_itself_is_what_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "no disk")
    assert last_refusal(tmp_path / "missing") == ""


def test_a_start_that_succeeds_and_an_orderly_end_leave_nothing(tmp_path: Path) -> None:
    with refusal_kept(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
