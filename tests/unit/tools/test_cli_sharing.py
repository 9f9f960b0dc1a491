"""`offgrid share`, `unshare` and `ls --shared`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_node import NODE_ID, OTHER_ID
from small_objects import ObjectNode

from offgrid.command_line import exits


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    running._make(b"some", "notes.txt").manifest.wraps.add(node_id=NODE_ID)
    yield running
    running.close()


def test_an_object_is_shared_by_name_and_info_says_with_whom(og: Run, node: ObjectNode) -> None:
    assert og("share", "notes.txt", "barn") == (exits.OK, "o-1 may be read by barn\n", "")
    assert "readers    barn\n" in og("info", "notes.txt")[1]
    assert "owner      attic\n" in og("info", "notes.txt")[1]
    code, out, _ = og("unshare", "notes.txt", "barn")
    assert code == exits.OK
    assert "what it has read stays with it" in out
    assert "readers" not in og("info", "notes.txt")[1]


def test_scripts_get_the_object(og: Run) -> None:
    (own, reader) = json.loads(og("--json", "share", "notes.txt", "barn")[1])["object"]["manifest"]["wraps"]
    assert (own["node_id"], reader["node_id"]) == (NODE_ID, OTHER_ID)


def test_ls_tells_whose_it_is(og: Run, node: ObjectNode) -> None:
    assert og("ls", "--shared")[1] == "nobody shares anything with this node\n"
    made = node._make(b"theirs", "their notes")
    made.owner = OTHER_ID
    node.shared[made.object_id] = made
    (line,) = og("ls", "--shared")[1].splitlines()[1:]
    assert line.split()[:4] == ["o-2", "barn", "their", "notes"]
    assert [o["name"] for o in json.loads(og("--json", "ls", "--shared")[1])["objects"]] == ["their notes"]


def test_of_what_another_shares_nothing_is_said_that_only_its_owner_knows(og: Run, node: ObjectNode) -> None:
    made = node._make(b"theirs", "their notes")
    made.owner, made.required_milli, made.local = OTHER_ID, 0, False
    del made.acks[:]
    code, out, _ = og("info", "their notes")
    assert code == exits.OK
    assert "owner      barn" in out
    assert "kept as" in out
    assert not {"state", "acks", "survives"} & {line.split()[0] for line in out.splitlines()}
