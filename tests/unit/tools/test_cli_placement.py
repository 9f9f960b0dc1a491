"""`offgrid placement explain`: what is asked, and what people and scripts read of the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from small_node import NODE_ID, OTHER_ID
from small_objects import ObjectNode

from offgrid.command_line import exits
from offgrid.v1 import objects_pb2
from offgrid_tools.cli import run


@pytest.fixture
def objects() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], objects: ObjectNode):  # type: ignore[no-untyped-def]
    def command(*argv: str) -> tuple[int, str, str]:
        code = run(["--socket", objects.address, "placement", "explain", *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_of_an_object_that_might_be_put(og, objects: ObjectNode) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = og("--size", "100", "--code", "12/20", "--policy", "bandwidth", "--padded")
    assert code == exits.OK
    (asked,) = objects.calls["ExplainPlacement"]
    assert (asked.object, asked.size_bytes, asked.copies) == ("", 100, 0)
    assert asked.padded
    assert (asked.code.needed, asked.code.total) == (12, 20)
    assert asked.policy == objects_pb2.PLACEMENT_POLICY_BANDWIDTH
    lines = out.splitlines()
    assert lines[1].split(maxsplit=2)[2] == "any 12 of 20 shards, each shard 100 bytes"
    assert "policy          bandwidth" in lines
    assert "without a host  11 of 20" in lines
    assert "not shown       3 hosts" in lines
    attic, other = lines[-2:]
    for word in ("attic", "home", "gets", "0 1 2 3 4 5 …", "5.0 MB", "12.0 ms", "3.0 MB/s", "in domain home, with 8"):
        assert word in attic
    assert other.split()[:4] == [OTHER_ID[:12], "not", "alive", "9"]


def test_of_one_that_is(og, objects: ObjectNode) -> None:  # type: ignore[no-untyped-def]
    out = og("notes")[1]
    (asked,) = objects.calls["ExplainPlacement"]
    assert asked == objects_pb2.ExplainPlacementRequest(object="notes")
    assert "a copy" in out


def test_scripts_get_all_of_it(og) -> None:  # type: ignore[no-untyped-def]
    answer = json.loads(og("--size", "7", "--copies", "2", "--json")[1])
    assert (answer["copies"], answer["part_bytes"], answer["unplaced"]) == (2, 7, 11)
    assert answer["policy"] == "PLACEMENT_POLICY_UNSPECIFIED"
    assert (answer["hosts"][0]["node_id"], answer["hosts"][0]["gets"]) == (NODE_ID, [*range(8)])
    assert answer["hosts"][1]["outcome"] == "PLACEMENT_OUTCOME_NOT_ALIVE"
    assert "room_bytes" not in answer["hosts"][1], "not known"


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("notes", "--size", "1"),
        ("notes", "--copies", "1"),
        ("notes", "--exact"),
        ("notes", "--code", "1/2"),
        ("--size", "1", "--code", "1/2", "--copies", "2"),
        ("--size", "-1"),
        ("--size", "1", "--policy", "best"),
        *(("--size", "1", "--code", wrong) for wrong in ("", "4", "4/4", "0/4", "4/129", "a/b", "4/7/9", "-1/4")),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(og, objects: ObjectNode, argv: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert og(*argv)[0] == exits.USAGE
    assert objects.calls["ExplainPlacement"] == []
