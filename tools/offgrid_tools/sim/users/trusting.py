"""Who has much to be done that need not be done twice where the host is trusted: so that spot checks can be counted."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_tools.sim.users.demands import JOB_TIMEOUT_MS, DemandingUser

REPLICAS, QUORUM = 3, 2
PROGRAM_CHANCE = 0.2


class TrustingUser(DemandingUser):
    """One person at one core; as many calls as `arrays`, and nothing of them is taken back."""

    wants = "adaptive jobs"
    jobs = 60, 60
    cancel_chance = 0.0

    def _spec(self, number: int, *, deadlines: bool) -> jobs_pb2.JobSpec:
        work = f"{self._name} {number} {self._engine.rng.random()}".encode()
        payload = self._payload(work, PROGRAM_CHANCE)
        return jobs_pb2.JobSpec(
            payload=payload, timeout_ms=JOB_TIMEOUT_MS, replicas=REPLICAS, quorum=QUORUM, adaptive=True
        )
