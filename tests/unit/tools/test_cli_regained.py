"""`offgrid ls --regained`: what a node forgot with its disk, and what each of it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_objects import NODE_ID, OTHER_ID, ObjectNode

from offgrid.command_line import exits
from offgrid.v1 import objects_pb2


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    for name in ("notes.txt", ""):
        made = running._make(b"some", name)
        made.regained_us = made.created_us + 1_000_000
        made.manifest.wraps.add(node_id=NODE_ID)
        back = objects_pb2.RegainedObject(object_id=made.object_id, back=True, since_us=made.regained_us, object=made)
        back.readers.extend([NODE_ID, OTHER_ID] if name else [])
        running.regained.append(back)
    missing = objects_pb2.RegainedObject(object_id="o-9", since_us=1, trouble="too little", node=OTHER_ID)
    running.regained.append(missing)
    yield running
    running.close()


def test_says_what_is_back_and_what_not_and_what_each_lacks(og: Run, node: ObjectNode) -> None:
    code, out, _ = og("ls", "--regained")
    assert code == exits.OK
    missing, named, nameless = out.splitlines()[1:]
    assert missing.split()[:2] == ["o-9", "missing"]
    assert missing.endswith("too little (kept by barn; `offgrid rm` gives it up)")
    assert named.split()[:4] == ["o-1", "notes.txt", "4", "bytes"]
    assert named.endswith("readers: barn, by their own word or older rows (`offgrid share` names them again)"), (
        "the rest are known"
    )
    assert nameless.endswith("its name, if it had one")


def test_says_so_when_there_are_none(og: Run, node: ObjectNode) -> None:
    node.regained.clear()
    assert "has forgotten nothing" in og("ls", "--regained")[1]


def test_scripts_get_a_document(og: Run, node: ObjectNode) -> None:
    found = json.loads(og("--json", "ls", "--regained")[1])["objects"]
    assert [each["object_id"] for each in found] == ["o-1", "o-2", "o-9"]


def test_info_says_that_its_readers_of_before_are_not_known(og: Run, node: ObjectNode) -> None:
    out = og("info", "notes.txt")[1]
    (readers,) = [line for line in out.splitlines() if line.startswith("readers")]
    assert readers.endswith("; `offgrid ls --regained` has who else says so")
    assert "came back" in out
