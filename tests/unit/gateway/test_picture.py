"""What a page shows of a node, and what is told when it has changed."""

from __future__ import annotations

from offgrid.v1 import common_pb2, jobs_pb2, mesh_pb2
from offgrid_node.gateway.picture import Picture, changes, whole


def status(**fields: object) -> mesh_pb2.GetStatusResponse:
    return mesh_pb2.GetStatusResponse(**fields)


def peer(node_id: str, liveness: common_pb2.Liveness.ValueType) -> mesh_pb2.Peer:
    return mesh_pb2.Peer(member=mesh_pb2.Member(node_id=node_id), liveness=liveness)


ALIVE, DEAD = common_pb2.LIVENESS_ALIVE, common_pb2.LIVENESS_DEAD


def test_a_whole_picture_has_every_part() -> None:
    assert whole(Picture()) == {
        "status": None, "host": None, "peers": [], "links": [], "jobs": [], "transactions": []
    }  # fmt: skip


def test_of_lists_what_is_new_or_changed_is_told_and_what_went() -> None:
    before = Picture(peers={"a": peer("a", ALIVE), "b": peer("b", ALIVE), "c": peer("c", ALIVE)})
    after = Picture(peers={"a": peer("a", ALIVE), "b": peer("b", DEAD), "d": peer("d", ALIVE)})
    told = changes(before, after)
    assert [(each["member"]["node_id"], each["liveness"]) for each in told["peers"]] == [
        ("b", "LIVENESS_DEAD"),
        ("d", "LIVENESS_ALIVE"),
    ]
    assert told["gone"] == {"peers": ["c"]}
    assert set(told) == {"peers", "gone"}


def test_of_status_what_is_restless_is_not_told() -> None:
    before = Picture(status=status(uptime_ms=1, journal_seq=1, jobs_open=1, name="a"))
    assert changes(before, Picture(status=status(uptime_ms=2, journal_seq=2, jobs_open=1, name="a"))) == {}
    told = changes(before, Picture(status=status(uptime_ms=3, jobs_open=2, name="a")))
    assert told == {"status": {"jobs_open": 2}}


def test_a_host_that_is_none_any_more_is_null() -> None:
    host = jobs_pb2.HostState(state="on")
    assert changes(Picture(), Picture(host=host))["host"]["state"] == "on"
    assert changes(Picture(host=host), Picture()) == {"host": None}
