"""The answering half of a session: what is carried out once at most, and what is said of what is not."""

from __future__ import annotations

import math

from still_link import StillLink

from offgrid_transports.answers import RECEIVE_IDLE_MS, Answers, Kept
from offgrid_transports.gathering import Gathering
from offgrid_transports.messages import request
from offgrid_transports.noise import Keys
from offgrid_transports.path import Path
from offgrid_transports.records import Part, Record, Said, Signal, Whole, parse
from offgrid_transports.sealing import Opener, Suite
from offgrid_transports.session import HEAD_BYTES, Session
from offgrid_transports.timers import Timers

SENT, HEARD = b"s" * 32, b"h" * 32
REQUEST = request(0x101, 4_000, b"body")


class Server:
    """Answers on a session whose frames are read as its peer would."""

    def __init__(self) -> None:
        path = Path(StillLink(frame_bytes=200), "peer")
        self.session = Session("peer", 1, 2, Suite.AES_CCM_8, Keys(SENT, HEARD, b""), path)
        self.timers, self._peer = Timers(), Opener(Suite.AES_CCM_8, SENT)
        self.answers = Answers(self.session, Gathering(), self.timers, Kept())

    def says(self, now_ms: float = 0) -> list[Record]:
        said: list[Record] = []
        while (frame := self.session.next_frame(now_ms)) is not None:
            said += parse(self._peer.open(frame, HEAD_BYTES)[1])
        return said

    def on_time(self, now_ms: float) -> None:
        for _, call in self.timers.take_due(math.floor(now_ms)):  # type: ignore[misc]
            self.answers.on_timer(now_ms, call)


def whole(call: int) -> Whole:
    return Whole(True, call, REQUEST.flags, REQUEST.rest)


def test_a_request_is_handed_out_once_and_its_answer_is_sent_once() -> None:
    server = Server()
    handed = server.answers.on_request(0, whole(1))
    assert handed is not None
    assert (handed.method, handed.body, handed.deadline_ms) == (0x101, b"body", 4_000)
    assert server.answers.on_request(1, whole(1)) is None
    assert server.answers.respond(2, 1, b"done")
    assert not server.answers.respond(3, 1, b"done again")
    assert [each for each in server.says(3) if isinstance(each, Whole)] == [Whole(False, 1, 0, b"done")]


def test_a_request_that_nobody_continues_is_refused_for_it_was_not_carried_out() -> None:
    server = Server()
    assert server.answers.on_request(0, Part(True, 1, 0, False, b"half")) is None
    server.on_time(RECEIVE_IDLE_MS - 1)
    assert (len(server.answers), server.says(RECEIVE_IDLE_MS - 1)) == (1, [])
    server.on_time(RECEIVE_IDLE_MS)
    assert (len(server.answers), server.says(RECEIVE_IDLE_MS)) == (0, [Said(Signal.REFUSED, 1)])
    assert server.answers.on_request(RECEIVE_IDLE_MS, whole(1)) is None, "said is said"


def test_each_piece_lets_it_wait_anew() -> None:
    server = Server()
    server.answers.on_request(0, Part(True, 1, 0, False, b"half"))
    server.answers.on_request(RECEIVE_IDLE_MS - 1, Part(True, 1, 4, False, b"more"))
    server.on_time(RECEIVE_IDLE_MS)
    assert len(server.answers) == 1


def test_a_question_is_answered_by_what_is_so() -> None:
    server = Server()
    server.answers.on_probe(0, Said(Signal.PROBE, 1))
    assert server.says() == [Said(Signal.GONE, 1)]
    server.answers.on_request(0, whole(2))
    server.answers.on_probe(0, Said(Signal.PROBE, 2))
    assert Said(Signal.HELD, 2) in server.says()


def test_contradictions_and_garbage_are_refused_by_name() -> None:
    server = Server()
    server.answers.on_request(0, Part(True, 1, 4, True, b"end"))
    server.answers.on_request(0, Part(True, 1, 9, True, b"another end"))
    assert server.says() == [Said(Signal.MALFORMED, 1)]
    server.answers.on_request(0, Part(True, 2, 2**27, True, b"x"))
    assert server.says() == [Said(Signal.TOO_LARGE, 2)]
    server.answers.on_request(0, Whole(True, 3, 0, b""))
    assert server.says() == [Said(Signal.MALFORMED, 3)]
    assert len(server.answers) == 0
