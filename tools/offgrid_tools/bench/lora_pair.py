"""Two nodes' ends of a LoRa channel in virtual time: real endpoints, real adapters, emulated RNodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.path import Path
from offgrid_transports.transport import BROADCAST, Transport

SF7 = Modulation(869_525_000, 125_000, 7)
FREE = Band(0, 10**10, 99, ())  # what the rules of the air leave is another figure
NAMES = ("asking", "answering")
PSK = bytes(range(32))
TIMEOUT_MS = 3_600_000
METHOD = 1
READY_S = 2  # until both modems are found and set up
STEP_US = 1_000


def key_of(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def end_of(name: str, other: str, link: Transport, rng: Random, clock: VirtualClock) -> Endpoint:
    """Answers each request with its method's number of bytes: what is measured is the way there, or both ways."""
    known = {key_of(each).public_key().public_bytes_raw(): each for each in (name, other)}
    endpoint = Endpoint(
        Own(key_of(name), PSK),
        known.get,
        lambda: now_ms(clock),
        lambda delay_ms, fn: after_ms(clock, delay_ms, fn),
        rng,
        lambda: now_ms(clock),
    )
    endpoint.attach(link)
    endpoint.introduce(other, key_of(other).public_key().public_bytes_raw(), Path(link, BROADCAST))
    return endpoint


class LoraPair:
    """One asks, the other answers; `channel` counts what is on the air."""

    def __init__(self, seed: int, *, loss: float = 0.0, modulation: Modulation = SF7, answer_bytes: int = 0) -> None:
        self.clock, self.rng = VirtualClock(), Random(seed)  # noqa: S311  no secret
        self.channel = Channel(self.clock, self.rng, loss=loss, logged=True)
        self.links = [self._link(name, modulation) for name in NAMES]
        self.run(READY_S + self.rng.random() * 8)  # the firmware counts in bins of the clock
        self.ends = [
            end_of(name, other, link, self.rng, self.clock)
            for name, other, link in zip(NAMES, reversed(NAMES), self.links, strict=True)
        ]
        self.answered = 0
        answering = self.ends[1]

        def answer(request: Request) -> None:
            self.answered += 1
            answering.respond(request, self.rng.randbytes(answer_bytes))

        answering.on_request = answer

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now_us + round(seconds * 1_000_000))

    def run_until(self, true: Callable[[], object], seconds_max: float = 3600) -> None:
        """Raises TimeoutError."""
        end_us = self.clock.now_us + round(seconds_max * 1_000_000)
        while not true():
            if self.clock.now_us >= end_us:
                raise TimeoutError(f"not within {seconds_max} s of the channel's time")
            self.clock.run(self.clock.now_us + STEP_US)

    def call(self, body: bytes) -> float:
        """Seconds until it is answered. Raises RuntimeError for one that is not."""
        replies: list[Reply] = []
        began_us = self.clock.now_us
        self.ends[0].call(NAMES[1], METHOD, body, TIMEOUT_MS, replies.append)
        self.run_until(lambda: replies)
        if replies[0].end is not End.OK:
            raise RuntimeError(f"{replies[0].end.name}: {replies[0].detail}")
        return (self.clock.now_us - began_us) / 1_000_000

    def _link(self, name: str, modulation: Modulation) -> RadioLink:
        emulator = RNodeEmulator(name, self.channel, lambda data: None)
        line = VirtualLine(self.clock)
        line.plug(emulator)
        return RadioLink(name, line, RNode(modulation), FREE, virtual_host(self.clock, self.rng))
