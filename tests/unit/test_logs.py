"""The log: text, JSON lines, journald's priorities; fields that no text can break out of; repeats that are counted."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tempfile

import pytest

from offgrid_node import logs
from offgrid_node.logs import BURST, FACT_CHARS_MAX, KINDS_MAX, WINDOW_S, JournalLines, JsonLines, Repeats, TextLines
from offgrid_node.logs import fields as fields_of


def record(message: str = "MEMBER_REMOVED", level: int = logging.WARNING, **facts: str | int) -> logging.LogRecord:
    made = logging.LogRecord("offgrid.events", level, __file__, 1, message, (), None)
    made.created, made.msecs = 1_795_000_000.25, 250.0
    made.fields = fields_of(message, **facts)["fields"]
    return made


def test_text_has_fields_behind_the_sentence() -> None:
    line = TextLines().format(record(seq=7, subject="n-1", detail="", name="old laptop"))
    assert line.endswith(" WARNING offgrid.events: MEMBER_REMOVED seq=7 subject=n-1 name='old laptop'")


def test_an_event_of_the_nodes_own_stands_behind_its_sentence() -> None:
    made = record("a peer left")
    made.fields = fields_of("peer_left", peer="n-1", after_s=2.5, why=OSError(5, "gone"), job="")["fields"]
    assert (
        TextLines()
        .format(made)
        .endswith("offgrid.events: a peer left event=peer_left peer=n-1 after_s=2.5 why='[Errno 5] gone'")
    )
    line = json.loads(JsonLines().format(made))
    assert (line["message"], line["event"], line["after_s"]) == ("a peer left", "peer_left", 2.5)


def test_a_fact_is_no_longer_than_a_line_bears() -> None:
    line = json.loads(JsonLines().format(record(why="x" * 10_000)))
    assert line["why"] == "x" * FACT_CHARS_MAX + "…"


def test_no_text_of_a_peers_begins_a_line_of_its_own() -> None:
    for form in (TextLines(), JsonLines()):
        line = form.format(record(detail="a\n\x1b[2J2026 ERROR forged", subject="b"))
        assert "\n" not in line
        assert "\x1b" not in line


def test_json_lines_are_objects_whose_own_names_nobody_takes() -> None:
    line = json.loads(JsonLines().format(record(seq=7, level_of="x", message_id=1)))
    assert line == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "warning",
        "logger": "offgrid.events",
        "message": "MEMBER_REMOVED",
        "event": "MEMBER_REMOVED",
        "seq": 7,
        "level_of": "x",
        "message_id": 1,
    }
    forged = record()
    forged.fields = {"level": "debug", "time": "0"}
    assert json.loads(JsonLines().format(forged))["level"] == "warning"


def test_a_traceback_is_one_field_of_one_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        made = logging.LogRecord("offgrid", logging.ERROR, __file__, 1, "%s failed", ("it",), sys.exc_info())
    (line,) = JsonLines().format(made).splitlines()
    assert json.loads(line)["message"] == "it failed"
    assert "ValueError: broken" in json.loads(line)["exception"]
    assert all(part.startswith("<3>") for part in JournalLines().format(made).splitlines())


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 3)],
)
def test_journald_is_told_the_priority_and_tells_the_time_itself(level: int, priority: int) -> None:
    assert JournalLines().format(record(level=level, seq=7)) == f"<{priority}>offgrid.events: MEMBER_REMOVED seq=7"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_said_again_and_again_is_counted_and_the_count_is_told() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    let = [repeats.filter(record("link %s")) for _ in range(BURST + 7)]
    assert let == [True] * BURST + [False] * 7
    assert repeats.filter(record("another")), "each kind has a count of its own"
    clock.now = WINDOW_S
    told = record("link %s", peer="n-1")
    assert repeats.filter(told)
    assert told.fields == {"event": "link %s", "peer": "n-1", "left_out": 7}
    assert repeats.filter(after := record("link %s"))
    assert after.fields == {"event": "link %s"}


def test_no_more_kinds_are_counted_than_there_is_room_for() -> None:
    repeats = Repeats(Clock())
    for number in range(KINDS_MAX + 50):
        assert repeats.filter(record(f"kind {number}"))
    assert len(repeats._kinds) == KINDS_MAX


@pytest.mark.parametrize(
    ("form", "journal", "begins"),
    [("auto", False, "20"), ("auto", True, "<4>offgrid: "), ("text", True, "20"), ("json", True, '{"time": ')],
)
def test_the_form_is_what_the_config_says_or_what_reads_it(
    monkeypatch: pytest.MonkeyPatch, form: str, journal: bool, begins: str
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = tempfile.TemporaryFile("w+")  # noqa: SIM115 - below
    found = os.fstat(stream.fileno())
    environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + (not journal)}"}
    logs.set_up("warning", form, stream, environ)
    logging.getLogger("offgrid").warning("said")
    logging.getLogger("offgrid").info("not said")
    with stream:
        stream.seek(0)
        (line,) = stream.read().splitlines()
    assert line.startswith(begins)


def test_a_stream_that_is_no_file_is_no_journal() -> None:
    assert not logs._is_journal(io.StringIO(), "1:2")
