"""What befalls a cluster, drawn from the seed: bad roads all the time, and one misfortune after another until it heals.

Mild seeds have short crashes and failing disks only: there every job must come to its right end. In the others a job
may also end for want of hosts or brokers, as long as the last misfortune is recent enough to explain it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.terms import LOSSES_MAX
from offgrid_node.protocol.ledger.tables import LOG, SLOTS, TRANSFERS
from offgrid_node.protocol.mail.tables import HELD, MESSAGES, OUTBOX, OWN, SEEN
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, WRAP_LABELS
from offgrid_node.protocol.quorum.tables import FENCES, QUORUMS
from offgrid_node.protocol.state.sessions.tables import BLOCKS, PURGING, RETENTION, SESSIONS, SNAPSHOTS
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_tools.sim.breakage import Breakage
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.driver import AFTER_COMMIT, BEFORE_COMMIT, Springs, says_of_jobs, writes_to
from offgrid_tools.sim.echo import Echo
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.network import Faults
from offgrid_tools.sim.owners_disks import OwnersDisks
from offgrid_tools.sim.plan import CORE_PRICE, PRICES, Plan
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.unrest import Unrest
from offgrid_tools.sim.vices import FORKS, REMOVED

CHAOS_US, STORM_US = (8 * SECOND, 24 * SECOND), (40 * SECOND, 60 * SECOND)
GAP_MAX_US, STORM_GAP_MAX_US, CUT_GAP_MAX_US = 2_500 * MS, 1_200 * MS, 200 * MS
CUT_AGAIN_CHANCE = 0.2
TRAP_PATIENCE_US = 3 * SECOND
EXCUSE_US = 60 * SECOND  # retries of 2, 4 and 8 s, lost calls of 5 s each, and time-outs between them
CHANGE_CHANCE = 0.2
UNREADABLE_CHANCE, UNREADABLE_MAX_US = 0.5, 1_000 * MS
BYTES_PER_S = (0, 0, 0, 1_000_000, 100_000, 10_000)  # 0: a message's size costs nothing; the last is a slow radio link
RESETS, RESET_ALL_CHANCE = (0.0, 0.0, 0.002, 0.01), 0.3
CLOCK_STEP_MAX_US = 86_400 * SECOND
# What a crash may wait for: jobs as often as all else, but what a witness says where one forks.
VOTES = writes_to(frozenset({SLOTS, LOG, TRANSFERS}))
KEEPING = writes_to(frozenset({OBJECTS, REPLICAS, QUORUMS, FENCES}))
BAITS = (says_of_jobs, says_of_jobs, KEEPING, VOTES)
TALK_BAITS = (
    writes_to(frozenset({BLOCKS})),
    writes_to(frozenset({PURGING})),
    writes_to(frozenset({SESSIONS, SNAPSHOTS, SUMMARIES, RETENTION})),
)
MAIL_BAITS = (writes_to(frozenset({OWN, OUTBOX})), writes_to(frozenset({HELD})), writes_to(frozenset({SEEN, MESSAGES})))
VAULT_BAITS = (KEEPING, writes_to(frozenset({WRAP_LABELS})))  # where there are neither jobs nor votes


class Weather(msgspec.Struct, frozen=True):
    """How the roads are as long as the seed's misfortunes last."""

    mild: bool
    loss: float
    duplicate: float
    delay_max_us: int
    duplicate_late_us: int
    bytes_per_s: int
    reset: float

    def faults(self) -> Faults:
        return Faults(
            self.loss, self.duplicate, self.delay_max_us, self.duplicate_late_us, self.bytes_per_s, self.reset
        )


class Nemesis:
    """Begins at once, ends by `heal`, which is called after a bounded time."""

    def __init__(self, cluster: Cluster, plan: Plan, on_healed: Callable[[], None]) -> None:
        self._cluster, self._engine, self._on_healed = cluster, cluster.engine, on_healed
        rng = self._engine.rng
        self.weather = Weather(
            mild=rng.random() < 0.25,
            loss=rng.choice((0.0, 0.02, 0.05, 0.15)),
            duplicate=rng.choice((0.0, 0.05, 0.2)),
            delay_max_us=rng.choice((2 * MS, 20 * MS, 150 * MS, 600 * MS)),
            duplicate_late_us=rng.choice((2 * MS, 500 * MS, 6 * SECOND)),
            bytes_per_s=rng.choice(BYTES_PER_S),
            reset=rng.choice(RESETS),
        )
        if self.weather.mild:
            self.weather = replace(self.weather, loss=0.0, delay_max_us=20 * MS, bytes_per_s=0, reset=0.0)
        self.until_us = rng.randint(*(STORM_US if plan.storm else CHAOS_US))
        self._gap_max_us = STORM_GAP_MAX_US if plan.storm else GAP_MAX_US
        if plan.vault and plan.vault.cuts:
            self._gap_max_us = CUT_GAP_MAX_US
        self._baits: tuple[Springs, ...] = (
            (*BAITS, VOTES, VOTES, VOTES) if plan.having(FORKS) else VAULT_BAITS if plan.vault else BAITS
        )
        if plan.talk is not None:
            self._baits = TALK_BAITS
        self.counts: dict[str, int] = {}
        self.last_us = self._felled = 0
        self._over = False
        self._lying_broker = bool(plan.broker_liar)
        self._never_meet = plan.post is not None  # two that moved would never find each other again
        cluster.network.faults = self.weather.faults()
        self._engine.after(self.until_us, self.heal)
        for process in cluster.processes.values():
            process.on_killed = partial(self._killed, process)
            process.on_cut = partial(self._cut, process)
        self._change_members(plan.joins, plan.having(REMOVED))
        breakage = Breakage(cluster, self._count, self._mend, lambda: self._over)
        breakage.begin(plan)
        if plan.vault is not None:
            Echo(cluster)
            OwnersDisks(cluster, self._count, lambda: self._over).begin(plan.vault)
        unrest = Unrest(cluster, self._mend, lambda: self._over)
        self._more = breakage.misfortunes if plan.vault else unrest.misfortunes if plan.bustle.unrest else ()
        self._only: tuple[Callable[[], None], ...] = (breakage.power_cut,) if plan.vault and plan.vault.cuts else ()
        if plan.talk is not None:
            own = (self._crash, self._trap, self._trap, *[self._commit_failure] * 3, self._clock_step)
            self._only = (*own, breakage.power_cut, breakage.store_full)
        if plan.post is not None:  # a clock that is set by a day: no seed sees its mail expire
            self._baits = MAIL_BAITS
            own = (self._crash, self._trap, self._trap, self._trap, self._commit_failure, self._reset)
            self._only = own if plan.post.apart else (*own, self._partition, self._one_way)
        self._next()

    def excuses(self, error: str) -> bool:
        """Whether a job that ends now for want of hosts or brokers is explained by what has happened: a broker that
        lies may always say that there are none, and each of a mild seed's crashes may have been of a job's host."""
        lately = self._engine.now_us - self.last_us < EXCUSE_US
        worn_out = error == "AttemptsExhausted" and self._felled > LOSSES_MAX
        return self._lying_broker or worn_out or (lately and not self.weather.mild)

    def _change_members(self, joins: bool, removed: Sequence[str]) -> None:
        cluster = self._cluster
        if joins:
            self._at_some_time("join", cluster.join)
        for name in removed:
            self._at_some_time("remove", partial(cluster.remove, name))

    def _at_some_time(self, what: str, misfortune: Callable[[], None]) -> None:
        self._engine.after(self._engine.rng.randint(0, self.until_us), lambda: self._count(what, misfortune))

    def _next(self) -> None:
        self._engine.after(int(self._engine.rng.random() * self._gap_max_us), self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        mild = (self._crash, self._trap, self._trap, self._trap, self._commit_failure, self._clock_step, self._reset)
        wild = (self._partition, self._one_way, self._slow, self._lossy)
        all_of_them = mild if self.weather.mild else (*mild, *wild, *self._more)
        misfortune = self._engine.rng.choice(self._only or all_of_them)
        self._count(misfortune.__name__.strip("_"), misfortune)
        self._next()

    def _count(self, what: str, misfortune: Callable[[], None]) -> None:
        self.last_us = self._engine.now_us
        self.counts[what] = self.counts.get(what, 0) + 1
        self._engine.note(f"nemesis {what}")
        misfortune()

    # ---- misfortunes

    def _someone(self) -> Process:
        return self._engine.rng.choice(list(self._cluster.processes.values()))

    def _crash(self) -> None:
        self._fell(self._someone())

    def _trap(self) -> None:
        """A crash in the moment before or after the next commit that matters."""
        process = self._engine.rng.choice((self._cluster.founder, self._someone()))
        if not process.up:
            return
        boots = process.boots
        process.trap = self._engine.rng.choice((BEFORE_COMMIT, AFTER_COMMIT))
        process.trap_on = self._engine.rng.choice(self._baits)
        process.on_trapped = lambda: self._fell(process)

        def disarm() -> None:
            if process.boots == boots:
                process.trap = ""

        self._engine.after(TRAP_PATIENCE_US, disarm)

    def _fell(self, process: Process) -> None:
        if not process.up:
            return
        rng, self._felled = self._engine.rng, self._felled + 1
        process.crash(refuses=rng.random() < 0.7)
        long = not self.weather.mild and rng.random() < 0.25
        down_us = rng.randint(5 * MS, 15 * SECOND if long else 1_500 * MS)
        if not self.weather.mild and process is not self._cluster.founder and not self._never_meet:
            self._change(process)
        self._engine.after(down_us, lambda: None if process.up else process.start())

    def _killed(self, process: Process) -> None:
        """By what its own executors do."""
        self._count("deadly work", partial(self._fell, process))

    def _cut(self, process: Process) -> None:
        """Its power has failed amid a write; now and then it fails once more while it starts."""
        rng, role = self._engine.rng, "hosts" if HOST in process.spec.roles else "owners"
        self._cluster.monitor.met.counts[f"power cuts at a write of {role}"] += 1
        if process.up:
            self._fell(process)
        else:
            self._engine.after(rng.randint(5 * MS, 1_500 * MS), lambda: None if process.up else process.start())
        if rng.random() < CUT_AGAIN_CHANCE and not self._over:
            process.power.fail_in(0)

    def _change(self, process: Process) -> None:
        """Its owner uses the pause: another address, another price, one role more or less."""
        rng, spec = self._engine.rng, process.spec
        if rng.random() < CHANGE_CHANCE:
            process.port += 1
        if rng.random() < CHANGE_CHANCE:
            process.spec = spec = replace(spec, price_micro=rng.choice((*PRICES, CORE_PRICE)))
        if rng.random() < CHANGE_CHANCE and HOST in spec.roles:
            process.spec = replace(spec, roles=spec.roles ^ {BROKER})

    def _commit_failure(self) -> None:
        process = self._someone()
        if process.up:
            fault = Unavailable("the disk refuses", reason="DiskError")
            process.store.fail_next(fault, applied=self._engine.rng.random() < 0.5)
            rng = self._engine.rng
            process.unreadable_us = rng.randint(1, UNREADABLE_MAX_US) if rng.random() < UNREADABLE_CHANCE else 0

    def _reset(self) -> None:
        """Of one connection, or of all that a node has."""
        one, other, network = self._someone().node_id, self._someone().node_id, self._cluster.network
        if self._engine.rng.random() < RESET_ALL_CHANCE:
            network.reset_all(one)
        else:
            network.reset(one, other)

    def _partition(self) -> None:
        rng, faults = self._engine.rng, self._cluster.network.faults
        faults.group_of = {process.node_id: rng.randint(0, 1) for process in self._cluster.processes.values()}
        self._mend(lambda: setattr(faults, "group_of", {}))

    def _one_way(self) -> None:
        faults = self._cluster.network.faults
        pair = self._someone().node_id, self._someone().node_id
        faults.cuts[pair] = True
        self._mend(lambda: faults.cuts.pop(pair, None))

    def _slow(self) -> None:
        faults = self._cluster.network.faults
        faults.delay_max_us = 3 * SECOND
        self._mend(lambda: setattr(faults, "delay_max_us", self.weather.delay_max_us))

    def _lossy(self) -> None:
        faults = self._cluster.network.faults
        faults.loss = 0.5
        self._mend(lambda: setattr(faults, "loss", self.weather.loss))

    def _mend(self, mend: Callable[[], object]) -> None:
        def mended() -> None:
            if not self._over:
                self.last_us = self._engine.now_us
                mend()

        self._engine.after(self._engine.rng.randint(200 * MS, 9 * SECOND), mended)

    def _clock_step(self) -> None:
        step_us = self._engine.rng.randint(-CLOCK_STEP_MAX_US, CLOCK_STEP_MAX_US)
        self._someone().step_clock(step_us)

    # ---- the end of it

    def heal(self) -> None:
        """Clean roads, everybody up."""
        self._over = True
        self._engine.note("healed")
        self.last_us = self._engine.now_us
        self._cluster.network.faults = Faults()
        for process in self._cluster.processes.values():
            process.trap, process.unreadable_us = "", 0
            process.thaw()
            process.store.refuse(None)
            process.store.bound()
            process.blobs.mend()
            process.power.mend()
            if not process.up and process.boots:
                process.start()
        self._on_healed()
