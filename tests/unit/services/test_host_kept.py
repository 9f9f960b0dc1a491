"""What a host's owner is told of what it keeps for others, and when a drain is over."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.mesh.swim import ALIVE, DEAD
from offgrid_node.protocol.objects.commands import DropKept
from offgrid_node.protocol.objects.inventory import NOTHING_KEPT, Holding, counted, sum_key
from offgrid_node.protocol.objects.tables import GIVEN, GONE, INVENTORY_SUMS, KEPT, KEPT_BYTES, number_key
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.jobs.host_service import HostHandlers
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

SOME = counted(NOTHING_KEPT, Holding("o-1", (0,)), 1)


class House:
    """A host as its machines tell of it, with a store of its own; `alive` and `members` are whom it knows."""

    def __init__(self, state: str) -> None:
        self.store, self.clock, self.state = MemoryStore(), SimpleNamespace(now=lambda: None), state
        self.alive, self.members = {"here"}, {"here", "away"}
        self.watched: dict[tuple[str, bytes], Callable[[], None]] = {}
        self.asked = list[tuple[str, object]]()

    def machine(self, domain: str, kind: type) -> Any:
        if kind is JobsMachine:
            described = jobs_pb2.HostState(state=self.state, detail="as it is")
            duty = SimpleNamespace(asked=DRAIN)
            return SimpleNamespace(host=SimpleNamespace(describe=lambda now: described, duty=duty))
        assert kind is MeshMachine
        directory = SimpleNamespace(
            is_member=lambda node: node in self.members, resolve=lambda text, removed: text if removed else ""
        )
        return SimpleNamespace(directory=directory, liveness=lambda node: ALIVE if node in self.alive else DEAD)

    def keeps(self, owner: str, size_bytes: int, summary: bytes = SOME) -> None:
        writes: dict[tuple[str, bytes], bytes | None] = {
            (INVENTORY_SUMS, sum_key(KEPT, owner)): summary,
            (INVENTORY_SUMS, sum_key(GIVEN, owner)): SOME,
            (KEPT_BYTES, owner.encode()): number_key(size_bytes),
        }
        self.store.commit(Batch(writes=writes))
        for name in writes.keys() & self.watched.keys():
            self.watched[name]()

    def ask(self, domain: str, caller: str, command: object) -> Ticket:
        self.asked.append((domain, command))
        return Ticket()

    def watch(self, watcher: object) -> Callable[[], None]:
        """No event comes."""
        return lambda: None

    def watch_row(self, table: str, key: bytes, changed: Callable[[], None]) -> Callable[[], None]:
        self.watched[table, key] = changed

        def end() -> None:
            del self.watched[table, key]

        return end

    def shown(self) -> jobs_pb2.HostState:
        handlers = HostHandlers(self)  # type: ignore[arg-type]
        answer = handlers.get_host(ADMIN, jobs_pb2.GetHostRequest())
        assert isinstance(answer, jobs_pb2.GetHostResponse)
        return answer.host


def test_it_is_told_for_whom_and_who_is_there() -> None:
    house = House("on")
    house.keeps("here", 10)
    house.keeps("away", 20)
    house.keeps("none", 0, NOTHING_KEPT)
    state = house.shown()
    assert [(kept.owner, kept.objects, kept.bytes, kept.alive) for kept in state.kept] == [
        ("away", 1, 20, False),
        ("here", 1, 10, True),
    ]
    assert (state.state, state.detail) == ("on", "as it is")


@pytest.mark.parametrize("state", ["draining", "drained"])
def test_a_drain_goes_on_while_a_member_has_something_here(state: str) -> None:
    house = House(state)
    house.keeps("here", 10)
    house.keeps("away", 20)
    shown = house.shown()
    assert shown.state == "draining"
    assert shown.detail.endswith("; objects left: 2, 30 bytes; owners that are away: away")


def test_a_drain_does_not_wait_for_whoever_was_removed() -> None:
    house = House("drained")
    house.keeps("gone", 10)
    shown = house.shown()
    assert shown.state == "drained"
    assert [kept.removed for kept in shown.kept] == [True]


def test_since_when_an_owner_is_gone_is_told() -> None:
    house = House("on")
    house.keeps("gone", 10)
    house.store.commit(Batch(writes={(GONE, b"gone"): number_key(77)}))
    assert [kept.gone_us for kept in house.shown().kept] == [77]


def test_only_what_is_kept_for_no_member_is_dropped() -> None:
    house = House("on")
    handlers = HostHandlers(house)  # type: ignore[arg-type]
    with pytest.raises(FailedPrecondition, match="is a member") as caught:
        handlers.drop_kept(ADMIN, jobs_pb2.DropKeptRequest(owner="away"))
    assert (caught.value.reason, house.asked) == ("StillMember", [])
    handlers.drop_kept(ADMIN, jobs_pb2.DropKeptRequest(owner="gone"))
    assert house.asked == [("objects", DropKept("gone"))]


def test_whoever_waits_for_a_drain_hears_its_end_though_no_event_says_so() -> None:
    house = House("drained")
    house.keeps("here", 20)
    house.keeps("away", 10)
    stream = HostHandlers(house).watch_drain(ADMIN, jobs_pb2.WatchDrainRequest())  # type: ignore[arg-type]
    house.keeps("here", 0, NOTHING_KEPT)
    assert not stream.ended
    house.keeps("away", 0, NOTHING_KEPT)
    assert [message.host.state for message in stream.take()] == ["draining", "draining", "drained"]
    assert stream.ended
    assert not house.watched, "nobody looks any more"
