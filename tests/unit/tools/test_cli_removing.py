"""`offgrid rm` and `offgrid ls --deleted`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_objects import ObjectNode

from offgrid.command_line import exits


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    for name in ("notes.txt", "more.txt"):
        running._make(b"some", name)
    yield running
    running.close()


def test_rm_deletes_each_and_says_whom_that_concerns(og: Run, node: ObjectNode) -> None:
    code, out, _ = og("rm", "--yes", "notes.txt", "o-2")
    assert code == exits.OK
    assert out.splitlines() == [
        "o-1 (notes.txt) is deleted; 2 hosts are told",
        "o-2 (more.txt) is deleted; 2 hosts are told",
    ]
    assert node.objects == {}


def test_rm_says_what_is_not_there_and_stops(og: Run, node: ObjectNode) -> None:
    code, _, err = og("rm", "--yes", "nothing", "notes.txt")
    assert code == exits.NOT_FOUND
    assert "there is no object nothing" in err
    assert len(node.objects) == 2


def test_ls_shows_which_hosts_have_yet_to_hear(og: Run, node: ObjectNode) -> None:
    og("rm", "--yes", "notes.txt", "more.txt")
    node.deletions[1].ClearField("untold")
    code, out, _ = og("ls", "--deleted")
    assert code == exits.OK
    (line,) = out.splitlines()[1:]
    assert line.split()[:3] == ["o-1", "notes.txt", "4"]
    assert line.split()[-3:] == ["deleted", "attic,", "barn"]


def test_ls_tells_what_was_sealed_anew_from_what_was_deleted(og: Run, node: ObjectNode) -> None:
    og("rm", "--yes", "notes.txt", "more.txt")
    node.deletions[0].moved_to = "o-9"
    lines = og("ls", "--deleted")[1].splitlines()[1:]
    assert ["sealed anew" in line for line in lines] == [True, False]


def test_ls_says_so_when_there_are_none(og: Run) -> None:
    assert "every host knows what was deleted" in og("ls", "--deleted")[1]


def test_scripts_get_documents(og: Run) -> None:
    deleted = json.loads(og("--json", "rm", "--yes", "notes.txt")[1])
    assert deleted["deletions"][0]["object_id"] == "o-1"
    assert json.loads(og("--json", "ls", "--deleted")[1]) == deleted
