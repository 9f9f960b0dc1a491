"""What work under way says, on its way from this host's executors to its cores: gathered, and sent for as long as
somebody listens.

None of it is durable and none of it has to arrive: the result has all of it in the end. What jobs say within GATHER_MS
shares one call; a core answers whom nobody watches, and of those no log is sent until it says otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Progress
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX, MESSAGE_CHARS_MAX
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.services.flow import Later
from offgrid_node.services.objects.holders import Carrier

REPORT_PROGRESS = "offgrid.v1.MarketService/ReportProgress"
GATHER_MS = 100
MUTED_MS = 500  # between two questions whether anybody listens now
CALL_TIMEOUT_MS = 5_000
OUTPUT_BYTES_MAX = 256 * 1024  # of what is written to standard output bit by bit; what follows is in the result
CALL_BYTES_MAX, CALL_ITEMS_MAX = 64 * 1024, 64
SPOKEN_MAX = 4096  # jobs that say something at a time


class Spoken(msgspec.Struct):
    """All that one attempt has said, and how much of it has been sent."""

    fraction: float | None = None
    message: str = ""
    log: bytearray = msgspec.field(default_factory=bytearray)
    output: bytearray = msgspec.field(default_factory=bytearray)
    log_sent: int = 0
    output_sent: int = 0
    news: bool = False  # of fraction or message
    heard: bool = False  # somebody watches, as its core has said
    muted: bool = False  # nobody does, or its core does not answer

    def add(self, said: Progress) -> None:
        if said.fraction is not None or said.message:
            self.fraction = said.fraction if said.fraction is not None else self.fraction
            self.message, self.news = said.message[:MESSAGE_CHARS_MAX] or self.message, True
        self.log += said.log[: LOG_BYTES_MAX - len(self.log)]
        self.output += said.output[: OUTPUT_BYTES_MAX - len(self.output)]

    @property
    def waits(self) -> bool:
        return self.news or self.log_sent < len(self.log) or self.output_sent < len(self.output)

    def next_part(self, key: ClaimKey, room_bytes: int) -> jobs_pb2.JobProgress:
        part = jobs_pb2.JobProgress(job_id=key[1], attempt=key[2], message=self.message)
        part.log_offset, part.output_offset = self.log_sent, self.output_sent
        if self.fraction is not None:
            part.fraction = self.fraction
        if self.heard:
            part.log = bytes(self.log[self.log_sent : self.log_sent + room_bytes])
            room_bytes -= len(part.log)
            part.output = bytes(self.output[self.output_sent : self.output_sent + room_bytes])
        return part

    def on_sent(self, part: jobs_pb2.JobProgress, *, watched: bool) -> None:
        """Its core has it; who begins to listen hears it from the start."""
        self.news = self.news and (self.message, self.fraction) != (part.message, _fraction(part))
        if watched and self.heard:
            self.log_sent, self.output_sent = part.log_offset + len(part.log), part.output_offset + len(part.output)
        else:
            self.log_sent = self.output_sent = 0
        self.heard, self.muted = watched, not watched


class Speech:
    """Of all work under way here."""

    def __init__(self, carrier: Carrier, later: Later) -> None:
        self._carrier, self._later = carrier, later
        self._spoken: dict[ClaimKey, Spoken] = {}
        self._lock = threading.Lock()
        self._due: set[bool] = set()  # False: what is to be sent soon; True: what is asked for now and then
        self._calls: set[str] = set()  # cores that have not answered yet

    def on_said(self, key: ClaimKey, said: Progress) -> None:
        """In any thread, and quick."""
        with self._lock:
            spoken = self._spoken.get(key)
            if spoken is None:
                if len(self._spoken) >= SPOKEN_MAX:
                    return
                spoken = self._spoken[key] = Spoken()
            spoken.add(said)
            muted = spoken.muted
        self._send_later(muted=muted)

    def on_end(self, key: ClaimKey) -> None:
        """What was not sent is in its result."""
        with self._lock:
            self._spoken.pop(key, None)

    def _send_later(self, *, muted: bool) -> None:
        with self._lock:
            if muted in self._due:
                return
            self._due.add(muted)
        self._later(MUTED_MS if muted else GATHER_MS, lambda: self._send(muted=muted))

    def _send(self, *, muted: bool) -> None:
        with self._lock:
            self._due.discard(muted)
            requests = self._requests(muted=muted)
        for core, request in requests.items():
            self._calls.add(core)
            done = self._on_answer(core, request)
            self._carrier.request(core, REPORT_PROGRESS, request, CALL_TIMEOUT_MS, done)

    def _requests(self, *, muted: bool) -> dict[str, jobs_pb2.ReportProgressRequest]:
        requests: dict[str, jobs_pb2.ReportProgressRequest] = {}
        room = dict[str, int]()
        for key, spoken in self._spoken.items():
            core = key[0]
            if core in self._calls or not spoken.waits or (spoken.muted and not muted):
                continue
            request = requests.setdefault(core, jobs_pb2.ReportProgressRequest())
            left = room.setdefault(core, CALL_BYTES_MAX)
            if len(request.progress) < CALL_ITEMS_MAX and left > 0:
                part = spoken.next_part(key, left)
                room[core] = left - len(part.log) - len(part.output)
                request.progress.append(part)
        return requests

    def _on_answer(self, core: str, request: jobs_pb2.ReportProgressRequest) -> Callable[[Message | Fault], None]:
        def done(answer: Message | Fault) -> None:
            self._calls.discard(core)
            unwatched: set[tuple[str, int]] | None = None
            if isinstance(answer, jobs_pb2.ReportProgressResponse):
                unwatched = {(key.job_id, key.attempt) for key in answer.unwatched}
            with self._lock:
                for part in request.progress:
                    key = part.job_id, part.attempt
                    if (spoken := self._spoken.get((core, *key))) is None:
                        continue
                    if unwatched is None:  # it was not told: asked again, now and then
                        spoken.muted = True
                    else:
                        spoken.on_sent(part, watched=key not in unwatched)
                waiting = {spoken.muted for key, spoken in self._spoken.items() if key[0] == core and spoken.waits}
            for muted in waiting:
                self._send_later(muted=muted)

        return done


def _fraction(part: jobs_pb2.JobProgress) -> float | None:
    return part.fraction if part.HasField("fraction") else None
