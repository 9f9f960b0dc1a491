"""The same handlers, reached through lossy packets, give the same answers and faults as straight from the router."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Effect, Put, Record, Reply, Rows
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    Fault,
    FieldViolation,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.access import ACCESS
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import ADMIN, ANONYMOUS, Caller, Kind
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_road import PacketRoad
from offgrid_node.services.packet_server import PacketServer
from offgrid_node.services.packet_status import fault_from_bytes, fault_to_bytes
from offgrid_node.services.router import METHODS, Router, snake
from offgrid_node.storage.memory import MemoryStore
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.memory import Faults, MemoryNetwork, MemoryTransport
from offgrid_transports.messages import METHOD_MAX
from offgrid_transports.path import Path

MEMBER = Caller(Kind.MEMBER, "a" * 32, frozenset({CORE}))
NODE, GONE = "n" * 32, "gone" * 8
CALLERS = {"admin": ADMIN, "member": MEMBER}
ROUGH = Faults(loss=0.2, duplicate=0.1, delay_ms=10, jitter_ms=20)
JOBS, STATE, OBJECTS = "offgrid.v1.JobService", "offgrid.v1.StateService", "offgrid.v1.ObjectService"
CREATE = f"{JOBS}/CreateMission"


class VirtualClock:
    """The time, and what is to happen when."""

    def __init__(self) -> None:
        self.mono_ms = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def now(self) -> Now:
        return Now(self.mono_ms, self.mono_ms * 1000)

    def schedule(self, delay_ms: int, fn: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.mono_ms + delay_ms, next(self._order), fn))

    def run_until(self, done: Callable[[], bool], limit_ms: int = 600_000) -> None:
        while not done():
            assert self._heap, "nothing more will happen"
            self.mono_ms, _, fn = heapq.heappop(self._heap)
            assert self.mono_ms <= limit_ms, "it takes too long"
            fn()


class Missions:
    """A machine that creates missions by title; the second of a title is refused."""

    def __init__(self) -> None:
        self.titles: set[bytes] = set()

    def load(self, rows: Rows, now: Now) -> None:
        self.titles = {key for key, _ in rows.scan("missions")}

    def deadline_ms(self) -> int | None:
        return None

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        effects: list[Effect] = []
        for event in inputs:
            assert isinstance(event, Asked)
            assert isinstance(event.command, jobs_pb2.CreateMissionRequest)
            key = event.command.title.encode()
            if key in self.titles:
                fault = AlreadyExists("taken", reason="TitleTaken", retry_ms=70, metadata={"by": event.caller})
                effects.append(Reply(event.ticket, fault))
                continue
            self.titles.add(key)
            mission = jobs_pb2.Mission(title=event.command.title, created_us=now.utc_us)
            effects += [
                Record(state_pb2.Event(etype=10, subject=event.command.title)),
                Put("missions", key, mission.SerializeToString()),
                Reply(event.ticket, jobs_pb2.CreateMissionResponse(mission=mission)),
            ]
        return effects


class Handlers:
    """What the RPCs of this test do; those that it does not name answer with an empty response."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def create_mission(self, caller: Caller, request: jobs_pb2.CreateMissionRequest) -> Ticket:
        if not request.title:
            raise InvalidRequest(
                "two fields", violations=[FieldViolation("title", "is empty"), FieldViolation("x", "y")]
            )
        return self._runtime.ask("jobs", str(caller), request)

    def get_capacity(self, caller: Caller, request: Message) -> Message:
        return objects_pb2.GetCapacityResponse(disk_free_bytes=7)

    def list_events(self, caller: Caller, request: state_pb2.ListEventsRequest) -> Message:
        return state_pb2.ListEventsResponse(next_page_token="t" * request.page_size)

    def list_jobs(self, caller: Caller, request: Message) -> Message:
        raise ZeroDivisionError("a defect")


class World:
    """A node that serves on one end of a network, and a road from the other end."""

    def __init__(self, seed: int = 1, *, mtu_bytes: int = 1200, limits: Limits | None = None) -> None:
        self.clock = VirtualClock()
        rng = Random(seed)
        self.store = MemoryStore()
        turn = self.clock.schedule
        self.runtime = Runtime(
            lambda: {"jobs": Missions()},
            self.store,
            self.clock,
            rng,
            outlet=NoOutlet(),
            on_input=lambda: turn(0, self.runtime.turn),
        )
        handlers = Handlers(self.runtime)
        for method in METHODS.values():
            name = snake(method.name.partition("/")[2])
            if not hasattr(handlers, name):
                setattr(handlers, name, lambda caller, request, response=method.response: response())
        self.router = Router({name.partition("/")[0]: handlers for name in METHODS})
        self.ends: dict[str, MemoryTransport] = {}
        self.net = MemoryNetwork(rng, self.clock.schedule, mtu_bytes=mtu_bytes, faults=ROUGH)
        keys = {name: X25519PrivateKey.generate() for name in (NODE, GONE, "admin", "member", "stranger")}
        public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
        known = {public[name]: name for name in CALLERS}
        self.node = self._endpoint(keys[NODE], "node", known.get, rng)
        PacketServer(self.node, self.router, CALLERS.get, self.clock, limits=limits)
        self.endpoints = {
            name: self._endpoint(keys[name], name, known.get, rng) for name in ("admin", "member", "stranger")
        }
        for name, endpoint in self.endpoints.items():
            endpoint.introduce(NODE, public[NODE], Path(self.ends[name], "node"))
            endpoint.introduce(GONE, public[GONE], Path(self.ends[name], "nowhere"))
        self.roads = {name: PacketRoad(endpoint) for name, endpoint in self.endpoints.items()}

    def _endpoint(
        self, key: X25519PrivateKey, address: str, identify: Callable[[bytes], str | None], rng: Random
    ) -> Endpoint:
        clock, end = self.clock, self.net.attach(address)
        own, stamps = Own(key, bytes(32)), itertools.count()
        endpoint = Endpoint(own, identify, lambda: clock.mono_ms, clock.schedule, rng, lambda: next(stamps))
        endpoint.attach(end)
        self.ends[address] = end
        return endpoint

    def begin(
        self, who: str, method: str, request: Message, timeout_ms: int = 600_000, node: str = NODE
    ) -> list[Message | Fault]:
        ends: list[Message | Fault] = []
        self.roads[who].call(node, method, request, timeout_ms, ends.append)
        return ends

    def over_packets(self, who: str, method: str, request: Message, timeout_ms: int = 600_000) -> Message | Fault:
        ends = self.begin(who, method, request, timeout_ms)
        self.clock.run_until(lambda: bool(ends))
        assert len(ends) == 1
        return ends[0]

    def directly(self, who: str, method: str, request: Message) -> Message | Fault:
        ends: list[Message | Fault] = []
        try:
            outcome = self.router.dispatch(CALLERS.get(who, ANONYMOUS), method, request.SerializeToString())
        except Fault as fault:
            return fault
        if isinstance(outcome, Ticket):
            outcome.when_done(ends.append)
            self.clock.run_until(lambda: bool(ends))
            return ends[0]
        assert isinstance(outcome, Message)
        return outcome


class NoOutlet:
    def call(self, call: object) -> None:
        raise AssertionError("this machine calls nobody")

    def execute(self, work: object) -> None:
        raise AssertionError("this machine executes nothing")


def told(outcome: Message | Fault) -> object:
    """What a caller can see of an outcome."""
    if isinstance(outcome, Fault):
        return (
            type(outcome),
            outcome.message,
            outcome.reason,
            outcome.violations,
            outcome.retry_ms,
            outcome.metadata,
        )
    return outcome


def unknown_field() -> Message:
    request = objects_pb2.GetCapacityRequest()
    request.MergeFromString(b"\x08\x01")
    return request


CASES = {
    "an answer at once": ("member", f"{OBJECTS}/GetCapacity", objects_pb2.GetCapacityRequest()),
    "an empty answer": ("member", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest()),
    "fields that were wrong": ("admin", CREATE, jobs_pb2.CreateMissionRequest()),
    "no access": ("member", CREATE, jobs_pb2.CreateMissionRequest(title="a")),
    "a stranger's access": ("stranger", f"{OBJECTS}/GetCapacity", objects_pb2.GetCapacityRequest()),
    "a stranger who joins": ("stranger", "offgrid.v1.JoinService/Join", mesh_pb2.JoinRequest(invite_id=b"x")),
    "an unknown field of a person": ("admin", f"{OBJECTS}/GetCapacity", unknown_field()),
    "an unknown field of a member": ("member", f"{OBJECTS}/GetCapacity", unknown_field()),
}


@pytest.mark.parametrize(("who", "method", "request_"), CASES.values(), ids=CASES.keys())
def test_packets_answer_as_the_router_does(who: str, method: str, request_: Message) -> None:
    world = World()
    assert told(world.over_packets(who, method, request_)) == told(world.directly(who, method, request_))


@pytest.mark.parametrize("seed", range(10))
def test_what_is_asked_of_the_machine_is_done_once_and_answered_after_the_commit(seed: int) -> None:
    world = World(seed)
    request = jobs_pb2.CreateMissionRequest(title="harvest")
    outcome = world.over_packets("admin", CREATE, request)
    assert isinstance(outcome, jobs_pb2.CreateMissionResponse)
    assert outcome.mission.title == "harvest"
    assert world.store.journal_seq == 1
    again = world.over_packets("admin", CREATE, request)
    assert isinstance(again, AlreadyExists)
    assert told(again) == told(world.directly("admin", CREATE, request))
    assert (again.reason, again.retry_ms, again.metadata) == ("TitleTaken", 70, {"by": "admin"})


def test_many_calls_at_once_are_each_done_once() -> None:
    world = World(5)
    ends = [world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest(title=f"m{n}")) for n in range(300)]
    world.clock.run_until(lambda: all(ends))
    assert all(isinstance(end[0], jobs_pb2.CreateMissionResponse) for end in ends)
    assert world.store.journal_seq == 300


def test_a_megabyte_is_fragmented_and_comes_whole() -> None:
    world = World(mtu_bytes=254)
    outcome = world.over_packets("admin", f"{STATE}/ListEvents", state_pb2.ListEventsRequest(page_size=1_000_000))
    assert isinstance(outcome, state_pb2.ListEventsResponse)
    assert outcome.next_page_token == "t" * 1_000_000
    assert world.net.frames_sent > 1_000_000 // 254


def test_an_answer_comes_in_blocks_that_is_too_long_for_one_message() -> None:
    outcome = World().over_packets("admin", f"{STATE}/ListEvents", state_pb2.ListEventsRequest(page_size=5_000_000))
    assert isinstance(outcome, state_pb2.ListEventsResponse)
    assert outcome.next_page_token == "t" * 5_000_000


def test_a_request_goes_in_blocks_that_is_too_long_for_one_message() -> None:
    request = jobs_pb2.CreateMissionRequest(title="long", description="x" * 5_000_000)
    assert isinstance(World().over_packets("admin", CREATE, request), jobs_pb2.CreateMissionResponse)


def test_an_answer_too_large_is_refused_and_says_what_to_do() -> None:
    outcome = World().over_packets("admin", f"{STATE}/ListEvents", state_pb2.ListEventsRequest(page_size=17_000_000))
    assert isinstance(outcome, Exhausted)
    assert outcome.reason == "ResponseTooLarge"
    assert "smaller page" in outcome.message


def test_a_request_too_large_is_refused_before_it_is_sent() -> None:
    world = World()
    ends = world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest(description="x" * 17_000_000))
    assert isinstance(ends[0], Exhausted)
    assert ends[0].reason == "RequestTooLarge"
    assert world.net.frames_sent == 0


def raw_call(world: World, who: str, number: int, body: bytes) -> Fault:
    faults: list[Fault] = []
    world.endpoints[who].call(NODE, number, body, 60_000, lambda reply: faults.append(fault_from_bytes(reply.body)))
    world.clock.run_until(lambda: bool(faults))
    return faults[0]


def test_bytes_that_are_no_request_and_numbers_that_are_no_method_are_refused() -> None:
    malformed = raw_call(World(), "member", METHOD_NUMBERS[f"{OBJECTS}/GetCapacity"], b"\xff")
    assert (type(malformed), malformed.reason) == (InvalidRequest, "MalformedRequest")
    unknown = raw_call(World(), "member", 0x0FFF, b"")
    assert (type(unknown), unknown.reason) == (NotFound, "UnknownMethod")


def test_a_defect_in_a_handler_is_answered_without_its_details_and_harms_nobody_else() -> None:
    world = World()
    outcome = world.over_packets("admin", f"{JOBS}/ListJobs", jobs_pb2.ListJobsRequest())
    assert isinstance(outcome, Internal)
    assert "ZeroDivision" not in outcome.message
    assert isinstance(
        world.over_packets("admin", f"{OBJECTS}/GetCapacity", objects_pb2.GetCapacityRequest()),
        objects_pb2.GetCapacityResponse,
    )


def test_whoever_calls_too_often_is_told_to_come_back() -> None:
    world = World(limits=Limits(calls_per_s=1, burst_calls=3))
    ping = ("offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest())
    ends = [world.begin("member", *ping) for _ in range(4)]
    world.clock.run_until(lambda: all(ends))
    refused = [end[0] for end in ends if isinstance(end[0], Exhausted)]
    assert [fault.reason for fault in refused] == ["RateLimited"]
    other = world.over_packets("admin", f"{OBJECTS}/GetCapacity", objects_pb2.GetCapacityRequest())
    assert not isinstance(other, Fault), "others are served"


def test_nobody_there_is_told_soon_and_no_address_is_no_road() -> None:
    world = World()
    ends = world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest(title="a"), 5000, node=GONE)
    world.clock.run_until(lambda: bool(ends))
    assert isinstance(ends[0], OutcomeUnknown), "it left with the hello"
    assert world.clock.mono_ms <= 5000
    assert not world.roads["admin"].reaches("unheard of")
    assert isinstance(world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest(), node="unheard of")[0], Unavailable)


def test_closing_a_link_ends_what_is_under_way() -> None:
    world = World()
    assert not isinstance(world.over_packets("admin", CREATE, jobs_pb2.CreateMissionRequest(title="a")), Fault)
    ends = world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest(title="b"))
    world.endpoints["admin"].close()
    world.endpoints["admin"].close()
    assert isinstance(ends[0], OutcomeUnknown)
    assert not world.roads["admin"].reaches(NODE)
    assert isinstance(world.begin("admin", CREATE, jobs_pb2.CreateMissionRequest())[0], Unavailable)


def test_every_method_has_one_number_beside_those_of_the_carrier() -> None:
    assert set(METHOD_NUMBERS) == set(METHODS)
    assert len(set(METHOD_NUMBERS.values())) == len(METHOD_NUMBERS)
    assert all(0x0100 <= number <= METHOD_MAX for number in METHOD_NUMBERS.values())


def every_access() -> Iterator[tuple[str, str]]:
    for method in METHODS:
        if not METHODS[method].streaming:
            for who in ("admin", "member", "stranger"):
                yield who, method


def test_the_access_table_holds_for_every_method_and_caller() -> None:
    world = World(limits=Limits(calls_per_s=10_000, burst_calls=10_000))
    ends = {(who, method): world.begin(who, method, METHODS[method].request()) for who, method in every_access()}
    world.clock.run_until(lambda: all(ends.values()))
    standings = {"admin": {"admin"}, "member": {"member", "core"}, "stranger": {"anonymous"}}
    for (who, method), end in ends.items():
        denied = isinstance(end[0], PermissionDenied)
        assert denied == (not ACCESS[method].callers & standings[who]), (who, method)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x08\x05", b"\x08\x00", b"\x08\x63"])
def test_an_error_that_makes_no_sense_is_the_peers_fault(raw: bytes) -> None:
    assert fault_from_bytes(raw).reason == "MalformedStatus"


def test_a_long_fault_is_cut_to_a_few_kilobytes() -> None:
    fault = InvalidRequest(
        "m" * 9000, violations=[FieldViolation("f" * 900, "d" * 900)] * 90, metadata={"k": "v" * 900}
    )
    assert len(fault_to_bytes(fault)) < 8192
    assert isinstance(fault_from_bytes(fault_to_bytes(fault)), InvalidRequest)
