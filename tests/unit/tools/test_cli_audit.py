"""`offgrid audit`: which hosts have what they acked, for people, for scripts, and by the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_objects import ObjectNode

from offgrid.command_line import exits
from offgrid.v1 import objects_pb2

WHOLE, WRONG, MISSING, SILENT = (
    objects_pb2.AUDIT_OUTCOME_WHOLE,
    objects_pb2.AUDIT_OUTCOME_WRONG,
    objects_pb2.AUDIT_OUTCOME_MISSING,
    objects_pb2.AUDIT_OUTCOME_SILENT,
)


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    running._make(b"notes", "notes.txt")
    yield running
    running.close()


def test_what_is_whole_is_verified(og: Run, node: ObjectNode) -> None:
    og("info", "notes.txt")
    code, out, _ = og("audit", "notes.txt")
    assert code == exits.OK
    lines = out.splitlines()
    assert lines[1].split() == ["attic", "0", "4", "whole"]
    assert lines[2].split()[:3] == ["barn", "copy", "whole"]
    assert "\x1b" not in out
    assert lines[3] == "640 bytes of questions and answers"
    assert "is verified" in lines[4]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([WHOLE, WRONG], exits.FAILED),
        ([WHOLE, MISSING], exits.FAILED),
        ([WHOLE, SILENT], exits.OK),
        ([SILENT, SILENT], exits.UNAVAILABLE),
    ],
)
def test_the_exit_code_says_how_it_ended(og: Run, node: ObjectNode, outcomes: list[int], code: int) -> None:
    node.outcomes, node.read_bytes = outcomes, 2_000
    ended, out, _ = og("audit", "notes.txt")
    assert ended == code
    assert "and 2.0 kB of shards were read" in out
    assert "is verified" not in out


def test_scripts_get_all_of_it(og: Run, node: ObjectNode) -> None:
    node.outcomes[1] = WRONG
    code, out, _ = og("--json", "audit", "notes.txt")
    answer = json.loads(out)
    assert code == exits.FAILED
    assert [host["outcome"] for host in answer["hosts"]] == ["AUDIT_OUTCOME_WHOLE", "AUDIT_OUTCOME_WRONG"]
    assert answer["traffic_bytes"] == 640


def test_info_says_when_it_was_verified(og: Run, node: ObjectNode) -> None:
    og("info", "notes.txt")
    assert "verified" not in og("info", "notes.txt")[1]
    made = next(iter(node.objects.values()))
    made.verified_us = made.acks[0].verified_us = 1_700_000_000_000_000
    out = og("info", "notes.txt")[1]
    assert "state      verified" in out
    assert "verified   20" in out
    assert out.count(", verified 20") == 1


def test_what_is_not_durable_is_not_called_verified(og: Run, node: ObjectNode) -> None:
    made = next(iter(node.objects.values()))
    made.state, node.outcomes = objects_pb2.OBJECT_STATE_ACCEPTED, [WHOLE, WHOLE]
    assert "is not durable yet: all that was acked is there" in og("audit", "notes.txt")[1]
    made.state, made.verified_us = objects_pb2.OBJECT_STATE_ACCEPTED, 1_700_000_000_000_000
    assert og("ls")[1].splitlines()[1].split()[4] == "accepted"


def test_a_list_says_verified_as_info_does(og: Run, node: ObjectNode) -> None:
    og("info", "notes.txt")
    next(iter(node.objects.values())).verified_us = 1_700_000_000_000_000
    assert og("ls")[1].splitlines()[1].split()[4] == "verified"
