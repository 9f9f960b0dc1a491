"""The post: what is said to one node in one step shares a call, within bounds."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, Delete, Put, Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.orders import ORDERS
from offgrid_node.protocol.jobs.post import (
    CALL_BYTES_MAX,
    CALL_ITEMS_MAX,
    CALL_TIMEOUT_MAX_MS,
    CALL_TIMEOUT_MS,
    LATE_MAX,
    LATE_MS,
    LINK_BYTES_PER_S,
    Post,
    Starting,
    Tag,
)
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_tools.sim.crypto import SimSigner, sim_verify

SETTINGS = JobsSettings(SimSigner("core"), b"")
NOW = Now(0, 0)


def calls_of(post: Post) -> list[tuple[Call, Tag]]:
    calls = []
    for effect in post.take(NOW):
        assert isinstance(effect, Call)
        assert isinstance(effect.tag, Tag)
        calls.append((effect, effect.tag))
    return calls


def post_of(*sizes_bytes: int) -> Post:
    post = Post(SETTINGS)
    for number, size_bytes in enumerate(sizes_bytes):
        post.add("StartJobs", "host", (f"j-{number}", 1), Starting(b"", bytes(size_bytes), 0))
    return post


def test_items_for_one_node_share_a_call_and_keep_their_order() -> None:
    post = post_of(1, 2, 3)
    post.add("StartJobs", "other", ("j-o", 1), Starting(b"", b"", 0))
    calls = calls_of(post)
    assert [(call.node, [key for key, _ in tag.keys]) for call, tag in calls] == [
        ("host", ["j-0", "j-1", "j-2"]),
        ("other", ["j-o"]),
    ]
    assert post.take(NOW) == []


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

    assert CALL_TIMEOUT_MS <= timeout_ms(0) <= CALL_TIMEOUT_MS + 10
    assert timeout_ms(CALL_BYTES_MAX) >= CALL_TIMEOUT_MS + 1_000 * CALL_BYTES_MAX // LINK_BYTES_PER_S
    assert timeout_ms(10 * CALL_BYTES_MAX) == CALL_TIMEOUT_MAX_MS


class TestWhatIsLate:
    def test_goes_along_with_the_next_transaction(self) -> None:
        post = Post(SETTINGS)
        post.delete_late("t", b"old", NOW)
        assert post.take(NOW) == []
        post.put_bytes("t", b"new", b"1")
        assert post.take(NOW) == [Put("t", b"new", b"1"), Delete("t", b"old")]
        assert post.deadline_ms() is None

    def test_goes_by_itself_after_a_while(self) -> None:
        post = Post(SETTINGS)
        post.delete_late("t", b"old", NOW)
        assert post.deadline_ms() == LATE_MS
        assert post.take(Now(LATE_MS - 1, 0)) == []
        assert post.take(Now(LATE_MS, 0)) == [Delete("t", b"old")]

    def test_does_not_undo_what_was_written_after_it(self) -> None:
        post = Post(SETTINGS)
        post.delete_late("t", b"k", NOW)
        post.put_bytes("t", b"k", b"2")
        assert post.take(Now(LATE_MS, 0)) == [Put("t", b"k", b"2")]

    def test_comes_after_what_was_written_before_it(self) -> None:
        post = Post(SETTINGS)
        post.put_bytes("t", b"k", b"1")
        post.delete_late("t", b"k", NOW)
        assert post.take(NOW) == [Put("t", b"k", b"1"), Delete("t", b"k")]

    def test_may_be_an_event(self) -> None:
        post = Post(SETTINGS)
        post.tell_of_late(Record(state_pb2.Event(etype=EventType.JOB_AWARDED, subject="j-1")), NOW)
        assert post.take(NOW) == []
        (effect,) = post.take(Now(LATE_MS, 0))
        assert isinstance(effect, Record)
        assert effect.event.subject == "j-1"

    def test_is_bounded(self) -> None:
        post = Post(SETTINGS)
        for number in range(LATE_MAX + 1):
            post.delete_late("t", str(number).encode(), NOW)
        assert len(post.take(NOW)) == LATE_MAX + 1


def test_one_signature_covers_the_orders_of_a_call_and_what_is_over_goes_along() -> None:
    post = Post(SETTINGS)
    for number in range(3):
        post.add("SubmitJobs", "broker", (f"j-{number}", 1), f"order {number}".encode())
    post.closing.add("broker", ("j-old", 1), 0)
    ((call, _),) = calls_of(post)
    assert isinstance(call.request, jobs_pb2.SubmitJobsRequest)
    ORDERS.check(call.request.orders, call.request.root_signature, SETTINGS.signer.public_key, sim_verify, b"")
    assert [lease.job_id for lease in call.request.closed] == ["j-old"]


class TestOrdersOfJobsMadeInThisStep:
    """They may leave before the commit: should the batch be lost, there never were such jobs."""

    def early(self, *known: str, closed: bool = False) -> bool:
        post = Post(SETTINGS)
        if closed:
            post.closing.add("broker", ("j-old", 1), 0)
        for job_id in ("j-1", "j-2"):
            if job_id not in known:
                post.made(job_id)
            post.add("SubmitJobs", "broker", (job_id, 1), b"order")
        ((call, _),) = calls_of(post)
        return call.early

    def test_leave_early(self) -> None:
        assert self.early()

    def test_wait_where_another_order_of_the_call_has_a_past(self) -> None:
        assert not self.early("j-2")

    def test_wait_where_the_end_of_a_lease_goes_along_that_is_not_durable_itself(self) -> None:
        assert not self.early(closed=True)

    def test_leave_early_with_ends_of_earlier_steps(self) -> None:
        post = Post(SETTINGS)
        post.closing.add("broker", ("j-old", 1), 0)
        assert calls_of(post) == []
        post.made("j-1")
        post.add("SubmitJobs", "broker", ("j-1", 1), b"order")
        ((call, _),) = calls_of(post)
        assert call.early
        assert isinstance(call.request, jobs_pb2.SubmitJobsRequest)
        assert [lease.job_id for lease in call.request.closed] == ["j-old"]

    def test_have_a_past_in_the_next_step(self) -> None:
        post = Post(SETTINGS)
        post.made("j-1")
        post.take(NOW)
        post.add("SubmitJobs", "broker", ("j-1", 1), b"order")
        ((call, _),) = calls_of(post)
        assert not call.early

    def test_no_other_call_leaves_early(self) -> None:
        post = post_of(1)
        post.made("j-0")
        ((call, _),) = calls_of(post)
        assert not call.early
