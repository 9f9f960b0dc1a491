"""Links by description, and the in-memory network that they are tested on."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random

import pytest
from virtual_link import VirtualTime, network

from offgrid_transports import memory
from offgrid_transports.memory import Faults, MemoryNetwork, MemoryTransport
from offgrid_transports.registry import LinkSpec, TransportRegistry, parse_spec
from offgrid_transports.transport import BROADCAST, BadSpec, LinkHost, Priority, Transport

REGISTRY = TransportRegistry({"memory": memory.open_transport})


def host() -> tuple[VirtualTime, LinkHost]:
    world = VirtualTime()
    return world, LinkHost(Random(1), world.schedule, lambda: world.now_ms)


def test_a_description_is_taken_apart() -> None:
    assert parse_spec("lora:/dev/ttyUSB0?sf=8&bw=125") == LinkSpec("lora", "/dev/ttyUSB0", {"sf": "8", "bw": "125"})
    assert str(parse_spec("memory:a?mtu=64")) == "memory:a?mtu=64"


def test_an_installed_package_brings_its_links_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "kite_link-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kite-link\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[offgrid.transports]\nkite = offgrid_transports.memory:open_transport\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = TransportRegistry.installed()
    assert "kite" in registry.schemes
    assert registry.open("kite:a", host()[1]).mtu_bytes() > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("memory", "scheme:target"),
        (":a", "scheme:target"),
        ("memory:", "nothing stands after"),
        ("memory:a?mtu", "name=value"),
        ("memory:a?mtu=64&mtu=65", "twice"),
        ("memroy:a", "did you mean 'memory'"),
        ("memory:a?mtv=64", "did you mean 'mtu'"),
        ("memory:a?mtu=9", "from 32 to"),
        ("memory:a?mtu=64.5", "whole number"),
        ("memory:a?loss=much", "from 0 to 1"),
        ("memory:a?loss=nan", "from 0 to 1"),
        ("memory:a?mtu=inf", "from 32 to"),
        ("memory:" + "a" * 600, "at most 512"),
    ],
)
def test_a_bad_description_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(BadSpec) as error:
        REGISTRY.open(text, host()[1])
    assert says in str(error.value)


def test_links_of_one_host_hear_each_other() -> None:
    world, shared = host()
    a: Transport = REGISTRY.open("memory:a?mtu=64&delay_ms=5", shared)
    b = REGISTRY.open("memory:b", shared)
    heard: list[tuple[str, bytes]] = []
    b.on_frame = lambda peer, frame: heard.append((peer, frame))
    assert a.send("b", b"hello")
    world.run(4)
    assert heard == []
    world.run(5)
    assert heard == [("a", b"hello")]
    with pytest.raises(BadSpec, match="taken"):
        REGISTRY.open("memory:a", shared)
    with pytest.raises(ValueError, match="64"):
        a.send("b", bytes(65))


def test_a_plug_in_is_loaded_when_it_is_opened_and_not_before() -> None:
    points = {
        "memory": EntryPoint("memory", "offgrid_transports.memory:open_transport", "offgrid.transports"),
        "broken": EntryPoint("broken", "no_such_module:open", "offgrid.transports"),
    }
    registry = TransportRegistry(points)
    assert registry.schemes == ("broken", "memory")
    assert registry.open("memory:a", host()[1]).mtu_bytes() == 1200
    with pytest.raises(BadSpec, match="no_such_module"):
        registry.open("broken:a", host()[1])


def carried(net: MemoryNetwork, world: VirtualTime, count: int) -> list[int]:
    heard: list[int] = []
    a, b = net.attach("a"), net.attach("b")
    b.on_frame = lambda peer, frame: heard.append(int.from_bytes(frame, "big"))
    for number in range(count):
        a.send("b", number.to_bytes(2, "big"))
    world.run(10_000)
    return heard


def test_faults_are_seeded_and_as_frequent_as_asked() -> None:
    def once(seed: int) -> list[int]:
        world = VirtualTime()
        faults = Faults(loss=0.2, duplicate=0.1, delay_ms=5, jitter_ms=20)
        return carried(network(world, seed, faults=faults), world, 2000)

    heard = once(3)
    assert heard == once(3)
    assert heard != once(4)
    assert 0.17 < 1 - len(set(heard)) / 2000 < 0.23
    assert 0.07 < len(heard) / len(set(heard)) - 1 < 0.13
    assert heard != sorted(heard), "jitter reorders"


def test_a_slow_link_sends_one_frame_after_another_and_refuses_when_its_queue_is_full() -> None:
    world = VirtualTime()
    net = MemoryNetwork(Random(1), world.schedule, bitrate_bps=8000, queue_frames_max=3)
    a, b = net.attach("a"), net.attach("b")
    times: list[int] = []
    b.on_frame = lambda peer, frame: times.append(world.now_ms)
    assert [a.send("b", bytes(100)) for _ in range(5)] == [True, True, True, True, False]
    assert a.airtime_ms(100) == 100
    world.run(1000)
    assert times == [100, 200, 300, 400]


def test_a_closed_end_neither_sends_nor_hears() -> None:
    world = VirtualTime()
    net = network(world)
    a, b = net.attach("a"), net.attach("b")
    b.on_frame = lambda peer, frame: pytest.fail("heard something")
    a.send("b", b"x")
    b.close()
    b.close()
    world.run(10)
    assert not b.send("a", b"x")
    net.attach("b")


def test_a_broadcast_reaches_all_others_and_a_full_queue_says_when_it_has_room_again() -> None:
    world = VirtualTime()
    network = MemoryNetwork(Random(1), world.schedule, bitrate_bps=8_000, queue_frames_max=2)
    ends = [network.attach(name) for name in "abc"]
    heard: list[str] = []

    def listen(end: MemoryTransport) -> None:
        end.on_frame = lambda address, frame: heard.append(f"{address}>{end.address}:{frame.decode()}")

    for end in ends:
        listen(end)
    room: list[int] = []
    ends[0].on_room = lambda: room.append(world.now_ms)
    said = [ends[0].send(BROADCAST, text) for text in (b"1", b"2", b"3", b"4")]
    assert (said, ends[0].wait_ms(1, Priority.JOB)) == ([True, True, True, False], 3)
    world.run(10)
    assert sorted(heard) == [f"a>{to}:{n}" for to in "bc" for n in (1, 2, 3)]
    assert (room, ends[0].wait_ms(1, Priority.JOB)) == ([1], 0)
