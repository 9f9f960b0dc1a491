"""A LoRa link: a modem on a line, a short queue by priority, and the rules of the air. A `Transport`.

Nothing here waits: what the line says, and timers, drive it, in asyncio's time or in a simulator's. A frame leaves the
queue when the modem has room, the airtime for it is noted (airbook.py) and every window of the band holds it. Frames
that wait when the line is lost are dropped: they were for another state of the world.

Without a region nothing is ever sent.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from offgrid_transports.line import Line
from offgrid_transports.lora.airbook import Airbook
from offgrid_transports.lora.crowd import Crowd
from offgrid_transports.lora.duty import NEVER
from offgrid_transports.lora.modem import Modem
from offgrid_transports.lora.regions import Band
from offgrid_transports.transport import BROADCAST, LinkHost, OnEvent, OnFrame, Priority, Shown

QUEUE_AIR_MS = 2_000
QUEUE_FRAMES_MIN = 4  # however slow the modulation is
RETRY_MS = 100  # until a rule that has just said no is asked again
NOTE_RETRY_MS = 10_000


class Waiting(msgspec.Struct):
    """A frame in the queue."""

    address: str
    frame: bytes
    air_us: int


class RadioLink:
    """One modem as a link. `band` None: it listens only."""

    def __init__(self, name: str, line: Line, modem: Modem, band: Band | None, host: LinkHost) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self.band = band
        self._name = name
        self._line = line
        self._modem = modem
        self._host = host
        self._queues: dict[Priority, deque[Waiting]] = {priority: deque() for priority in Priority}
        self._queued_us = 0
        self._refused: tuple[int, Priority] | None = None
        self._was_up = self._closed = False
        self._alarm_ms: int | None = None
        self._note_at_ms = 0
        self._refused_frames = self._dropped_frames = 0
        self._heard_at_ms: int | None = None
        self._crowd = Crowd()
        self._note_trouble = ""
        self.book = Airbook(band.limits if band else (), host.clock)
        self._recall()
        self._mtu_bytes = self._longest()
        line.on_open, line.on_bytes, line.on_lost = self._on_open, self._on_bytes, self._on_lost
        line.start()

    @property
    def up(self) -> bool:
        return self._modem.ready and self.band is not None and self._mtu_bytes > 0 and not self._closed

    @property
    def shared(self) -> bool:
        return True

    @property
    def bitrate_bps(self) -> int:
        return self._modem.modulation.bitrate_bps

    @property
    def access_ms(self) -> float:
        return self._modem.access_ms + self._crowd.wait_ms(self._host.now_ms())

    @property
    def duty_share(self) -> float:
        """As `transport.duty_share` has it."""
        limits = self.band.limits if self.band else ()
        return min((limit.used_us / limit.window_us for limit in limits), default=1.0)

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return self._mtu_bytes

    def airtime_ms(self, length: int) -> float:
        return self._modem.air_us(length) / 1000

    def wait_ms(self, length: int, priority: Priority) -> float:
        if not self.up or length > self._mtu_bytes:
            return math.inf
        ahead_us = self._ahead_us(priority)
        due_us = self.book.duty.earliest_us(self._now_us(), ahead_us + self._modem.air_us(length), priority)
        if due_us == NEVER:
            return math.inf
        return max((due_us - self._now_us()) / 1000, self._modem.busy_ms(self._host.now_ms()) + ahead_us / 1000)

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if len(frame) > self._mtu_bytes:
            raise ValueError(f"a frame of {len(frame)} bytes; this link carries {self._mtu_bytes}")
        air_us = self._modem.air_us(len(frame))
        if not self.up or not self._fits(air_us, priority):
            if self._refused is None or priority <= self._refused[1]:  # room for less urgent ones comes later
                self._refused = (air_us, priority)
            self._refused_frames += 1
            return False
        self._queues[priority].append(Waiting(address, frame, air_us))
        self._queued_us += air_us
        self._pump()
        self._set_alarm()
        return True

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        modem, now_us = self._modem, self._now_us()
        shown: dict[str, str | int | float] = {
            "settings": str(modem.modulation),
            "band": str(self.band) if self.band else "none: it only listens until a region is set",
            "sent_frames": modem.sent_frames,
            "heard_frames": modem.heard_frames,
            "queued_frames": sum(map(len, self._queues.values())),
            "refused_frames": self._refused_frames,
            "dropped_frames": self._dropped_frames,
            "airtime_ms": round(self.book.duty.begun_us / 1000, 3),
            **modem.figures(),
        }
        if self._heard_at_ms is not None:
            shown["last_heard_s"] = (self._host.now_ms() - self._heard_at_ms) / 1000
        if modem.rssi_dbm is not None:
            shown["rssi_dbm"] = modem.rssi_dbm
        if modem.snr_db is not None:
            shown["snr_db"] = modem.snr_db
        if self.band and self.band.limits:
            for priority in Priority:
                shown[f"left_ms_{priority.name.lower()}"] = self.book.duty.left_us(now_us, priority) // 1000
            for (priority, who), used_us in sorted(self.book.duty.used_by(now_us).items()):
                shown[f"used_ms_{priority.name.lower()}_{who}"] = used_us // 1000
        trouble = self._line.trouble or modem.trouble or self.book.trouble or self._note_trouble
        if trouble:
            shown["trouble"] = trouble
        return shown

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._modem.leave(self._host.now_ms())
        self._line.write(self._modem.take_bytes())
        self._line.close()
        self.on_frame = lambda address, frame: None
        self.on_room = self.on_change = lambda: None

    def _recall(self) -> None:
        if not self.book.duty.windows:
            return
        try:
            note = self._host.keep.load(self._note_name)
        except OSError as error:
            note, self._note_trouble = b"", f"the note of the airtime that was used cannot be read: {error}"
        self.book.recall(note, self._now_us())
        self._note(0)

    @property
    def _note_name(self) -> str:
        return f"airtime-{self._name}"

    def _note(self, air_us: int) -> None:
        def done(error: OSError | None) -> None:
            self.book.noted(error is None)
            self._note_trouble = f"airtime cannot be noted, so nothing is sent: {error}" if error else ""
            self._note_at_ms = self._host.now_ms() + (NOTE_RETRY_MS if error else 0)
            if not now:
                self._after()

        now = True
        self._host.keep.save(self._note_name, self.book.note(air_us), done)
        now = False

    def _longest(self) -> int:
        """The longest frame that the modem takes and the band ever allows."""
        most, longest_us = self._modem.frame_bytes_max, self.book.duty.longest_us
        while most and self._modem.air_us(most) > longest_us:
            most -= 1
        return most

    def _now_us(self) -> int:
        return self._host.now_ms() * 1000

    def _ahead_us(self, priority: Priority) -> int:
        return sum(waiting.air_us for other, queue in self._queues.items() if other <= priority for waiting in queue)

    def _fits(self, air_us: int, priority: Priority) -> bool:
        """Whether the queue and the rules take one more frame within the time that a queue lasts."""
        waiting = sum(map(len, self._queues.values()))
        if waiting >= QUEUE_FRAMES_MIN and self._queued_us + air_us > QUEUE_AIR_MS * 1000:
            return False
        now_us = self._now_us()
        due_us = self.book.duty.earliest_us(now_us, self._queued_us + air_us, priority)
        return due_us - now_us <= QUEUE_AIR_MS * 1000

    def _pump(self) -> None:
        """Hands over what may go."""
        now_ms = self._host.now_ms()
        self._mind_note(now_ms)
        while self.up and self._modem.has_room(now_ms):
            queue = next((queue for queue in self._queues.values() if queue), None)
            if queue is None:
                break
            waiting, priority = queue[0], next(p for p, q in self._queues.items() if q is queue)
            if not self.book.covers(waiting.air_us):
                break
            if not self.book.duty.may_send(now_ms * 1000, waiting.air_us, priority):
                break
            queue.popleft()
            self._queued_us -= waiting.air_us
            self.book.begin(now_ms * 1000, waiting.air_us, priority, waiting.address)
            self._modem.transmit(now_ms, waiting.frame)
        self._line.write(self._modem.take_bytes())

    def _mind_note(self, now_ms: int) -> None:
        need_us = max((waiting.air_us for queue in self._queues.values() for waiting in queue), default=0)
        if self.up and self.book.low(need_us) and now_ms >= self._note_at_ms:
            self._note_at_ms = now_ms + RETRY_MS
            self._note(need_us)

    def _on_open(self) -> None:
        self._modem.on_connect(self._host.now_ms(), clean=not self.book.duty.open_us)
        self._after()

    def _on_bytes(self, data: bytes) -> None:
        self._modem.on_bytes(self._host.now_ms(), data)
        self._after()

    def _on_lost(self) -> None:
        self._modem.on_lost(self._host.now_ms())
        for queue in self._queues.values():
            self._dropped_frames += len(queue)
            queue.clear()
        self._queued_us = 0
        self._after()

    def _on_alarm(self, due_ms: int) -> None:
        if self._alarm_ms == due_ms:
            self._alarm_ms = None
        if self._closed:
            return
        now_ms = self._host.now_ms()
        if self._modem.deadline_ms is not None and self._modem.deadline_ms <= now_ms:
            self._modem.on_timer(now_ms)
        self._after()

    def _after(self) -> None:
        """What follows from something that has happened outside."""
        if self._closed:
            return
        modem, now_ms = self._modem, self._host.now_ms()
        ends_us = (now_ms + 1) * 1000
        if modem.take_emptied():  # a modem that has started anew may still have its last frame on the air
            self.book.duty.settle_all(ends_us + modem.air_us(modem.frame_bytes_max))
        settled = modem.take_settled()
        if settled:
            self.book.duty.settle(settled, ends_us)
        heard = modem.take_heard()
        if heard:
            self._heard_at_ms = now_ms
        for frame in heard:
            self._crowd.hear(now_ms, modem.air_us(min(len(frame), modem.frame_bytes_max)) / 1000)
        self._pump()
        self._set_alarm()
        if self.up != self._was_up:
            self._was_up = self.up
            self.on_change()
        for frame in heard:
            self.on_frame(BROADCAST, frame)
        if self._refused is not None and self.up and self._fits(*self._refused):
            self._refused = None
            self.on_room()

    def _set_alarm(self) -> None:
        now_ms, due_ms = self._host.now_ms(), self._modem.deadline_ms
        waiting = next(((p, queue[0]) for p, queue in self._queues.items() if queue), None)
        asked = (waiting[1].air_us, waiting[0]) if waiting else self._refused
        if self.up and asked is not None and not self.book.duty.may_send(now_ms * 1000, *asked):
            allowed_us = self.book.duty.earliest_us(now_ms * 1000, *asked)
            if allowed_us < NEVER:
                rule_ms = max(now_ms + RETRY_MS, -(-allowed_us // 1000))
                due_ms = rule_ms if due_ms is None else min(due_ms, rule_ms)
        if self._note_at_ms > now_ms:
            due_ms = self._note_at_ms if due_ms is None else min(due_ms, self._note_at_ms)
        if due_ms is None or (self._alarm_ms is not None and self._alarm_ms <= due_ms):
            return
        self._alarm_ms = due_ms = max(due_ms, now_ms)
        self._host.schedule(due_ms - now_ms, lambda: self._on_alarm(due_ms))
