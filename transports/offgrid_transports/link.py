"""What both halves of an endpoint share: the link's figures, the frames waiting to leave, the delay to each peer."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from offgrid_transports.arq import POLL_FRAMES, DelayEstimator, Sender, backoff
from offgrid_transports.fragment import FragmentSet, split
from offgrid_transports.framing import BITMAP_BYTES_MAX, HEADER_BYTES, Frame, Kind, encode
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Transport

OUTBOX_FRAMES_MAX = 16_384  # beyond it frames are dropped, as a full radio would; the sender repeats them
PEERS_MEASURED_MAX = 1024
ACK_DELAY_MS_MIN = 4
MTU_BYTES_MIN = HEADER_BYTES + 18


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """The figures of a link that timers and fragment sizes follow from."""

    mtu_bytes: int
    airtime_ms: Callable[[int], float]
    delay_ms: int = 100
    """A first guess of the time to an answer, used until it is measured."""
    ack_delay_ms: int = ACK_DELAY_MS_MIN
    """How long an acknowledgement waits for stragglers, or for an answer that makes it superfluous."""

    @classmethod
    def of(cls, transport: Transport) -> LinkProfile:
        """What a transport says of itself. An acknowledgement waits at least as long as it would take on the air."""
        ack_delay_ms = max(ACK_DELAY_MS_MIN, math.ceil(transport.airtime_ms(HEADER_BYTES)))
        return cls(transport.mtu_bytes(), transport.airtime_ms, ack_delay_ms=ack_delay_ms)


class Link:
    """Frames out, bounded and counted."""

    def __init__(self, profile: LinkProfile) -> None:
        if profile.mtu_bytes < MTU_BYTES_MIN:
            raise ValueError(f"mtu_bytes: at least {MTU_BYTES_MIN}, not {profile.mtu_bytes}")
        self.profile = profile
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        """What was dropped or refused, by reason."""
        self.part_bytes = profile.mtu_bytes - HEADER_BYTES
        self._outbox: deque[tuple[str, bytes]] = deque()
        self.outbox_airtime_ms = 0.0
        """How long the link will be busy with what waits to leave."""
        self._delays: OrderedDict[str, DelayEstimator] = OrderedDict()
        self._ack_airtime_ms = profile.airtime_ms(min(profile.mtu_bytes, HEADER_BYTES + BITMAP_BYTES_MAX))

    def emit(self, peer: str, frame: Frame) -> None:
        if len(self._outbox) >= OUTBOX_FRAMES_MAX:
            self.counts["outbox_full"] += 1
            return
        data = encode(frame)
        self._outbox.append((peer, data))
        self.outbox_airtime_ms += self.profile.airtime_ms(len(data))

    def take_frames(self, limit: int) -> list[tuple[str, bytes]]:
        frames = [self._outbox.popleft() for _ in range(min(limit, len(self._outbox)))]
        if self._outbox:
            self.outbox_airtime_ms -= sum(self.profile.airtime_ms(len(data)) for _, data in frames)
        else:
            self.outbox_airtime_ms = 0.0
        return frames

    def acknowledge(self, peer: str, frame: Frame, held: FragmentSet) -> None:
        """Says what is held of the message that `frame` belongs to."""
        bitmap = held.held_bitmap(min(BITMAP_BYTES_MAX, self.part_bytes))
        self._ack(peer, frame, held.base, held.total, bitmap)

    def acknowledge_all(self, peer: str, frame: Frame, total: int) -> None:
        """Says that the whole message is held, or not wanted any more."""
        self._ack(peer, frame, total, total, b"")

    def _ack(self, peer: str, frame: Frame, base: int, total: int, bitmap: bytes) -> None:
        kind = Kind.REQUEST_ACK if frame.kind is Kind.REQUEST else Kind.RESPONSE_ACK
        self.emit(peer, Frame(kind, frame.session, frame.call, base, total, frame.round, payload=bitmap))

    def delay_of(self, peer: str) -> DelayEstimator:
        found = self._delays.get(peer)
        if found is None:
            found = self._delays[peer] = DelayEstimator(self.profile.delay_ms)
            if len(self._delays) > PEERS_MEASURED_MAX:
                self._delays.popitem(last=False)
        else:
            self._delays.move_to_end(peer)
        return found

    def wait_ms(self, peer: str, silent: int) -> int:
        """How long to wait for the answer to what is in the outbox now, after `silent` fruitless waits."""
        patience = self.delay_of(peer).patience_ms + self.profile.ack_delay_ms
        on_air_ms = self.outbox_airtime_ms + self._ack_airtime_ms
        return backoff(patience, silent) + math.ceil(on_air_ms)


class Outgoing:
    """One message on its way to a peer: fragments, the current burst and its timer."""

    def __init__(self, link: Link, peer: str, like: Frame, message: bytes) -> None:
        """`like` gives kind, session and call. Raises MessageTooLarge."""
        self._link = link
        self._peer = peer
        self._parts = split(message, link.part_bytes)
        self._like = replace(like, total=len(self._parts))
        self._sender = Sender(len(self._parts))
        self._sent_ms = 0
        self._burst_airtime_ms = 0
        self.due_ms: int | None = None

    @property
    def done(self) -> bool:
        return self._sender.done

    @property
    def silent(self) -> int:
        return self._sender.silent

    def begin(self, now_ms: int) -> None:
        """Sends a burst; also called to start again after `rest`."""
        self._send(now_ms, self._sender.burst())

    def on_ack(self, now_ms: int, frame: Frame) -> None:
        """Goes on with the next burst, or finishes."""
        current = frame.round == self._sender.round
        if current and self.due_ms is not None:
            self._link.delay_of(self._peer).sample(now_ms - self._sent_ms - self._burst_airtime_ms)
        if self._sender.on_ack(frame.round, frame.index, frame.payload):
            self._send(now_ms, self._sender.burst())
        elif self._sender.done:
            self.due_ms = None

    def on_silence(self, now_ms: int) -> None:
        """The timer has passed: asks again."""
        self._send(now_ms, self._sender.question())

    def finish(self, now_ms: int) -> None:
        """The peer surely has it all: it answered."""
        delay = self._link.delay_of(self._peer)
        delay_ms = now_ms - self._sent_ms - self._burst_airtime_ms
        if self.due_ms is not None and self._sender.round == 1 and delay_ms < delay.patience_ms:
            delay.sample(delay_ms)  # a later answer may tell of slow work or a lost acknowledgement instead
        self._sender.done = True
        self.due_ms = None

    def rest(self) -> None:
        """Sends nothing more until `begin` is called again."""
        self.due_ms = None

    def _send(self, now_ms: int, indices: list[int]) -> None:
        asking = indices[-POLL_FRAMES:]
        for index in indices:
            like = self._like
            self._link.emit(
                self._peer,
                Frame(
                    like.kind,
                    like.session,
                    like.call,
                    index,
                    like.total,
                    self._sender.round,
                    index in asking,
                    self._parts[index],
                ),
            )
        wait_ms = self._link.wait_ms(self._peer, self._sender.silent)
        self._sent_ms = now_ms
        self._burst_airtime_ms = math.ceil(self._link.outbox_airtime_ms)
        self.due_ms = now_ms + wait_ms
