"""`offgrid keys`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_objects import ObjectNode

from offgrid.command_line import exits
from offgrid.v1 import objects_pb2
from offgrid_tools.cli import data_keys


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


def test_a_rotation_begins_the_next_key_and_says_what_came_of_it(og: Run) -> None:
    assert "data key    number 4\n" in og("keys", "show")[1]
    code, out, _ = og("keys", "rotate")
    assert code == exits.OK
    assert "number 5\n" in out
    assert "7 looked at, 9 wraps written" in out


def told(**more: object) -> objects_pb2.Reencryption:
    return objects_pb2.Reencryption(objects=3, **more)  # type: ignore[arg-type]


WAITS = objects_pb2.ReencryptionWait(object_id="o-2", why="job j-1 needs it\x1b[2J")
LEFT = [told(left=3), told(under_way=True, left=3), told(under_way=True, sealed=1, left=2, waiting=[WAITS])]
DONE = told(sealed=3, sealed_bytes=5_000)


def test_the_node_seals_objects_anew_and_the_command_looks_on(og: Run, node: ObjectNode) -> None:
    node.told = deque([*LEFT, LEFT[-1], DONE])
    code, out, err = og("keys", "rotate", "--reencrypt")
    assert (code, node.key_number) == (exits.OK, 5)
    assert "sealing anew  ended, 3 of 3, 5.0 kB; 0 left\n" in out
    assert (err.startswith("o-2 waits: job j-1 needs it"), err.count("\n"), "\x1b" in err) == (True, 1, False)


def test_it_is_left_to_itself(og: Run, node: ObjectNode) -> None:
    node.told = deque(LEFT)
    code, out, _ = og("keys", "reencrypt", "--no-wait")
    assert code == exits.OK
    assert "sealing anew  under way, " in out
    assert "waits         o-2: job j-1 needs it" in og("keys", "show")[1]


def test_who_breaks_it_off_is_told_that_it_goes_on(og: Run, node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(span_s: float) -> None:
        raise KeyboardInterrupt

    node.told = deque(LEFT)
    monkeypatch.setattr(data_keys.time, "sleep", interrupted)
    code, _, err = og("keys", "reencrypt")
    assert code == exits.INTERRUPTED
    assert "`offgrid keys reencrypt --stop` ends it" in err


def test_it_is_stopped(og: Run, node: ObjectNode) -> None:
    node.told = deque([*LEFT, told(sealed=1, left=2)])
    assert "ended, 1 of 3, 0 bytes; 2 left" in og("keys", "reencrypt", "--stop")[1]
    assert og("keys", "reencrypt", "--stop", "--no-wait")[0] == exits.USAGE


def test_what_is_left_out_is_no_success(og: Run, node: ObjectNode) -> None:
    node.told = deque([told(), told(sealed=2, left=1, left_out=1)])
    code, out, _ = og("keys", "reencrypt")
    assert code == exits.FAILED
    assert "2 of 3, 0 bytes; 1 left, 1 of them left out" in out


def test_nothing_may_be_old_enough(og: Run) -> None:
    code, out, _ = og("keys", "reencrypt")
    assert code == exits.OK
    assert "nothing is older than the data key of now, number 4; `keys rotate` begins the next one\n" in out


def test_scripts_get_the_answer(og: Run) -> None:
    assert json.loads(og("--json", "keys", "rotate", "--no-wait")[1])["number"] == 5
