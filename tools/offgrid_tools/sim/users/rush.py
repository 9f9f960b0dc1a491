"""Who asks for more at once than the market has slots: so that jobs wait in line, and priorities and deadlines count.
Some name what they pay, some take in what an earlier one put out, some need what one host alone has."""

from __future__ import annotations

from random import Random

from offgrid.v1 import jobs_pb2
from offgrid_tools.sim.bustle import RARE
from offgrid_tools.sim.engine import Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.demands import DemandingUser

JOBS_MIN, JOBS_MAX = 20, 48  # of one call; a market has some twenty slots
SIZES_TOKENS = (0, 1, 250_000, 1_000_000, 3_000_000)
PRICES_MAX_MICRO = (0, 0, 6_000, 20_000)  # 0: whatever the core allows; no host asks more than the least of the others
URGENCIES = (-50, 0, 0, 0, 0, 50, 100)
PRICED_CHANCE, CHAIN_CHANCE, RARE_CHANCE = 0.3, 0.15, 0.1


class RushUser(DemandingUser):
    """One person at one core; as many calls as `rushes`."""

    wants = "a rush of jobs"
    jobs = JOBS_MIN, JOBS_MAX

    def __init__(
        self, engine: Engine, monitor: Monitor, core: Process, rushes: int, name: str, *, chains: bool
    ) -> None:
        super().__init__(engine, monitor, core, rushes, name)
        self._chains, self._odds = chains, Random(f"rush {name} {engine.rng.random()}")  # noqa: S311 - to be repeatable

    def _spec(self, number: int, *, deadlines: bool) -> jobs_pb2.JobSpec:
        odds, spec = self._odds, super()._spec(number, deadlines=deadlines)
        if not spec.after:  # most are alike, so that they stand in one line
            spec.priority = odds.choice(URGENCIES)
        if odds.random() < PRICED_CHANCE:
            spec.size_tokens, spec.price_max_micro = odds.choice(SIZES_TOKENS), odds.choice(PRICES_MAX_MICRO)
        if self._chains and number and odds.random() < CHAIN_CHANCE:
            self._chain(spec, number)
        elif odds.random() < RARE_CHANCE:
            spec.payload.process.command = RARE
            self._monitor.jobs.expect(spec.payload)
        return spec

    def _chain(self, spec: jobs_pb2.JobSpec, number: int) -> None:
        """What an earlier one puts out is this one's input."""
        first = f"#{self._odds.randrange(number)}"
        if first not in spec.after:
            spec.after.append(first)
        spec.payload.input, spec.payload.input_job = b"", first
        spec.payload.input_name = f"{self._name} {number} {self._odds.random()}"
        self._monitor.jobs.chains.expect(spec.payload)
