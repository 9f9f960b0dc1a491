"""RNodes: found, set up, verified, used, unplugged, rebooted, and what their firmware does not tell."""

from __future__ import annotations

import pytest
from lora_world import EU, FAST, World
from msgspec.structs import replace

from offgrid_tools.emulators.rnode import Firmware
from offgrid_tools.soak.duty import fullest_us
from offgrid_transports.keep import MemoryKeep
from offgrid_transports.lora import rnode
from offgrid_transports.lora.kiss import encode
from offgrid_transports.lora.regions import Band, Limit
from offgrid_transports.lora.rnode import State
from offgrid_transports.lora.rnode_firmware import (
    STATISTICS_MS,
    STATISTICS_UNITS,
    contention_window,
    preamble_symbols,
    slot_ms,
    told_ms,
)
from offgrid_transports.transport import BROADCAST, Priority


def test_the_firmwares_preamble_and_slot() -> None:
    assert [preamble_symbols(replace(FAST, sf=sf)) for sf in (6, 7, 8, 12)] == [47, 24, 18, 18]
    assert preamble_symbols(replace(FAST, sf=5, bw_hz=500_000)) == 94
    assert [slot_ms(replace(FAST, sf=sf)) for sf in (7, 8, 9, 12)] == [24, 24, 49, 100]


def test_the_firmwares_contention_window_grows_with_its_own_airtime() -> None:
    windows = [contention_window(percent * 100) for percent in (0, 7, 8, 38, 39, 77, 78, 100)]
    assert windows == [(0, 14), (0, 14), (15, 28), (15, 28), (30, 43), (30, 43), (45, 58), (45, 58)]


def test_it_is_found_and_set_up_and_every_setting_is_verified() -> None:
    world = World()
    link = world.rnode("a")
    assert not link.up
    world.run(1)
    assert link.up
    assert world.events["a"] == ["up"]
    tuned = world.rnodes["a"].tuned
    assert tuned == replace(FAST, preamble=24)
    assert link.figures()["modem"] == "RNode 1.86"
    assert (link.shared, link.mtu_bytes(), link.bitrate_bps) == (True, 254, 5468)
    assert link.airtime_ms(254) == 416.0


def test_frames_go_both_ways_whatever_bytes_they_hold() -> None:
    world = World()
    a, b = world.rnode("a"), world.rnode("b")
    world.run(1)
    awkward = bytes([0xC0, 0xDB, 0xDC, 0xDD, 0xC0, 0x00]) * 42
    assert a.send(BROADCAST, awkward)
    world.run(2)
    assert b.send(BROADCAST, b"back")
    world.run(2)
    assert (world.heard["b"], world.heard["a"]) == ([awkward], [b"back"])
    figures = b.figures()
    assert (figures["rssi_dbm"], figures["snr_db"]) == (-70, 12.0)
    assert (figures["heard_frames"], a.figures()["sent_frames"]) == (1, 1)


def test_a_full_queue_refuses_and_says_when_it_has_room_again() -> None:
    world = World()
    link = world.rnode("a")
    world.run(1)
    taken = 0
    while link.send(BROADCAST, bytes(254)):
        taken += 1
    assert 4 <= taken <= 12, "some frames, a second or two of air"
    assert link.wait_ms(254, Priority.JOB) > 1000
    with pytest.raises(ValueError, match="254"):
        link.send(BROADCAST, bytes(255))
    world.run(10)
    assert world.events["a"] == ["up", "room"]
    assert link.wait_ms(254, Priority.JOB) == 0


def test_the_channel_is_used_well_by_one_who_sends_all_the_time() -> None:
    world = World()
    world.rnode("a")
    world.rnode("b")
    world.run(1)
    before_us = world.channel.counts.airtime_us
    world.flood("a", 60, 252)
    assert (world.channel.counts.airtime_us - before_us) / 60e6 > 0.85
    assert len(world.heard["b"]) > 125
    assert {len(frame) for frame in world.heard["b"]} == {252}, "the modem's queue cuts off what it has no room for"


def test_control_goes_before_bulk() -> None:
    world = World()
    a, _ = world.rnode("a"), world.rnode("b")
    world.run(1)
    for number in range(12):
        assert a.send(BROADCAST, bytes([number]) * 200, Priority.BULK)
    a.send(BROADCAST, b"urgent", Priority.CONTROL)
    world.run(10)
    assert world.heard["b"].index(b"urgent") < len(world.heard["b"]) - 2


def test_room_for_what_is_urgent_is_told_of_though_less_urgent_frames_are_refused_meanwhile() -> None:
    world = World()
    link = world.rnode(
        "a", band=next(band for band in EU.bands if band.limits and band.limits[0].used_us >= 300_000_000)
    )
    world.run(20)
    now_us = link._now_us()
    link.book.duty.recall(((8_110_000, now_us - 1_000 * (40 - number)) for number in range(40)), 0, now_us)
    assert not link.send(BROADCAST, bytes(100), Priority.JOB), "its part is spent"
    taken = 0

    def fill() -> None:
        nonlocal taken
        while taken < 60 and link.send(BROADCAST, bytes(100), Priority.CONTROL):
            taken += 1
        link.send(BROADCAST, bytes(100), Priority.JOB)

    link.on_room = fill
    fill()
    world.run(60)
    assert taken == 60


def test_nothing_is_heard_across_settings_and_the_figures_say_so() -> None:
    world = World()
    a, b = world.rnode("a"), world.rnode("b", replace(FAST, sf=8))
    world.run(1)
    a.send(BROADCAST, b"hello")
    world.run(5)
    assert world.heard["b"] == []
    assert (a.figures()["sent_frames"], b.figures()["heard_frames"]) == (1, 0)
    assert a.figures()["settings"] != b.figures()["settings"]


def test_without_a_region_it_listens_and_never_sends() -> None:
    world = World()
    link, other = world.rnode("a", band=None), world.rnode("b")
    world.run(1)
    assert not link.up
    assert not link.send(BROADCAST, b"x")
    assert link.wait_ms(1, Priority.CONTROL) == float("inf")
    assert "only listens until a region is set" in str(link.figures()["band"])
    other.send(BROADCAST, b"hello")
    world.run(5)
    assert world.heard["a"] == [b"hello"]
    assert [name for name, _, _ in world.channel.log or []] == ["b"]


def test_unplugged_it_is_down_and_plugged_in_again_it_is_back_within_two_seconds() -> None:
    world = World()
    a, b = world.rnode("a"), world.rnode("b")
    world.run(1)
    while a.send(BROADCAST, bytes(200)):
        pass
    world.run(0.5)
    assert int(a.figures()["queued_frames"]) > 1
    world.lines["a"].unplug()
    world.rnodes["a"].reboot()
    world.run(0.1)
    assert world.events["a"][-1] == "down"
    assert not a.send(BROADCAST, b"x")
    world.run(3)
    assert int(a.figures()["dropped_frames"]) > 1
    heard = len(world.heard["b"])
    world.lines["a"].plug(world.rnodes["a"])
    world.run(2)
    assert world.events["a"][-2:] in (["down", "up"], ["up", "room"])
    assert a.up
    world.run(10)
    assert len(world.heard["b"]) == heard, "nothing of before is sent"
    assert a.book.duty.open_us == 0
    assert b.up


def test_hundreds_of_unplugs_leave_nothing_behind() -> None:
    world = World()
    a = world.rnode("a", firmware=Firmware(statistics_us=0))
    for _ in range(300):
        world.run(0.6)
        assert a.up
        a.send(BROADCAST, bytes(20))
        world.lines["a"].unplug()
        world.rnodes["a"].reboot()
        world.run(0.6)
        world.lines["a"].plug(world.rnodes["a"])
        world.run(1.9)
    assert world.events["a"][:600] == ["up", "down"] * 300
    assert a.figures()["queued_frames"] == 0
    assert len(world.clock._heap) < 20, "timers do not pile up"


def test_a_modem_that_may_hold_old_frames_is_emptied_before_it_is_set_up() -> None:
    world = World()
    a = world.rnode("a")
    world.run(1)
    world.rnodes["b"] = world.rnodes["a"]
    for _ in range(4):
        a.send(BROADCAST, bytes(200))
    world.run(0.05)  # they are in the modem, which waits for a free channel
    assert a.book.duty.open_us
    world.lines["a"].unplug()
    world.run(0.01)
    link = world.link("b", world.lines["a"], rnode.RNode(replace(FAST, sf=9)), None)
    world.lines["a"].plug(world.rnodes["a"])
    world.run(5)
    assert link.figures()["state"] == "on"
    assert world.rnodes["a"].asked[rnode.RESET] == 1
    assert world.channel.counts.frames == 0


def test_a_modem_that_is_off_may_hold_old_frames_too() -> None:
    world = World()
    a = world.rnode("a")
    world.run(1)
    a.send(BROADCAST, bytes(200))
    world.run(0.05)
    world.lines["a"].unplug()
    world.rnodes["a"].on_bytes(encode(rnode.RADIO, b"\x00"))
    world.run(0.1)
    world.lines["a"].plug(world.rnodes["a"])
    world.run(5)
    assert a.up
    assert world.rnodes["a"].asked[rnode.RESET] == 1
    assert world.channel.counts.frames == 0


@pytest.mark.parametrize("says", [True, False])
def test_a_modem_that_reboots_in_the_middle_of_a_frame_is_set_up_again(says: bool) -> None:
    world = World()
    a, _ = world.rnode("a"), world.rnode("b")
    world.run(1)
    a.send(BROADCAST, bytes(200))
    world.lines["a"].hear(encode(rnode.DATA, b"half a frame")[:-4])
    world.run(0.1)
    world.rnodes["a"].reboot(says=says)
    world.run(2 if says else 14)
    assert world.rnodes["a"].on
    assert a.up
    assert a.send(BROADCAST, b"again")
    world.run(3)
    assert world.heard["b"][-1] == b"again"
    assert world.heard["a"] in ([], [b"half a fr"]), "KISS has no check sum: whoever authenticates frames finds it"


def test_a_frame_that_reaches_a_modem_just_after_it_has_started_anew_does_not_leave() -> None:
    world = World()
    a = world.rnode("a")
    world.run(1)
    world.rnodes["a"].reboot()
    world.run(0.297)  # it says so three milliseconds later, when the frame is on the line
    assert a.send(BROADCAST, bytes(200))
    world.run(5)
    assert a.up
    assert world.rnodes["a"].asked[rnode.RESET] == 1
    assert world.channel.counts.frames == 0
    assert a.book.duty.open_us == 0


def test_a_modem_whose_port_vanishes_when_it_is_reset_is_not_reset_again() -> None:
    world = World()
    a = world.rnode("a")
    world.run(1)
    a.send(BROADCAST, bytes(200))
    world.lines["a"].unplug()
    world.run(0.1)
    world.lines["a"].plug(world.rnodes["a"])
    while not world.rnodes["a"].asked.get(rnode.RESET):
        world.run(0.01)
    world.lines["a"].unplug()
    world.run(1)
    world.lines["a"].plug(world.rnodes["a"])
    world.run(2)
    assert a.up
    assert world.rnodes["a"].asked[rnode.RESET] == 1


def test_answers_nobody_asked_for_do_no_harm() -> None:
    world = World()
    a, b = world.rnode("a"), world.rnode("b")
    for moment in range(3):
        for command in range(256):
            if (command, moment) != (rnode.RESET, 2):
                world.lines["a"].hear(encode(command, world.rng.randbytes(world.rng.choice((0, 1, 2, 4, 11)))))
            world.run(0.01)
    world.run(60)
    assert a.up
    b.send(BROADCAST, b"hello")
    world.run(3)
    assert world.heard["a"][-1] == b"hello"


def test_garbage_on_the_line_is_dropped_and_counted() -> None:
    world = World()
    a, b = world.rnode("a"), world.rnode("b")
    world.run(1)
    world.lines["a"].hear(world.rng.randbytes(3000))
    world.lines["a"].hear(b"\xc0\x00\xdb\x00\xc0" + bytes([0xC0]) * 20 + b"\x23" + bytes(2000) + b"\xc0")
    world.run(30)
    assert a.up
    b.send(BROADCAST, b"hello")
    world.run(5)
    assert world.heard["a"][-1] == b"hello"
    assert int(a.figures()["dropped_bytes"]) > 2000


def test_an_old_firmware_or_a_setting_that_is_not_taken_is_said() -> None:
    world = World()
    link = world.rnode("a", firmware=Firmware(version=(1, 50)))
    world.run(1)
    assert not link.up
    assert link.figures()["trouble"] == "its firmware is 1.50; at least 1.52 is needed"
    world = World()
    link = world.rnode("a", replace(FAST, power_dbm=25))
    world.run(1)
    assert "command 0x03 was sent 19 and answered with 16" in str(link.figures()["trouble"])


def test_something_else_on_the_port_is_said_and_looked_at_again() -> None:
    world = World()
    link = world.rnode("a")
    world.rnodes["a"]._booting = True
    world.run(5)
    assert (link.up, link.figures()["state"]) == (False, "being looked for")
    world.rnodes["a"]._booting = False
    world.run(2)
    assert link.up


def test_every_move_is_in_the_table() -> None:
    assert set(rnode.NEXT) == set(State)
    assert all(State.AWAY in moves for state, moves in rnode.NEXT.items() if state is not State.AWAY)


@pytest.mark.parametrize("statistics_us", [1_000_000, 0])
def test_what_has_left_is_settled_by_what_the_modem_tells(statistics_us: int) -> None:
    world = World()
    a = world.rnode("a", firmware=Firmware(statistics_us=statistics_us))
    world.run(1)
    for _ in range(3):
        assert a.send(BROADCAST, bytes(100))
    assert a.book.duty.open_us == 3 * a.airtime_ms(100) * 1000
    world.run(3)
    if statistics_us:
        assert a.book.duty.open_us == 0
    else:  # the first figure has nothing before it to be compared with
        world.run(60)
        assert a.book.duty.open_us <= 3 * a.airtime_ms(100) * 1000


def test_a_figure_that_rises_by_one_frame_settles_one_frame_the_oldest() -> None:
    world = World()
    a = world.rnode("a", firmware=Firmware(statistics_us=0))
    world.run(1)
    said = [a.airtime_ms(length) for length in (50, 50, 50)]
    world.rnodes["a"].on_bytes = lambda data: None  # type: ignore[method-assign]  # it takes them and keeps still
    report = told_ms(a._modem.modulation, 51) * STATISTICS_UNITS // STATISTICS_MS
    for length in (50, 50, 50):
        assert a.send(BROADCAST, bytes(length))
    for units, left_ms in ((7, sum(said)), (7, sum(said)), (7 + report, sum(said[1:])), (3, sum(said[1:]))):
        world.lines["a"].hear(encode(rnode.CHANNEL, units.to_bytes(2, "big") + b"\x00\x00\x00\x10" + bytes(5)))
        world.run(0.1)
        assert a.book.duty.open_us == left_ms * 1000
    for _ in range(9):  # it does not send, but somebody does: it may still be waiting
        world.lines["a"].hear(encode(rnode.CHANNEL, bytes(4) + b"\x00\x10" + bytes(5)))
        world.run(1)
    assert a.book.duty.open_us > 0
    for second in range(9):
        assert (a.book.duty.open_us == 0) == (second > 2), "neither it nor anybody has sent for as long as a turn takes"
        world.lines["a"].hear(encode(rnode.CHANNEL, bytes(11)))
        world.run(1)


def test_what_it_had_read_before_it_sent_has_left_when_its_figure_rises() -> None:
    world = World()
    a = world.rnode("a", firmware=Firmware(statistics_us=0))
    world.run(1)
    world.rnodes["a"].on_bytes = lambda data: None  # type: ignore[method-assign]  # what it says is said below
    frame_us = a.airtime_ms(200) * 1000
    for _ in range(3):
        assert a.send(BROADCAST, bytes(200))
    world.lines["a"].hear(encode(rnode.CHANNEL, bytes(11)))
    for ready, units, open_frames in ((1, 0, 3), (0, 1, 2), (1, 1, 2), (0, 2, 1), (0, 3, 1), (1, 4, 0)):
        for _ in range(ready):
            world.lines["a"].hear(encode(rnode.READY, b"\x01"))
        world.lines["a"].hear(encode(rnode.CHANNEL, units.to_bytes(2, "big") + bytes(9)))
        world.run(0.1)
        assert a.book.duty.open_us == open_frames * frame_us


def test_it_is_not_taken_to_have_read_what_it_says_nothing_about() -> None:
    world = World()
    a = world.rnode("a", firmware=Firmware(statistics_us=0))
    world.run(1)
    world.rnodes["a"].on_bytes = lambda data: None  # type: ignore[method-assign]
    world.lines["a"].hear(encode(rnode.READY, b"\x01") * 9)
    world.lines["a"].hear(encode(rnode.CHANNEL, bytes(11)))
    world.run(0.1)
    assert a.send(BROADCAST, bytes(200))
    world.lines["a"].hear(encode(rnode.CHANNEL, b"\x00\x01" + bytes(9)))
    world.run(0.1)
    assert a.book.duty.open_us == a.airtime_ms(200) * 1000


def test_a_long_frame_that_is_on_the_air_is_not_taken_for_silence() -> None:
    world = World()
    a = world.rnode("a", replace(FAST, sf=12))
    world.run(16)
    assert a.send(BROADCAST, bytes(254))
    world.run(8)
    assert world.channel.sending(world.rnodes["a"])
    assert a.book.duty.open_us == a.airtime_ms(254) * 1000
    world.run(10)
    assert a.book.duty.open_us == 0


def test_frames_that_a_busy_channel_keeps_in_the_modem_count_until_they_have_left() -> None:
    """An hour and more of somebody else's carrier: a limit that trusted clocks would be broken at its end."""
    world = World()
    band = Band(0, 10**10, 99, (Limit(3_600_000_000, 2_000_000),))
    world.rnode("a", band=band)
    world.run(1)
    jammer = world.rnodes["a"].__class__("jammer", world.channel, lambda data: None)
    assert jammer.tuned is None
    long = replace(FAST, sf=12, preamble=65_000)
    world.channel.send(jammer, long, bytes(200), lambda: None)  # 36 minutes
    world.channel.clock.after(2_000_000_000, lambda: world.channel.send(jammer, long, bytes(200), lambda: None))
    world.run(1)
    taken = world.flood("a", 60, 200)
    assert taken >= 4
    world.run(3600)
    world.flood("a", 4500, 200, every_s=2)
    sent = [(start, end) for name, start, end in world.channel.log or [] if name == "a"]
    assert len(sent) >= 8
    assert fullest_us(sent, 3_600_000_000) <= 2_000_000


def test_airtime_is_kept_over_a_restart_and_all_of_it_counts_when_the_machine_was_off() -> None:
    keep, world = MemoryKeep(), World()
    a = world.rnode("a", band=EU.bands[1], keep=keep)
    world.run(1)
    world.flood("a", 60, 252)
    used_us = world.channel.counts.airtime_us
    assert used_us > 25_000_000
    a.close()
    world.run(3000)
    left_at_most_us = 36_000_000 - used_us
    for run in ("run", "another"):
        line, noted = world.lines["a"], MemoryKeep()
        noted.kept = dict(keep.kept)
        line.unplug()
        world.run(1)
        link = world.link("a", line, rnode.RNode(FAST), EU.bands[1], keep=noted, run=run)
        line.plug(world.rnodes["a"])
        world.run(5)
        assert link.up
        duty, now_us = link.book.duty, world.clock.now_us
        assert 0 <= duty.left_us(now_us, Priority.CONTROL) <= left_at_most_us
        later_us = duty.left_us(now_us + 700_000_000, Priority.CONTROL)
        assert later_us > 25_000_000 if run == "run" else later_us <= left_at_most_us
        link.close()
