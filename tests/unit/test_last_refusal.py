"""A start that is refused leaves its reason in the folder, until one succeeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offgrid_node.config import CONFIG_NAME
from offgrid_node.config.apart import ConfigReading
from offgrid_node.last_refusal import REFUSAL_NAME, forget_refusal, last_refusal, refusal_kept
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.serving import serve

SPOILT = '[mesh]\nname = "greens"\nnmae = "greens"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CONFIG_NAME).write_text(SPOILT)
    return tmp_path


def refused(folder: Path, why: str) -> None:
    with pytest.raises(FailedPrecondition), refusal_kept(folder):
        raise FailedPrecondition(why)


def test_the_latest_reason_is_kept_for_its_owner_until_a_start_succeeds(folder: Path) -> None:
    assert last_refusal(folder) == ""
    refused(folder, "the disk is full")
    refused(folder, "the store is another node's:\nattic's")
    assert last_refusal(folder) == "the store is another node's: attic's"
    if os.name == "posix":
        assert (folder / REFUSAL_NAME).stat().st_mode & 0o077 == 0
    forget_refusal(folder)
    assert last_refusal(folder) == ""


def test_a_refusal_by_config_or_modes_takes_the_place_of_an_older_reason(folder: Path) -> None:
    def starts() -> None:
        refused(folder, "the disk is full")
        with pytest.raises(Fault), ConfigReading(folder / CONFIG_NAME) as reading:
            serve(folder, reading, lambda: None)

    starts()
    assert "nmae" in last_refusal(folder)
    if os.name == "posix":
        (folder / CONFIG_NAME).chmod(0o666)
        starts()
        assert "can be written by others" in last_refusal(folder)


def test_a_second_process_beside_the_running_one_says_nothing_of_that(folder: Path) -> None:
    with pytest.raises(FailedPrecondition), refusal_kept(folder):
        raise FailedPrecondition("in use by another daemon", reason="AlreadyRunning")
    assert last_refusal(folder) == ""


def test_a_folder_without_a_node_stays_as_it_is(tmp_path: Path) -> None:
    refused(tmp_path, "no config")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_refusal_itself_is_what_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "no disk")
    assert last_refusal(tmp_path / "missing") == ""


def test_a_start_that_succeeds_and_an_orderly_end_leave_nothing(folder: Path) -> None:
    with refusal_kept(folder):
        pass
    assert [each.name for each in folder.iterdir()] == [CONFIG_NAME]
