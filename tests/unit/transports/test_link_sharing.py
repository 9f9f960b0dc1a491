"""What several peers on a radio channel are asked alike is said once, and each of them answers for itself."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lora_world import World
from test_long_messages import Answering
from test_packed_calls import Air
from virtual_link import PSK, Node

from offgrid_transports.calls import End, Reply
from offgrid_transports.coding import Encoder
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.long_messages import digest_of
from offgrid_transports.records import RecordError
from offgrid_transports.shared_frames import (
    CODED,
    HEAD_BYTES,
    OVERHEARD_MAX,
    SHARED_BYTES_MAX,
    AskShared,
    Coded,
    Overheard,
    crypt,
    read_ask,
    read_coded,
    write_ask,
    write_coded,
)
from offgrid_transports.sharing import Sharing

METHOD = 0x0509
BLOCK = Random(1).randbytes(1_200)
HEARERS = "bcd"


class Channel:
    """One who asks and three who hear, in sessions with it already."""

    def __init__(self, *, loss: float = 0.0, seed: int = 1) -> None:
        self.world = World(seed)
        links = {name: self.world.rnode(name) for name in "a" + HEARERS}
        self.world.run(1)
        air = Air(self.world.clock)
        self.nodes = {name: Node(air, link, name) for name, link in links.items()}
        self.answering = {name: Answering(self.nodes[name].endpoint, lambda body: b"thanks") for name in HEARERS}
        self.replies: dict[str, list[Reply]] = {name: [] for name in HEARERS}
        self.nodes["a"].knows(*HEARERS)
        for name in HEARERS:
            self.nodes[name].knows("a")
        self.calls = LongCalls(self.nodes["a"].endpoint)
        self.ask(b"hello")
        self.world.channel.loss = loss

    def ask(self, body: bytes, hearers: str = "") -> float:
        """How many milliseconds of air it took."""
        hearers = hearers or HEARERS
        before_us = self.world.channel.counts.airtime_us
        for replies in self.replies.values():
            replies.clear()
        for name in hearers:
            self.calls.call(name, METHOD, body, 300_000, self.replies[name].append)
        self.world.run(60)
        for name in hearers:
            assert self.replies[name] == [Reply(End.OK, b"thanks")]
        return (self.world.channel.counts.airtime_us - before_us) / 1000

    def asked(self) -> list[int]:
        return [self.answering[name].asked.count(BLOCK) for name in HEARERS]


def test_it_takes_half_the_air_of_saying_it_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()
    shared_ms = channel.ask(BLOCK)
    assert channel.asked() == [1, 1, 1]
    monkeypatch.setattr(Sharing, "takes", lambda self, call: False)
    assert shared_ms < 0.55 * channel.ask(BLOCK)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_lost_is_made_good_for_each(seed: int) -> None:
    channel = Channel(loss=0.15, seed=seed)
    channel.ask(BLOCK)
    assert channel.asked() == [1, 1, 1]


def test_at_much_loss_it_still_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(loss=0.1)
    shared_ms = sum(channel.ask(BLOCK) for _ in range(5))
    monkeypatch.setattr(Sharing, "takes", lambda self, call: False)
    assert shared_ms < 0.75 * sum(channel.ask(BLOCK) for _ in range(5))
    assert channel.asked() == [10, 10, 10]


def test_who_does_not_hear_is_asked_by_itself() -> None:
    channel = Channel()
    channel.nodes["c"].endpoint.on_coded = lambda frame: None
    channel.ask(BLOCK)
    assert channel.asked() == [1, 1, 1]


def test_one_alone_is_asked_as_ever() -> None:
    channel = Channel()
    heard = list[bytes]()
    channel.nodes["d"].endpoint.on_coded = heard.append
    channel.ask(BLOCK, "b")
    channel.ask(BLOCK[:50])
    channel.ask(bytes(SHARED_BYTES_MAX + 1))
    assert heard == []


def test_where_frames_are_too_short_for_it_each_is_asked_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()
    link, heard = channel.nodes["a"].end, list[bytes]()
    channel.nodes["d"].endpoint.on_coded = heard.append
    longest = link.mtu_bytes()
    monkeypatch.setattr(link, "mtu_bytes", lambda address="": longest if address else HEAD_BYTES + 10)
    channel.ask(BLOCK)
    assert (channel.asked(), heard) == ([1, 1, 1], [])


def test_what_a_link_has_no_room_for_is_counted_and_made_good() -> None:
    channel, bodies = Channel(), [Random(number).randbytes(1_200) for number in range(20)]
    replies = list[Reply]()
    for body in bodies:
        for name in HEARERS:
            channel.calls.call(name, METHOD, body, 900_000, replies.append)
    channel.world.run(900)
    assert replies == [Reply(End.OK, b"thanks")] * 60
    assert channel.nodes["a"].endpoint.counts["spread_refused"] > 0
    for name in HEARERS:
        assert [channel.answering[name].asked.count(body) for body in bodies] == [1] * 20


def test_who_listens_reads_nothing_and_who_forges_is_not_believed() -> None:
    channel = Channel()
    heard = list[bytes]()
    channel.nodes["d"].endpoint.on_coded = heard.append
    text = b"attack at dawn, " * 40
    channel.ask(text, "bc")
    assert heard
    assert not [frame for frame in heard if b"attack" in frame]
    forged = Overheard(PSK)
    for frame in heard:
        coded = read_coded(PSK, frame)
        forged.on_frame(write_coded(PSK, coded._replace(symbol=bytes(len(coded.symbol)))))
    channel.answering["b"].answers.overheard = forged
    asked = AskShared(digest_of(text), read_coded(PSK, heard[0]).id, METHOD)
    replies = list[Reply]()
    channel.nodes["a"].endpoint.call("b", 0x005, write_ask(asked), 60_000, replies.append)
    channel.world.run(10)
    assert replies == [Reply(End.ERROR, b"\x00\xff", partial=True)]
    assert not len(forged)


def test_other_meshes_and_garbage_are_not_kept() -> None:
    overheard = Overheard(PSK)
    good = write_coded(PSK, Coded(b"abcd", 10, 0, bytes(10)))
    for frame in (good[:-1], good[:-1] + b"\0", write_coded(bytes(32), Coded(b"abcd", 10, 0, bytes(10))), b""):
        with pytest.raises(RecordError):
            overheard.on_frame(frame)
    for coded in (Coded(b"abcd", SHARED_BYTES_MAX + 3, 0, bytes(200)), Coded(b"abcd", 10, 0, bytes(11))):
        with pytest.raises(RecordError):
            overheard.on_frame(write_coded(PSK, coded))
    assert not len(overheard)


def test_so_many_are_kept_and_no_more() -> None:
    overheard = Overheard(PSK)
    for number in range(2 * OVERHEARD_MAX):
        overheard.on_frame(write_coded(PSK, Coded(number.to_bytes(4), 300, 0, bytes(150))))
    assert len(overheard) == OVERHEARD_MAX
    assert overheard.missing((0).to_bytes(4)) is None
    assert overheard.missing((2 * OVERHEARD_MAX - 1).to_bytes(4)) == 1


@given(st.binary(min_size=1, max_size=SHARED_BYTES_MAX), st.binary(min_size=4, max_size=4), st.integers(20, 240))
def test_a_payload_comes_out_as_it_went_in(payload: bytes, id_: bytes, room: int) -> None:
    if len(payload) > 60 * room:
        payload = payload[:room]
    asked, overheard = AskShared(digest_of(payload), id_, METHOD), Overheard(PSK)
    encoder = Encoder(id_, crypt(PSK, asked.digest, id_, payload), room)
    for number in range(encoder.count):
        frame = write_coded(PSK, Coded(id_, encoder.length, number, encoder.symbol(number)))
        assert len(frame) == HEAD_BYTES + encoder.symbol_bytes + 4
        overheard.on_frame(frame)
    assert overheard.missing(id_) == 0
    assert overheard.payload(read_ask(write_ask(asked))) == payload


@given(st.binary(max_size=60))
def test_any_bytes_are_a_coded_frame_or_an_error(garbage: bytes) -> None:
    for frame in (garbage, bytes((CODED,)) + garbage):
        with contextlib.suppress(RecordError):
            Overheard(PSK).on_frame(frame)
    with contextlib.suppress(RecordError):
        assert write_ask(read_ask(garbage)) == garbage
