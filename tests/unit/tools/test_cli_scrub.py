"""`offgrid scrub`: what a host's disk still has, for people, for scripts, and by the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_run import Run
from small_node import OTHER_ID
from small_objects import ObjectNode

from offgrid.command_line import exits
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


def rot(node: ObjectNode) -> None:
    node.rotten.append(objects_pb2.DamagedShard(object_id="o-\x1b[2Jabc", shard=4, owner=OTHER_ID))


def test_a_sound_disk(og: Run, node: ObjectNode) -> None:
    assert og("scrub")[:2] == (exits.OK, "2 shards, 2.0 kB read: 0 damaged or gone\n")
    assert (node.scrubs[0].object, node.scrubs[0].bytes_per_s) == ("", 0)


def test_what_is_damaged_is_named_with_its_owner(og: Run, node: ObjectNode) -> None:
    rot(node)
    code, out, _ = og("scrub", "o-abcdef", "--mb-per-s", "2.5")
    assert code == exits.FAILED
    assert out.splitlines() == [
        "o-�[2Jabc shard 4, kept for barn, is damaged or gone",
        "2 shards, 2.0 kB read: 1 damaged or gone; the owners are told",
    ]
    assert (node.scrubs[0].object, node.scrubs[0].bytes_per_s) == ("o-abcdef", 2_500_000)


def test_what_could_not_be_read_says_nothing(og: Run, node: ObjectNode) -> None:
    node.unread = 3
    code, out, _ = og("scrub")
    assert code == exits.UNAVAILABLE
    assert "0 damaged or gone, 3 could not be read for now" in out


def test_scripts_get_a_line_for_each_message(og: Run, node: ObjectNode) -> None:
    rot(node)
    code, out, _ = og("--json", "scrub")
    said = [json.loads(line) for line in out.splitlines()]
    assert code == exits.FAILED
    assert [each["read_bytes"] for each in said] == [0, 1_000, 2_000]
    assert said[1]["damaged"] == [{"object_id": "o-\x1b[2Jabc", "shard": 4, "owner": OTHER_ID}]
    assert said[2]["done"] is True


def test_a_second_one_is_refused(og: Run, node: ObjectNode) -> None:
    node.stumble("ScrubReplicas", FailedPrecondition("a scrub is under way", reason="ScrubUnderWay"))
    code, _, err = og("scrub")
    assert code == exits.REFUSED
    assert "under way" in err


@pytest.mark.parametrize("rate", ["0", "nan", "-1", "much"])
def test_a_rate_that_is_none(og: Run, rate: str) -> None:
    assert og("scrub", "--mb-per-s", rate)[0] == exits.USAGE


def test_what_is_found_before_it_broke_off_is_said_and_the_end_is_an_error(og: Run, node: ObjectNode) -> None:
    def broken(request, context):
        yield objects_pb2.ScrubReplicasResponse(
            damaged=[objects_pb2.DamagedShard(object_id="o-abc", owner=OTHER_ID)], damaged_total=1
        )
        raise FailedPrecondition("this node is stopping", reason="Stopping")

    node.on_ScrubReplicas = broken
    code, out, err = og("scrub")
    assert code == exits.REFUSED
    assert out == "o-abc shard 0, kept for barn, is damaged or gone\n"
    assert "stopping" in err
