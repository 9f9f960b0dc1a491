"""What a LoRa modem on a line is to the link above it: bytes and time go in, bytes and frames come out. Pure.

One class for each kind of modem (rnode.py, meshcore.py, meshtastic.py); radio.py drives them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from offgrid_transports.lora.kiss import KissDecoder
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.transport import Shown

UNPROVEN_MS = 60_000
"""A modem that does not tell when a frame has left is trusted to send it within this."""


class Modem(ABC):
    """A modem that is found, set up, verified and then used. Inputs are `on_*`, `transmit` and `leave`; after each of
    them the owner takes the outputs and minds `deadline_ms`."""

    frame_bytes_max: int
    modulation: Modulation
    """What it is set to, with the preamble that this modem sends."""
    ready = False
    """It is found, and set up as asked; frames may be heard, and sent where there is room."""
    trouble = ""
    """Why it is not ready, for people."""
    deadline_ms: int | None = None
    """When `on_timer` wants to be called."""

    def __init__(self) -> None:
        self.heard_frames = self.sent_frames = self.errors = 0
        self.rssi_dbm: int | None = None
        self.snr_db: float | None = None
        self._out = bytearray()
        self._heard: list[bytes] = []
        self._settled = 0
        self._emptied = False

    @abstractmethod
    def on_connect(self, now_ms: int, clean: bool) -> None:
        """The line is open. Not `clean`: it may still hold frames of an earlier connection, which must not leave under
        other settings."""

    @abstractmethod
    def on_bytes(self, now_ms: int, data: bytes) -> None:
        """The modem said this."""

    @abstractmethod
    def on_timer(self, now_ms: int) -> None:
        """`deadline_ms` has come."""

    @abstractmethod
    def on_lost(self, now_ms: int) -> None:
        """The line is gone."""

    @abstractmethod
    def has_room(self, now_ms: int) -> bool:
        """Whether it takes a frame now; `deadline_ms` says when to ask again."""

    @abstractmethod
    def transmit(self, now_ms: int, frame: bytes) -> None:
        """Hands it a frame. The owner has asked `has_room`."""

    @abstractmethod
    def leave(self, now_ms: int) -> None:
        """Nothing follows: the radio shall send no more."""

    @abstractmethod
    def air_us(self, length: int) -> int:
        """What a frame of `length` bytes takes on the air, with what the modem adds to it."""

    @property
    @abstractmethod
    def access_ms(self) -> float:
        """How long its listening before talking takes, as a rule."""

    @abstractmethod
    def busy_ms(self, now_ms: int) -> float:
        """How long what it has been handed will take, as far as is known."""

    @abstractmethod
    def figures(self) -> Shown:
        """What it says of itself."""

    def take_bytes(self) -> bytes:
        """What is to be written to the line."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def take_heard(self) -> list[bytes]:
        """Frames from the air, in order."""
        heard, self._heard = self._heard, []
        return heard

    def take_settled(self) -> int:
        """How many of the oldest frames have left by now."""
        settled, self._settled = self._settled, 0
        return settled

    def take_emptied(self) -> bool:
        """Whether it has become certain that it holds no frame."""
        emptied, self._emptied = self._emptied, False
        return emptied

    def _hear(self, frame: bytes) -> None:
        self.heard_frames += 1
        self._heard.append(frame)


class KissModem(Modem):
    """A modem that speaks KISS."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = KissDecoder()

    def on_bytes(self, now_ms: int, data: bytes) -> None:
        for command, payload in self._decoder.feed(data):
            self.on_command(now_ms, command, payload)

    @abstractmethod
    def on_command(self, now_ms: int, command: int, payload: bytes) -> None:
        """The modem said one frame."""

    @property
    def dropped_bytes(self) -> int:
        """What came over the line and was no frame."""
        return self._decoder.dropped_bytes

    def _begin_line(self) -> None:
        dropped, self._decoder = self._decoder.dropped_bytes, KissDecoder()
        self._decoder.dropped_bytes = dropped
        self._out.clear()
