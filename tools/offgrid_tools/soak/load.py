"""A steady stream of small jobs of all kinds, by clients that repeat what they got no answer to, as clients should."""

from __future__ import annotations

import msgspec

from offgrid.client import Client, OffgridError
from offgrid.v1.jobs_pb2 import JobSpec
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.soak.clients import PAUSE_S, Writer
from offgrid_tools.soak.works import array, chain, draw

OPEN_MAX = 12  # jobs of one client that have not ended; then it waits
CHAIN_CHANCE, CHAIN = 0.1, 3
ARRAY_CHANCE, ARRAY = 0.1, 4
REPENT_S_MAX = 0.6


class Acked(msgspec.Struct):
    """What the core has acknowledged of one job; from then on it must neither vanish nor end twice."""

    job_id: str
    expected: bytes
    dispatched: bool = False
    files: dict[str, bytes] = msgspec.field(default_factory=dict)
    taken_back: bool = False  # or, if it was too late, completed
    is_cancelled: bool = False  # the core has said so
    has_receipt: bool = True


class Load(Writer):
    """One client that has jobs done."""

    acked: list[Acked] = msgspec.field(default_factory=list)
    _task_id: str = ""

    def begin(self, client: Client) -> None:
        self._task_id = self.insist(lambda: self._task(client)) or ""

    def step(self, client: Client, number: int) -> None:
        drawn = self.rng.random()
        if drawn < CHAIN_CHANCE:
            self._start(client, number, *chain(self._contents(number, CHAIN)))
        elif drawn < CHAIN_CHANCE + ARRAY_CHANCE:
            self._start(client, number, *array(self._contents(number, ARRAY), self.rng))
        else:
            self._submit(client, self._task_id, number)
        self._wait_for_room(client)

    def _task(self, client: Client) -> str:
        mission = client.missions.create(self.name, request_id=f"{self.name}-m")
        return client.tasks.create(mission.mission_id, self.name, "compute", request_id=f"{self.name}-t").task_id

    def _submit(self, client: Client, task: str, number: int) -> None:
        want, request_id = draw(self._content(number), self.rng), f"{self.name}-{number}"

        def create() -> str:
            return client.jobs.create(task, want.payload, request_id=request_id, **want.options).job_id

        job_id = self.insist(create)
        if job_id is None:
            return
        acked = Acked(job_id, want.expected, files=want.files, taken_back=want.taken_back, has_receipt=want.has_receipt)
        self.acked.append(acked)
        if self.rng.random() < 0.2:  # a client that has forgotten that it was answered
            again = self.insist(create)
            if again is not None and again != job_id:
                self.violations.append(f"request {request_id} made two jobs: {job_id} and {again}")
        acked.dispatched = self.insist(lambda: self._dispatch(client, job_id, want.mode)) is not None
        if want.taken_back and acked.dispatched:
            self._stop.wait(self.rng.uniform(0, REPENT_S_MAX))
            acked.is_cancelled = job_id in (self.insist(lambda: client.jobs.cancel([job_id])) or [])

    def _start(self, client: Client, number: int, specs: list[JobSpec], expected: list[bytes]) -> None:
        """Several in one call, some after others: all of them or none."""
        made = self.insist(lambda: client.jobs.start(self._task_id, specs, request_id=f"{self.name}-{number}"))
        if made is not None:
            pairs = zip(made.job_ids, expected, strict=True)
            self.acked += [Acked(job_id, content, dispatched=True) for job_id, content in pairs]

    def _contents(self, number: int, count: int) -> list[bytes]:
        return [self._content(number) for _ in range(count)]

    def _content(self, number: int) -> bytes:
        return f"{self.name} {number} {self.rng.getrandbits(64):x}".encode()

    def _dispatch(self, client: Client, job_id: str, mode: str) -> bool:
        try:
            client.jobs.dispatch(job_id, mode)
        except OffgridError as error:
            if error.reason != "JobEnded":  # an earlier try got through, and no answer came back
                raise
        return True

    def _wait_for_room(self, client: Client) -> None:
        recent = self.acked[-OPEN_MAX:]
        if len(recent) < OPEN_MAX:
            return
        oldest = recent[0].job_id
        while not self._stop.is_set():
            job = self.insist(lambda: client.jobs.get(oldest))
            if job is None or job.state in ENDED:
                return
            self._stop.wait(PAUSE_S)
