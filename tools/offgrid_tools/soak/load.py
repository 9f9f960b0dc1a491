"""A steady stream of small jobs of all kinds, by clients that repeat what they got no answer to, as clients should."""

from __future__ import annotations

from dataclasses import dataclass, field

from offgrid.client import Client, OffgridError
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.soak.clients import PAUSE_S, Writer
from offgrid_tools.soak.works import chain, draw

OPEN_MAX = 12  # jobs of one client that have not ended; then it waits
CHAIN_CHANCE, CHAIN = 0.1, 3
REPENT_S_MAX = 0.6


@dataclass(slots=True)
class Acked:
    """What the core has acknowledged of one job; from then on it must neither vanish nor end twice."""

    job_id: str
    expected: bytes
    dispatched: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    taken_back: bool = False  # or, if it was too late, completed
    is_cancelled: bool = False  # the core has said so


@dataclass(slots=True)
class Load(Writer):
    """One client that has jobs done."""

    acked: list[Acked] = field(default_factory=list)
    _task_id: str = ""

    def begin(self, client: Client) -> None:
        self._task_id = self.insist(lambda: self._task(client)) or ""

    def step(self, client: Client, number: int) -> None:
        if self.rng.random() < CHAIN_CHANCE:
            self._submit_chain(client, self._task_id, number)
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
        acked = Acked(job_id, want.expected, files=want.files, taken_back=want.taken_back)
        self.acked.append(acked)
        if self.rng.random() < 0.2:  # a client that has forgotten that it was answered
            again = self.insist(create)
            if again is not None and again != job_id:
                self.violations.append(f"request {request_id} made two jobs: {job_id} and {again}")
        acked.dispatched = self.insist(lambda: self._dispatch(client, job_id)) is not None
        if want.taken_back and acked.dispatched:
            self._stop.wait(self.rng.uniform(0, REPENT_S_MAX))
            acked.is_cancelled = job_id in (self.insist(lambda: client.jobs.cancel([job_id])) or [])

    def _submit_chain(self, client: Client, task: str, number: int) -> None:
        """Several in one call, each after the one before it: all of them or none."""
        contents = [self._content(number) for _ in range(CHAIN)]
        specs, request_id = chain(contents), f"{self.name}-{number}"
        made = self.insist(lambda: client.jobs.start(task, specs, request_id=request_id))
        if made is not None:
            pairs = zip(made.job_ids, contents, strict=True)
            self.acked += [Acked(job_id, content, dispatched=True) for job_id, content in pairs]

    def _content(self, number: int) -> bytes:
        return f"{self.name} {number} {self.rng.getrandbits(64):x}".encode()

    def _dispatch(self, client: Client, job_id: str) -> bool:
        try:
            client.jobs.dispatch(job_id)
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
