"""How much shorter what nodes say becomes on a radio: packed, and said once to several.

What is packed is what a mesh of real nodes said that the dictionary was not made of (`wordbook/held.samples`); each of
its messages counts once. What is said to several is on the air of emulated RNodes, in virtual time.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from offgrid_tools import wordbook
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.lora_pair import FREE, READY_S, SF7, TIMEOUT_MS, end_of, key_of
from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_tools.wordbook.measuring import air_ms
from offgrid_tools.wordbook.samples import read_samples
from offgrid_transports.answers import Request
from offgrid_transports.calls import Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_answers import LongAnswers
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.packing import NEWEST, Packing
from offgrid_transports.path import Path as LinkPath
from offgrid_transports.transport import BROADCAST, Priority

HELD = Path(wordbook.__file__).parent
HEARERS = ("h0", "h1", "h2")
METHOD = 0x0501
BODY_BYTES = 1_200
ROUNDS, ROUNDS_QUICK = 40, 5
LOSS = 0.1


def measure(plan: Plan) -> list[Figure]:
    plan.say("transports: what nodes say, packed, and said once to several")
    rounds = plan.rounds(ROUNDS, ROUNDS_QUICK)
    note = f"{BODY_BYTES} B, {rounds} times"
    return [*_packed(), *(_shared(loss, rounds, note) for loss in (0.0, LOSS))]


def _packed() -> list[Figure]:
    packing, bodies = Packing(), [sample.body for sample in read_samples(HELD)]
    said = [packing.pack(body, NEWEST) or body for body in bodies]
    plain, packed = (sum(map(len, form)) for form in (bodies, said))
    air = [sum(air_ms(len(body)) for body in form) for form in (bodies, said)]
    return [
        Figure("packed_bytes_percent", 100 * packed / plain, note=f"{len(bodies)} messages, {plain} B as they are"),
        Figure("packed_air_percent_sf7", 100 * air[1] / air[0]),
    ]


def _shared(loss: float, rounds: int, note: str) -> Figure:
    once_ms, each_ms = (_Crowd(loss).air_ms(rounds, apart_ms=apart_ms) for apart_ms in (0, 1_000))
    name = f"said_once_to_3_vs_each_loss{loss * 100:.0f}"
    return Figure(name, once_ms / each_ms, "each by itself, ms of air", each_ms, note)


class _Crowd:
    """One who asks, and some who hear it, in sessions with it."""

    def __init__(self, loss: float) -> None:
        self._clock, self._rng = VirtualClock(), Random(1)  # noqa: S311  no secret
        self._channel = Channel(self._clock, self._rng)
        links = {name: self._link(name) for name in ("asking", *HEARERS)}
        self._run(READY_S)
        asking = end_of("asking", HEARERS[0], links["asking"], self._rng, self._clock)
        for name in HEARERS:
            self._answer(end_of(name, "asking", links[name], self._rng, self._clock))
            asking.introduce(name, key_of(name).public_key().public_bytes_raw(), LinkPath(links["asking"], BROADCAST))
        self._calls = LongCalls(asking)
        self._ask(b"hello", 1_000)
        self._channel.loss = loss

    def air_ms(self, rounds: int, *, apart_ms: int) -> float:
        """Of a round, in the mean; its calls begin so far apart."""
        before_us = self._channel.counts.airtime_us
        for _ in range(rounds):
            self._ask(self._rng.randbytes(BODY_BYTES), apart_ms)
        return (self._channel.counts.airtime_us - before_us) / 1000 / rounds

    def _ask(self, body: bytes, apart_ms: int) -> None:
        """Raises RuntimeError for a call that is not answered."""
        replies: list[Reply] = []
        for name in HEARERS:
            self._calls.call(name, METHOD, body, TIMEOUT_MS, replies.append, priority=Priority.BULK)
            self._run(apart_ms / 1000)
        for _ in range(300):
            if len(replies) == len(HEARERS):
                return
            self._run(1)
        raise RuntimeError(f"{len(replies)} of {len(HEARERS)} answered")

    def _answer(self, endpoint: Endpoint) -> None:
        answers = LongAnswers(endpoint)

        def on_request(arrived: Request) -> None:
            request = answers.on_request(arrived)
            if request is not None:
                answers.respond(request, b"thanks", priority=Priority.BULK)

        endpoint.on_request = on_request

    def _link(self, name: str) -> RadioLink:
        line = VirtualLine(self._clock)
        line.plug(RNodeEmulator(name, self._channel, lambda data: None))
        return RadioLink(name, line, RNode(SF7), FREE, virtual_host(self._clock, self._rng))

    def _run(self, seconds: float) -> None:
        self._clock.run(self._clock.now_us + round(seconds * 1_000_000))
