"""What a relay does for others is shared among them: nobody is kept out, neither by many who are honest nor by the
greedy."""

from __future__ import annotations

from collections import Counter

import pytest

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.relay_mesh import SF7, MemoryMesh, Mesh, RadioMesh, RelayNode
from offgrid_transports.calls import End, Reply
from offgrid_transports.memory import Faults
from offgrid_transports.relay.budget import DEPTH_MS, SHARE, SHARERS_MAX, Share, Shares
from offgrid_transports.relay.frames import Ask, Kind, Short
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.link import ASKS, CARRIED, OPENS, REPLIES
from offgrid_transports.session import FRAME_TYPE
from offgrid_transports.transport import BROADCAST, Priority

SPAN_MS = 1_200_000
DUTY = 0.1


@pytest.mark.parametrize(("share", "air_ms"), [(ASKS, 60.0), (OPENS, 250.0)])
def test_the_greedy_keep_nobody_out_who_takes_less_than_a_fair_part(share: Share, air_ms: float) -> None:
    shares, taken = Shares(0, share), Counter[bool]()
    greedy_ms = 0.0
    for now_ms in range(0, SPAN_MS, 100):
        greedy_ms += air_ms * sum(shares.take(now_ms, number, air_ms) for number in range(6))
        if now_ms % 30_000 == 0:
            taken[shares.take(now_ms, "modest", air_ms)] += 1
    assert taken == {True: SPAN_MS // 30_000}
    spent_ms = greedy_ms + air_ms * taken[True]
    assert 0.9 * share.whole * SPAN_MS < spent_ms < 1.1 * share.whole * SPAN_MS


def test_so_do_more_than_are_remembered_take_the_whole_and_no_more() -> None:
    share, air_ms = ASKS, 60.0
    shares, spent_ms = Shares(0, share), 0.0
    for now_ms in range(0, SPAN_MS, 100):
        spent_ms += air_ms * shares.take(now_ms, now_ms % (100 * 4 * SHARERS_MAX), air_ms)
        assert len(shares) <= SHARERS_MAX
    assert spent_ms < 1.1 * share.whole * SPAN_MS + SHARERS_MAX * air_ms


def test_one_alone_takes_its_own_share_and_no_more() -> None:
    shares = Shares(0, OPENS)
    spent_ms = sum(250.0 * shares.take(now_ms, "one", 250.0) for now_ms in range(0, SPAN_MS, 100))
    assert spent_ms == pytest.approx(OPENS.one * SPAN_MS, rel=0.05)


def test_the_spokes_of_a_hub_all_call_others_at_once() -> None:
    spokes, calls = 20, 5
    mesh = MemoryMesh(spokes + 1, faults=Faults(delay_ms=5))
    mesh.hears = lambda one, other: 0 in (one, other)
    for node in mesh.nodes:
        node.beacon()
    mesh.run(2)
    ends = Counter[End]()

    def done(reply: Reply) -> None:
        ends[reply.end] += 1

    for at in range(1, spokes + 1):
        for further in range(calls):
            mesh.nodes[at].call(f"n{(at + further) % spokes + 1}", b"x", 60_000, done)
    mesh.run(65)
    assert ends == {End.OK: spokes * calls}
    assert mesh.total("searches_failed") == 0


@pytest.mark.parametrize(("kind", "every_s"), [(Kind.ASK, 3.0), (Kind.OPEN, 1.2)])
def test_a_recording_keeps_nobody_from_looking_for_ways(kind: Kind, every_s: float) -> None:
    """Neither whose question it is, by the share of whom it seems to come from, nor anybody at the relay, by what that
    says because of it."""
    mesh = RadioMesh(6)
    edges = {(0, 1), (1, 2), (1, 3), (1, 4), (4, 5)}
    mesh.hears = lambda one, other: (min(one, other), max(one, other)) in edges
    mesh.beacons()
    first, relay = mesh.nodes[:2]
    hear, heard = relay.links[0].on_frame, list[bytes]()

    def listen(address: str, frame: bytes) -> None:
        if frame[0] == kind:
            heard.append(frame)
        hear(address, frame)

    relay.links[0].on_frame = listen
    assert mesh.asked(first, "n2", b"x").end is End.OK
    mesh.run(300)
    mesh.beacons()
    recording, ended = heard[-1], list[End]()
    for _ in range(100):
        hear(BROADCAST, recording)
        mesh.run(every_s)
    for node, peer in ((first, "n5"), (relay, "n5"), (first, "n3")):
        ended.clear()
        node.call(peer, b"y", 60_000, lambda reply: ended.append(reply.end))
        while not ended:
            hear(BROADCAST, recording)
            mesh.run(every_s)
        assert ended == [End.OK], (node.name, peer)
    assert relay.relay.counts["asks_refused"] == relay.relay.counts["control_dropped"] == 0


@pytest.mark.parametrize("kind", [MemoryMesh, RadioMesh])
@pytest.mark.parametrize("refusing", [1, 2, 3])
class TestLater:
    """n0 calls n3 over n1 and n2, of which one has no share for OPENs at the moment, or n3 has none."""

    def test_who_waits_for_its_turn_blames_nobody(self, kind: type[MemoryMesh | RadioMesh], refusing: int) -> None:
        mesh = kind(4)
        mesh.beacons()
        refuse_opens(mesh, refusing, seconds=10)
        assert mesh.asked(mesh.nodes[0], "n3", b"x", 60_000).end is End.OK
        assert_nobody_is_blamed(mesh)

    def test_nor_who_waits_in_vain(self, kind: type[MemoryMesh | RadioMesh], refusing: int) -> None:
        mesh = kind(4)
        mesh.beacons()
        refuse_opens(mesh, refusing, seconds=3_600)
        assert mesh.asked(mesh.nodes[0], "n3", b"x", 3_600_000).end is not End.OK
        assert_nobody_is_blamed(mesh)


class Bound(AirLink):
    """A radio that may use a tenth of the time, or another part."""

    def __init__(self, name: str, mesh: RadioMesh, duty_share: float = DUTY) -> None:
        super().__init__(name, mesh.channel, SF7)
        self.duty_share = duty_share
        self.handed = Counter[Priority]()
        self.refused = set[Priority]()

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if priority in self.refused:
            return False
        self.handed[priority] += 1
        return super().send(address, frame, priority)


class TestGarbageOnARadioThatMayNotSendAllTheTime:
    @pytest.mark.parametrize("length", [12, 200])
    def test_it_takes_a_share_of_what_may_be_sent_and_none_of_what_is_kept_for_the_relay_itself(
        self, length: int
    ) -> None:
        mesh = RadioMesh(0)
        mesh.nodes += [RelayNode(mesh, f"n{at}", [Bound(f"n{at}", mesh)]) for at in range(3)]
        mesh.beacons()
        assert mesh.asked(mesh.nodes[0], "n2", b"x").end is End.OK
        relay = mesh.nodes[1]
        link, label = relay.links[0], relay.relay._circuits.all()[-1].forth.label
        assert isinstance(link, Bound)
        assert label is not None
        link.handed.clear()
        began_ms, before_us, words = mesh.now_ms(), link.sent_us, relay.relay.counts["control_frames"]
        for number in range(4 * CARRIED.frames):
            head = bytes((FRAME_TYPE,)) + label.to_bytes(2) + (1_000 + number & 0xFFFF).to_bytes(2)
            link.on_frame(BROADCAST, head + number.to_bytes(length))
            mesh.run(0.5)
        assert (
            link.handed[Priority.CONTROL] + link.handed[Priority.PAYMENT]
            <= relay.relay.counts["control_frames"] - words
        )
        assert link.handed[Priority.JOB] > 0
        at_once_ms = CARRIED.frames * link.airtime_ms(length + 5)
        share_ms = (CARRIED.one + REPLIES.one) * DUTY * (mesh.now_ms() - began_ms)
        assert (link.sent_us - before_us) / 1_000 < 1.1 * (at_once_ms + share_ms)

    def test_where_it_has_used_that_up_what_the_relay_says_itself_leaves(self) -> None:
        mesh = RadioMesh(0)
        mesh.nodes += [RelayNode(mesh, f"n{at}", [Bound(f"n{at}", mesh)]) for at in range(3)]
        mesh.beacons()
        for peer in ("n0", "n2"):
            assert mesh.asked(mesh.nodes[1], peer, b"x").end is End.OK
        assert mesh.asked(mesh.nodes[0], "n2", b"x").end is End.OK
        relay = mesh.nodes[1]
        link, label = relay.links[0], relay.relay._circuits.all()[-1].forth.label
        assert isinstance(link, Bound)
        assert label is not None
        link.refused = {Priority.JOB, Priority.BULK}
        link.on_frame(BROADCAST, bytes((FRAME_TYPE,)) + label.to_bytes(2) + bytes(20))
        link.handed.clear()
        ground = relay.relay._ground
        path = ground.next_path(name_of(mesh.nodes[0].public))
        assert path is not None
        ground.say(path, Short(Kind.HELD, 1))
        assert link.handed[Priority.CONTROL] == 1
        link.refused = set(Priority)
        ground.say(path, Short(Kind.HELD, 2))
        link.refused = {Priority.JOB, Priority.BULK}
        link.on_room()
        assert link.handed[Priority.CONTROL] == 2
        link.refused = set()
        link.on_room()
        assert link.handed[Priority.JOB] == 1


@pytest.mark.parametrize(("duty", "share"), [(1.0, SHARE), (0.1, SHARE), (0.01, 0.002)])
def test_questions_take_a_fifth_of_what_a_radio_may_send_at_most(duty: float, share: float) -> None:
    mesh = RadioMesh(0)
    mesh.nodes.append(RelayNode(mesh, "n0", [link := Bound("n0", mesh, duty)]))
    ground = mesh.nodes[0].relay._ground
    for number in range(3_600):
        ground.flood(ground.links[0], Ask(number, 1, False, b"targ", b"sour", ()))
        mesh.nodes[0].relay._arm()
        mesh.run(1)
    assert 0.5 * share * mesh.now_ms() < link.sent_us / 1_000 < share * mesh.now_ms() + DEPTH_MS


def refuse_opens(mesh: Mesh, at: int, seconds: float) -> None:
    relay = mesh.nodes[at].relay
    opens = relay._ground.links[0].opens
    take, until_ms = opens.take, mesh.now_ms() + seconds * 1_000
    opens.take = lambda now_ms, who, air_ms: now_ms > until_ms and take(now_ms, who, air_ms)  # type: ignore[method-assign]


def assert_nobody_is_blamed(mesh: Mesh) -> None:
    assert mesh.total("opens_refused") > 0
    assert sum(node.relay.kept["shunned"] for node in mesh.nodes) == 0
    assert mesh.total("opens_given_up") == mesh.total("ways_given_up") == 0
