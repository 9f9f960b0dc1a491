"""Frames that a relay hands on: the urgent first, each flow in its order, and counted for whom they are."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_tools.emulators.relay_mesh import RadioMesh
from offgrid_transports.calls import End, Reply
from offgrid_transports.relay.circuits import SHORT_FRAME_BYTES, Way
from offgrid_transports.relay.frames import hop_of
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.link import WAYS
from offgrid_transports.relay.queueing import QUEUE_MAX, Queue, Queued
from offgrid_transports.relay.switch import RELAYED_FOR
from offgrid_transports.session import ASKS, FRAME_TYPE, MORE
from offgrid_transports.transport import Priority

CONTROL, PAYMENT, JOB, BULK = Priority
PRIORITIES = st.sampled_from(Priority)


def queued(name: str, priority: Priority, flow: str = "", who: str = "") -> Queued:
    return Queued(flow or name, "*", name.encode(), priority, who or name)


def drained(queue: Queue) -> list[str]:
    out = []
    while (first := queue.first()) is not None:
        queue.sent(first)
        out.append(first.frame.decode())
    return out


def test_control_goes_before_payment_before_job_before_bulk() -> None:
    queue = Queue()
    for name, priority in (("b", BULK), ("j", JOB), ("p", PAYMENT), ("c", CONTROL)):
        assert queue.add(queued(name, priority))
    assert drained(queue) == ["c", "p", "j", "b"]


def test_each_has_its_turn_where_that_is_equal() -> None:
    queue = Queue()
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(queued(name, JOB, flow=name[0], who=name[0]))
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_what_stands_before_an_urgent_frame_of_its_flow_leaves_before_it() -> None:
    queue = Queue()
    for name, priority in (("x", JOB), ("f1", BULK), ("f2", CONTROL)):
        queue.add(queued(name, priority, flow=name[0]))
    assert drained(queue) == ["f1", "f2", "x"]


@given(st.lists(st.tuples(st.sampled_from("xyz"), PRIORITIES), max_size=80))
def test_no_flow_is_ever_reordered(frames: list[tuple[str, Priority]]) -> None:
    queue = Queue()
    for number, (flow, priority) in enumerate(frames):
        queue.add(queued(f"{flow}{number}", priority, flow=flow, who=flow))
    left = drained(queue)
    assert len(left) == min(len(frames), QUEUE_MAX)
    for flow in "xyz":
        numbers = [int(name[1:]) for name in left if name[0] == flow]
        assert numbers == sorted(numbers)


def test_when_it_is_full_whoever_has_most_of_what_is_least_urgent_loses_the_last_of_it() -> None:
    queue = Queue()
    for number in range(QUEUE_MAX - 1):
        queue.add(queued(f"{number}", BULK, flow="greedy", who="greedy"))
    assert queue.add(queued("modest", BULK))
    assert queue.add(queued("control", CONTROL))
    assert not queue.add(queued("more", BULK, flow="greedy", who="greedy"))
    left = drained(queue)
    assert (left[:2], len(left)) == (["control", "0"], QUEUE_MAX)
    assert "modest" in left
    assert f"{QUEUE_MAX - 2}" not in left


@pytest.mark.parametrize(
    ("frames", "urgencies"),
    [
        ([(MORE, 200), (MORE, 200), (ASKS, 200), (ASKS, 20), (0, 20)], [BULK, BULK, BULK, BULK, CONTROL]),
        ([(ASKS, 200), (ASKS, 20), (0, 20)], [JOB, JOB, CONTROL]),
        ([(0, SHORT_FRAME_BYTES), (0, SHORT_FRAME_BYTES + 1)], [CONTROL, JOB]),
    ],
)
def test_how_urgent_a_frame_is_shows_in_its_length_and_its_burst(
    frames: list[tuple[int, int]], urgencies: list[Priority]
) -> None:
    way = Way()
    assert [way.urgency(bytes([FRAME_TYPE | flags]) + bytes(length - 1)) for flags, length in frames] == urgencies


def test_the_air_of_each_link_is_counted_for_whom_it_was() -> None:
    mesh = RadioMesh(3)
    mesh.beacons()
    first, relay, last = mesh.nodes
    for _ in range(2):
        assert mesh.asked(first, last.name, b"well?").end is End.OK
        mesh.run(60)
    own, handed_on = first.relay.spending(first.links[0]), relay.relay.spending(relay.links[0])
    assert {who for who, _ in own.last_hour(mesh.now_ms())} == {WAYS, name_of(last.public).hex()}
    relayed_for = {who for who, _ in handed_on.last_hour(mesh.now_ms())} - {WAYS}
    assert relayed_for <= {RELAYED_FOR + hop_of(name_of(node.public)).hex() for node in (first, last)}
    assert relayed_for
    counted_ms = sum(
        sum(spent.last_hour(mesh.now_ms()).values())
        for node in mesh.nodes
        for spent in (node.relay.spending(node.links[0]), node.endpoint.spending(node.links[0]))
    )
    assert counted_ms == pytest.approx(mesh.air_ms, rel=1e-6)


@pytest.mark.parametrize("seed", range(1, 4))
def test_calls_to_several_over_one_radio_do_not_talk_into_each_others_answers(seed: int) -> None:
    """Four in a row, each called four times, all at once. With an ear for each of its own it takes 25 s of air."""
    mesh = RadioMesh(5, seed)
    mesh.beacons()
    first, *others = mesh.nodes
    for other in others:
        mesh.asked(first, other.name, b"")
    mesh.run(30)
    ends: list[Reply] = []
    before_ms = mesh.air_ms

    def ended(name: str, left: int, reply: Reply) -> None:
        ends.append(reply)
        if left:
            first.call(name, Random(left).randbytes(60), 300_000, partial(ended, name, left - 1))

    for other in others:
        first.call(other.name, Random(4).randbytes(60), 300_000, partial(ended, other.name, 3))
    mesh.run(240)
    assert [reply.end for reply in ends] == [End.OK] * 16
    assert mesh.air_ms - before_ms < 22_000
