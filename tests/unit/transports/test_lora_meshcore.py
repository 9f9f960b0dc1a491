"""MeshCore modems: set at every connection, one frame at a time, rebooted when they may hold an old one."""

from __future__ import annotations

from lora_world import FAST, World
from msgspec.structs import replace

from offgrid_tools.soak.duty import fullest_us
from offgrid_transports.lora import meshcore
from offgrid_transports.lora.kiss import encode
from offgrid_transports.lora.meshcore import State
from offgrid_transports.lora.regions import Band, Limit
from offgrid_transports.transport import BROADCAST, Priority


def test_it_is_set_up_verified_and_used_both_ways() -> None:
    world = World()
    a, b = world.meshcore("a"), world.meshcore("b")
    world.run(1)
    assert (a.up, b.up, a.mtu_bytes()) == (True, True, 255)
    assert world.meshcores["a"].tuned == replace(FAST, preamble=32)
    frames = [bytes([0xC0, 0xDB, number]) * 85 for number in range(5)]
    for frame in frames:
        assert a.send(BROADCAST, frame)
    world.run(5)
    assert world.heard["b"] == frames
    b.send(BROADCAST, b"back")
    world.run(2)
    assert world.heard["a"] == [b"back"]
    figures = a.figures()
    assert (figures["rssi_dbm"], figures["snr_db"], figures["modem"]) == (-70, 12.0, "MeshCore 1")


def test_each_frame_is_settled_when_it_has_left_and_not_before() -> None:
    world = World()
    a = world.meshcore("a")
    world.run(1)
    for _ in range(3):
        a.send(BROADCAST, bytes(100))
    assert a.book.duty.open_us == a.airtime_ms(100) * 1000, "one at a time"
    world.run(3)
    assert a.book.duty.open_us == 0
    assert world.channel.counts.frames == 3


def test_it_forgets_its_settings_when_it_starts_anew_and_is_set_up_again() -> None:
    world = World()
    a, _ = world.meshcore("a"), world.meshcore("b")
    world.run(1)
    world.meshcores["a"].reboot()
    assert world.meshcores["a"].tuned is None
    world.run(25)
    assert world.meshcores["a"].tuned is not None
    a.send(BROADCAST, b"again")
    world.run(2)
    assert world.heard["b"] == [b"again"]


def test_a_frame_that_is_on_the_air_while_its_modem_starts_anew_counts_until_its_end() -> None:
    world, slow = World(), replace(FAST, sf=12)
    a = world.meshcore("a", slow, Band(0, 10**10, 99, (Limit(100_000_000, 20_000_000),)))
    world.run(1)
    assert a.send(BROADCAST, bytes(255), Priority.CONTROL)
    while not world.channel.sending(world.meshcores["a"]):
        world.run(0.01)
    began_us = world.clock.now_us
    world.lines["a"].unplug()
    world.lines["a"].plug(world.meshcores["a"])
    world.run(5)
    assert a.up, "it was started anew"
    assert world.channel.sending(world.meshcores["a"]), "its radio has not heard of it"
    air_us = round(a.airtime_ms(255) * 1_000)
    (entry,) = a.book.duty.settled()
    assert entry[1] >= began_us + air_us


def test_a_frame_that_an_earlier_connection_left_does_not_go_out_under_new_settings() -> None:
    world = World()
    a = world.meshcore("a")
    jammer = world.rnode("j")
    world.run(1)
    jammer.send(BROADCAST, bytes(254))
    world.run(0.5)
    while not world.channel.busy(world.meshcores["a"]):
        world.run(0.01)
    a.send(BROADCAST, b"old")
    world.run(0.01)
    world.lines["a"].unplug()
    world.run(0.05)
    a._modem.modulation = replace(a._modem.modulation, sf=9)
    world.lines["a"].plug(world.meshcores["a"])
    world.run(5)
    assert a.up
    assert world.meshcores["a"].asked[meshcore.REBOOT] == 1
    assert [name for name, _, _ in world.channel.log or []] == ["j"]
    assert a.book.duty.open_us == 0


def test_a_limit_is_kept_to_the_last_frame_and_nearly_used_up() -> None:
    world = World()
    a = world.meshcore("a", band=Band(0, 10**10, 99, (Limit(20_000_000, 400_000),)))
    world.run(1)
    assert a.mtu_bytes() < 255, "what takes longer than the dwell time can never be sent"
    world.flood("a", 300, 40)
    sent = [(start, end) for _, start, end in world.channel.log or []]
    assert fullest_us(sent, 20_000_000) <= 400_000
    assert sum(end - start for start, end in sent) > 0.7 * 300 / 20 * 400_000


def test_what_it_refuses_or_does_not_take_is_said() -> None:
    world = World()
    a = world.meshcore("a")
    world.meshcores["a"]._on_hardware = lambda kind, body: world.meshcores["a"]._hardware(  # type: ignore[method-assign]
        kind | meshcore.ANSWER if kind != meshcore.SET_RADIO else meshcore.ERROR, b"\x02"
    )
    world.run(1)
    assert not a.up
    assert "it refuses 09" in str(a.figures()["trouble"])
    assert "wrong value" in str(a.figures()["trouble"])


def test_settings_that_read_back_otherwise_are_not_used() -> None:
    world = World()
    a = world.meshcore("a")
    world.meshcores["a"]._tune = lambda: setattr(world.meshcores["a"], "_config", bytes(10))  # type: ignore[method-assign]
    world.run(1)
    assert not a.up
    assert "and says 00000000" in str(a.figures()["trouble"])


def test_garbage_and_answers_nobody_asked_for_do_no_harm() -> None:
    world = World()
    a, b = world.meshcore("a"), world.meshcore("b")
    world.run(1)
    for _ in range(20):
        world.lines["a"].hear(world.rng.randbytes(200))
    for kind in range(256):
        world.lines["a"].hear(encode(meshcore.HARDWARE, bytes([kind])) + encode(meshcore.HARDWARE, bytes([kind, 0])))
    world.run(60)
    assert a.up
    b.send(BROADCAST, b"hello")
    world.run(3)
    assert world.heard["a"][-1] == b"hello"


def test_every_move_is_in_the_table() -> None:
    assert set(meshcore.NEXT) == set(State)
    assert all(State.AWAY in moves for state, moves in meshcore.NEXT.items() if state is not State.AWAY)
