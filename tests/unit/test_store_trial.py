"""A store that ends whoever reads it: the process after that says so, and what to do, and does not read it itself."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid_node import store_trial
from offgrid_node.config import Config
from offgrid_node.founding import found
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.store_trial import LAST_WORDS, last_words, try_store

DIES = (sys.executable, "-c", "import os; os.abort()")
HANGS = (sys.executable, "-c", "import time; time.sleep(60)")
REFUSED = (sys.executable, "-c", "")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return found(tmp_path / "node", "home", "attic", ["core"], {}).folder.config({})


@pytest.fixture(autouse=True)
def _pytest_hears_of_crashes() -> Iterator[None]:
    was_enabled = faulthandler.is_enabled()
    yield
    if was_enabled:
        faulthandler.enable(sys.__stderr__)


def words_of(config: Config) -> Path:
    return config.node.data_dir / LAST_WORDS


def test_a_store_that_can_be_read_is(config: Config) -> None:
    assert try_store(config)


def test_one_that_is_refused_is_left_to_whoever_opens_it_next(config: Config) -> None:
    (config.storage.memory_db / "redo.log").unlink()
    assert not try_store(config)
    assert not try_store(config, REFUSED)


def test_one_that_ends_its_reader_says_what_to_do(config: Config) -> None:
    with pytest.raises(Corrupt, match=r"offgrid-node restore --via .* --backup") as caught:
        try_store(config, DIES)
    assert caught.value.reason == "StoreDeadly"
    assert str(config.storage.memory_db) in caught.value.message
    assert str(config.node.data_dir / "backups") in caught.value.message


def test_one_that_holds_its_reader_up_does_so_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_trial, "PATIENCE_S", 0.2)
    with pytest.raises(Corrupt, match="takes more than"):
        try_store(config, HANGS)


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-c", "raise MemoryError"),
        (sys.executable, "-c", "import os; os._exit(2)"),
        ("/there/is/no/such/program",),
        pytest.param(
            (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
            marks=pytest.mark.skipif(sys.platform == "win32", reason="signals"),
        ),
    ],
)
def test_a_trial_that_came_to_nothing_says_nothing_against_it(config: Config, command: tuple[str, ...]) -> None:
    """E.g. of one that was out of memory: the words stay, and it is tried again next time."""
    assert not try_store(config, command)


def test_a_trial_ends_with_whoever_started_it() -> None:
    """Who is stopped meanwhile leaves nobody behind who has the store."""
    script = "import time; from offgrid_node.store_trial import end_with_starter as e; e(); time.sleep(60)"
    with subprocess.Popen((sys.executable, "-c", script), stdin=subprocess.PIPE) as trial:
        with pytest.raises(subprocess.TimeoutExpired):
            trial.wait(0.5)
        assert trial.stdin is not None
        trial.stdin.close()
        assert trial.wait(20) == 1


def test_a_node_that_runs_and_stops_leaves_no_words(config: Config) -> None:
    with last_words(config):
        assert faulthandler.is_enabled()
        assert words_of(config).read_bytes() == b""
        assert sys.platform == "win32" or words_of(config).stat().st_mode & 0o077 == 0
    assert not words_of(config).exists()


@pytest.mark.parametrize("words", [None, ""])
def test_without_words_of_the_last_one_nothing_is_tried(
    config: Config, monkeypatch: pytest.MonkeyPatch, words: str | None
) -> None:
    monkeypatch.setattr(store_trial, "try_store", lambda config: pytest.fail("it was tried"))
    if words is not None:
        words_of(config).write_text(words)
    with last_words(config):
        pass


def test_after_such_words_it_is_tried_until_it_can_be_read(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    words_of(config).write_text("Fatal Python error: Bus error\n")
    tried = store_trial.try_store
    for _ in range(2):
        monkeypatch.setattr(store_trial, "try_store", lambda config: tried(config, DIES))
        with pytest.raises(Corrupt), last_words(config):
            pytest.fail("the node ran")
        assert words_of(config).read_text(), "the next start would not try it"
    monkeypatch.setattr(store_trial, "try_store", tried)
    with last_words(config):
        assert words_of(config).read_bytes() == b""


def test_a_folder_that_takes_no_file_is_no_reason_not_to_run(config: Config) -> None:
    words_of(config).mkdir()
    with last_words(config):
        pass
