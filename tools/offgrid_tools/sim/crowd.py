"""Everybody who is about in a seed: people who ask nodes for things, and liars, as the plan has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.events import CORE, HOST
from offgrid_node.protocol.jobs.trust import COUNT_MAX, TRUST
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import SECOND
from offgrid_tools.sim.folder import DropHelper
from offgrid_tools.sim.liars import (
    FalseWorker,
    Forger,
    IdentityThief,
    JobLiar,
    LedgerLiar,
    LyingBox,
    LyingBroker,
    LyingHost,
    LyingOwner,
    RootThief,
)
from offgrid_tools.sim.plan import JOBS_MAX, JOBS_MIN, REQUIRED_MILLI, STORM_JOBS, Plan
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.turns import Turns
from offgrid_tools.sim.users import (
    DeadlyUser,
    DemandingUser,
    HostOwner,
    IdentityOwner,
    JobUser,
    KeyOwner,
    LeavingOwner,
    LedgerOpener,
    ObjectUser,
    Payer,
    Person,
    QuorumUser,
    RootOwner,
    RushUser,
    SchedulingUser,
    Speaker,
    TrustingUser,
    Writer,
)
from offgrid_tools.sim.vault import Vault
from offgrid_tools.sim.vices import FORKS, LIES, REMOVED

USERS_PER_CORE = 2
SOUND_HOSTS = REQUIRED_MILLI // 1_000  # that every owner of objects needs beside itself
TRUSTING_CALLS = 5
DELETES_CHANCE = 0.4
COME_WITHIN_US = 2 * SECOND
RICH_MICRO, POOR_MICRO, AMOUNT_MAX_MICRO = 10**9, 40_000, 10**6

Thief = IdentityThief | RootThief
Liar = Thief | FalseWorker | Forger | JobLiar | LyingBox | LyingBroker | LyingHost | LyingOwner | LedgerLiar


class Crowd:
    """Made before the nodes start; `come` sends everybody to their node."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self._cluster, self._plan, self._rng = cluster, plan, cluster.engine.rng
        self._thieves: list[Thief] = []
        self.workers = list(self._workers())
        self.keepers = list(self._keepers()) if plan.things else []
        self.payers = list(self._payers()) if plan.open_us is not None else []
        self.demanding = list(self._demanding())
        self.leaving = list(self._leaving())
        self.people: list[Person] = [*self.workers, *self.demanding, *self.keepers, *self.payers, *self._others()]
        self.people += [*self._bustling(), *self._speaking(), *self._writing()]
        self.liars = list(self._liars())

    def _workers(self) -> Iterator[JobUser]:
        engine, monitor = self._cluster.engine, self._cluster.monitor
        times = STORM_JOBS if self._plan.storm else 1
        cores = (core for core in self._cluster.with_role(CORE) for _ in range(USERS_PER_CORE))
        for number, core in enumerate(cores):
            jobs = times * self._rng.randint(JOBS_MIN, JOBS_MAX)
            yield JobUser(engine, monitor, core, jobs, f"u{number}", self._plan.redundancy, self._plan.sizes_tokens)

    def _demanding(self) -> Iterator[DemandingUser]:
        engine, monitor, plan = self._cluster.engine, self._cluster.monitor, self._plan
        for number, core in enumerate(self._cluster.with_role(CORE)):
            if plan.arrays:
                yield DemandingUser(engine, monitor, core, plan.arrays, f"d{number}", plan.sizes_tokens)

    def _bustling(self) -> Iterator[Person]:
        cluster, bustle = self._cluster, self._plan.bustle
        engine, monitor = cluster.engine, cluster.monitor
        for number, core in enumerate(cluster.with_role(CORE)):
            if bustle.rushes:
                yield RushUser(engine, monitor, core, bustle.rushes, f"r{number}", chains=bustle.chains)
            if bustle.deadly:
                yield DeadlyUser(engine, monitor, core, f"k{number}")
            if bustle.schedules:
                yield SchedulingUser(engine, monitor, core, bustle.schedules, f"s{number}")
        if bustle.trusting:
            self._trust_all(cluster.founder)
            yield TrustingUser(engine, monitor, cluster.founder, TRUSTING_CALLS, "t")
        for name in bustle.toggled:
            yield HostOwner(engine, monitor, cluster.processes[name])

    def _speaking(self) -> Iterator[Person]:
        """At every machine, where the plan has a talk."""
        talk = self._plan.talk
        if talk is None:
            return
        for process in map(self._cluster.processes.__getitem__, talk.machines):
            for number in range(talk.speakers):
                name = f"{process.spec.name}-{number}"
                yield Speaker(self._cluster.engine, self._cluster.monitor, process, talk.acts, name)

    def _writing(self) -> Iterator[Person]:
        post, engine, monitor = self._plan.post, self._cluster.engine, self._cluster.monitor
        for name in post.writers if post is not None else ():
            assert post is not None
            others = [self._cluster.processes[each].node_id for each in post.writers if each != name]
            yield Writer(
                engine, monitor, self._cluster.processes[name], others, post.mails, sure=not post.liar, long=post.long
            )

    def _trust_all(self, core: Process) -> None:
        """It has known its hosts for long."""
        count = (COUNT_MAX // 2).to_bytes(4, "big")
        hosts = self._cluster.with_role(HOST)
        core.store.commit(Batch(writes={(TRUST, host.node_id.encode()): count for host in hosts}))

    def _keepers(self) -> Iterator[ObjectUser]:
        """At the founder, and at any node that leaves enough sound hosts to it."""
        cluster, plan = self._cluster, self._plan
        if plan.vault is not None:
            yield from self._vault_keepers(plan.vault)
            return
        hosts = [process for process in self._sound() if HOST in process.spec.roles]
        able = [process for process in self._sound() if len(hosts) - (process in hosts) >= SOUND_HOSTS]
        owners = {process.spec.name: process for process in (cluster.founder, self._rng.choice(able))}
        required = (REQUIRED_MILLI,) if plan.vices else (REQUIRED_MILLI, REQUIRED_MILLI // 2)
        for name, owner in owners.items():
            yield ObjectUser(cluster.engine, cluster.monitor, owner, plan.things, required, name)

    def _vault_keepers(self, vault: Vault) -> Iterator[ObjectUser]:
        """Of secrets: neither what they keep nor how they call it may be heard of elsewhere."""
        engine, monitor = self._cluster.engine, self._cluster.monitor
        for name in vault.owners:
            owner, called = self._cluster.processes[name], f"secret-of-{name}:"
            mark, reader = f"({called})".encode(), vault.readers.get(name)
            there = self._cluster.processes[reader] if reader else None
            monitor.secrets.plant(called.encode(), owner.node_id, *([there.node_id] if there else ()))
            yield ObjectUser(
                engine,
                monitor,
                owner,
                vault.things,
                vault.required,
                called,
                mark=mark,
                deletes=DELETES_CHANCE,
                codes=vault.codes,
                reader=there,
                expires=vault.expires,
                unshares=vault.unshares,
            )

    def _payers(self) -> Iterator[Payer]:
        """At sound nodes that take part in the economy."""
        cluster, plan = self._cluster, self._plan
        most = POOR_MICRO if plan.poor else AMOUNT_MAX_MICRO
        for number in range(plan.payers):
            source = self._rng.choice(self._sound())
            payees = [process for process in self._sound() if process is not source]
            yield Payer(cluster.engine, cluster.monitor, source, payees, plan.payments, most, f"p{number}")

    def _balances(self) -> list[ledger_pb2.Balance]:
        first = POOR_MICRO if self._plan.poor else RICH_MICRO
        removed = self._plan.having(REMOVED)
        there = (node for name, node in self._cluster.processes.items() if name not in removed)
        return [ledger_pb2.Balance(account=node.node_id, final_micro=first) for node in there]

    def _witnesses(self) -> list[ledger_pb2.Witness]:
        """All by their weights. Where one is removed, maybe before the ledger is open, nobody can be named."""
        if self._plan.having(REMOVED):
            return []
        nodes = self._cluster.processes
        return [
            ledger_pb2.Witness(node_id=nodes[name].node_id, weight_milli=weight)
            for name, weight in self._plan.weights_milli.items()
        ]

    def _others(self) -> Iterator[Person]:
        cluster, founder = self._cluster, self._cluster.founder
        if self._plan.vault is not None:
            yield from self._changing(self._plan.vault)
        if self._plan.things and self._plan.vault is None:
            weight = 1_000 * (len(self._sound()) - 1)
            everybody = list(cluster.processes.values())
            yield QuorumUser(cluster.engine, cluster.monitor, founder, everybody, weight)
        if self._plan.open_us is not None:
            witnesses, balances = self._witnesses(), self._balances()
            yield LedgerOpener(cluster.engine, cluster.monitor, founder, witnesses, balances, self._plan.open_us)

    def _changing(self, vault: Vault) -> Iterator[Person]:
        engine, monitor, processes = self._cluster.engine, self._cluster.monitor, self._cluster.processes
        for name in vault.rotates:
            yield KeyOwner(engine, monitor, processes[name], reseals=name in vault.reseals)

        for name in vault.rekeyed:
            yield IdentityOwner(engine, monitor, processes[name], self._stolen(IdentityThief, processes[name]))
        if vault.reroots:
            founder = self._cluster.founder
            yield RootOwner(engine, monitor, founder, self._stolen(RootThief, founder))

    def _stolen(self, kind: type[Thief], victim: Process) -> Callable[[], None]:
        """Somebody has the key that is replaced; what lets him begin."""
        thief = kind(self._cluster, victim)
        self._thieves.append(thief)
        return thief.begin

    def _leaving(self) -> Iterator[LeavingOwner]:
        if self._plan.vault is not None and self._plan.vault.leaves:
            host = self._cluster.processes[self._plan.vault.leaves]
            yield LeavingOwner(self._cluster.engine, self._cluster.monitor, host)

    def _liars(self) -> Iterator[Liar]:
        cluster, plan = self._cluster, self._plan
        hosts = [process for process in cluster.with_role(HOST) if CORE not in process.spec.roles]
        for liar in self._rng.sample(hosts, plan.job_liars):
            yield JobLiar(cluster, liar)
        if plan.broker_liar:
            yield LyingBroker(cluster, cluster.processes[plan.broker_liar])
        if plan.post is not None and plan.post.liar:
            yield LyingBox(cluster, cluster.processes[plan.post.liar])
        for name in plan.false_hosts:
            yield FalseWorker(cluster, cluster.processes[name])
        if plan.bustle.forger:
            yield Forger(cluster, cluster.processes[plan.bustle.forger])
        for name in plan.having(LIES):
            yield LyingHost(cluster, cluster.processes[name])
            yield LyingOwner(cluster, cluster.processes[name])
        for name in plan.having(FORKS):
            yield LedgerLiar(cluster, cluster.processes[name])

    def _sound(self) -> list[Process]:
        """All but the bad ones."""
        return [process for process in self._cluster.processes.values() if process.spec.name not in self._plan.vices]

    def come(self) -> None:
        """Everybody, within a moment."""
        for core in self._cluster.with_role(CORE) if self._plan.bustle.drop else ():
            DropHelper(self._cluster, core)
        if self._plan.post is not None and self._plan.post.apart:
            Turns(self._cluster, self._plan.post, lambda: not self.wanting()).begin()
        for person in (*self.people, *self.leaving):
            self._cluster.engine.after(self._rng.randint(0, COME_WITHIN_US), person.start)

    def wanting(self) -> str:
        """What somebody still waits for; empty when all are content."""
        return _wanting(self.people)

    def staying(self) -> str:
        """What those still wait for who want their hosts back."""
        return _wanting(self.leaving)

    def ask_again(self) -> None:
        """When all is over: whoever keeps something reads it once more."""
        for keeper in self.keepers:
            keeper.read_again()

    @property
    def lies(self) -> int:
        return sum(liar.lies for liar in (*self.liars, *self._thieves))


def _wanting(people: Sequence[Person]) -> str:
    waiting = [person.wants for person in people if not person.content]
    return f"{len(waiting)} people still wait, the first for {waiting[0]}" if waiting else ""
