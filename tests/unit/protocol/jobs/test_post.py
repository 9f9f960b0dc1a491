"""The post: what is said to one node in one step shares a call, within bounds."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.jobs.post import (
    CALL_BYTES_MAX,
    CALL_ITEMS_MAX,
    CALL_TIMEOUT_MAX_MS,
    CALL_TIMEOUT_MS,
    LINK_BYTES_PER_S,
    Post,
    Tag,
)


def calls_of(post: Post) -> list[tuple[Call, Tag]]:
    calls = []
    for effect in post.take():
        assert isinstance(effect, Call)
        assert isinstance(effect.tag, Tag)
        calls.append((effect, effect.tag))
    return calls


def post_of(*sizes_bytes: int) -> Post:
    post = Post()
    for number, size_bytes in enumerate(sizes_bytes):
        post.add("StartJobs", "host", (f"j-{number}", 1), jobs_pb2.StartJob(payload=bytes(size_bytes)))
    return post


def test_items_for_one_node_share_a_call_and_keep_their_order() -> None:
    post = post_of(1, 2, 3)
    post.add("StartJobs", "other", ("j-o", 1), jobs_pb2.StartJob())
    calls = calls_of(post)
    assert [(call.node, [key for key, _ in tag.keys]) for call, tag in calls] == [
        ("host", ["j-0", "j-1", "j-2"]),
        ("other", ["j-o"]),
    ]
    assert post.take() == []


def test_a_call_has_no_more_items_than_its_bound() -> None:
    calls = calls_of(post_of(*[1] * (2 * CALL_ITEMS_MAX + 1)))
    assert [len(tag.keys) for _, tag in calls] == [CALL_ITEMS_MAX, CALL_ITEMS_MAX, 1]


def test_a_call_has_no_more_bytes_than_its_bound() -> None:
    third = CALL_BYTES_MAX // 3
    calls = calls_of(post_of(third, third, third, third))
    assert [len(tag.keys) for _, tag in calls] == [2, 2]
    assert all(call.request.ByteSize() < CALL_BYTES_MAX for call, _ in calls)


def test_an_item_larger_than_the_bound_goes_alone() -> None:
    calls = calls_of(post_of(1, CALL_BYTES_MAX + 1, 1))
    assert [len(tag.keys) for _, tag in calls] == [1, 1, 1]


def test_a_call_has_time_for_its_bytes_on_a_modest_link_and_never_more_than_its_bound() -> None:
    def timeout_ms(size_bytes: int) -> int:
        return calls_of(post_of(size_bytes))[0][0].timeout_ms

    assert timeout_ms(0) == CALL_TIMEOUT_MS
    assert timeout_ms(CALL_BYTES_MAX) >= CALL_TIMEOUT_MS + 1_000 * CALL_BYTES_MAX // LINK_BYTES_PER_S
    assert timeout_ms(10 * CALL_BYTES_MAX) == CALL_TIMEOUT_MAX_MS
