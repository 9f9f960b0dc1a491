"""The last lines of a log stay in the data folder: bounded, for the owner alone, and never what stops a node."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid_node import logs, recent_log
from offgrid_node.recent_log import RecentLog, is_kept, recent


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    log, handler = logging.getLogger("test.recent"), RecentLog(tmp_path)
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)


def test_lines_are_kept_in_their_order(log: logging.Logger, tmp_path: Path) -> None:
    for number in range(3):
        log.warning("line %d", number)
    assert recent(tmp_path) == b"line 0\nline 1\nline 2\n"
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "recent.log").stat().st_mode) == 0o600


def test_the_oldest_go_first_and_there_are_never_more_than_twice_a_half(
    log: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_log, "HALF_BYTES", 100)
    for number in range(1_000):
        log.warning("line %d", number)
        assert len(recent(tmp_path)) <= 200
    lines = recent(tmp_path).decode().splitlines()
    assert lines == [f"line {number}" for number in range(1_000 - len(lines), 1_000)]
    log.warning("x" * 1_000)
    assert len(recent(tmp_path)) <= 200


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_a_link_in_its_place_is_not_followed(log: logging.Logger, tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine\n")
    (tmp_path / "recent.log").symlink_to("diary")
    log.warning("line")
    assert (tmp_path / "diary").read_text() == "mine\n"


def test_where_nothing_can_be_written_nothing_is_and_nobody_hears(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, handler = logging.getLogger("test.gone"), RecentLog(tmp_path / "gone")
    log.addHandler(handler)
    log.warning("lost")
    log.removeHandler(handler)
    assert capsys.readouterr().err == ""
    assert recent(tmp_path / "gone") == b""


def test_a_log_in_the_node_s_folder_is_not_kept_twice(tmp_path: Path) -> None:
    with (tmp_path / "node.log").open("w") as own, (tmp_path / "run.log").open("w") as other:
        assert is_kept(own.fileno(), tmp_path)
        assert not is_kept(other.fileno(), tmp_path)


@pytest.mark.parametrize("journal", [False, True])
def test_nor_is_what_journald_keeps(tmp_path: Path, journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_is_journal", lambda stream, named: journal)
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        logs.set_up("info", "auto", io.StringIO(), {}, [RecentLog(tmp_path)])
        logging.getLogger("offgrid").warning("here", extra=logs.fields("found", at="home"))
    finally:
        root.handlers = before
    kept = recent(tmp_path).decode()
    assert kept.endswith("" if journal else " WARNING offgrid: here event=found at=home\n")
    assert bool(kept) is not journal
