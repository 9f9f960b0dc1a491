"""Planted bugs that it takes a bustling market to see: lines and prices, schedules, the drop folder, owners' rules, and
what is forgotten at a restart."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.jobs import backlog, clearing, schedules
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.dependencies import Dependencies
from offgrid_node.protocol.jobs.drops import Drops
from offgrid_node.protocol.jobs.duty import Duty
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.postings import Postings
from offgrid_node.protocol.jobs.reports import Reports
from offgrid_node.protocol.jobs.rules import Rules
from offgrid_node.protocol.jobs.schedules import Schedules
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_node.protocol.requests import Requests
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import MARKET_MESH


def _first_price(sound: Sound) -> Sound:
    def price(winner: Any, losers: Any, count: int, group: Any) -> int:
        ask: int = winner.bid.ask_micro
        return ask

    return price


def _in_turn(sound: Sound) -> Sound:
    def alike_and_priority(body: bytes) -> tuple[bytes, int]:
        alike: bytes = sound(body)[0]
        return alike, 0

    return alike_and_priority


def _by_the_first(sound: Sound) -> Sound:
    def on_end(self: Any, job_id: str, state: Any) -> None:
        if state == COMPLETED:
            for waiter in self._waiters.get(job_id, ()):
                others = [name for name in self._missing.get(waiter, ()) if name != job_id]
                for name in others:
                    self._missing[waiter].pop(name)
                    self._waiters.get(name, {}).pop(waiter, None)
        sound(self, job_id, state)

    return on_end


def _pay_too(sound: Sound) -> Sound:
    def expire(self: Any, entry: Any, why: str, now: Any) -> None:
        job = entry.job
        if job.host:
            self._post.tell("ledger", CostIncurred(job.job_id, job.attempt, job.host, job.price_micro, job.kind))
        sound(self, entry, why, now)

    return expire


def _under_another_name(sound: Sound) -> Sound:
    def command(self: Any, schedule: Any, due_us: int, request_id: str) -> Any:
        return replace(sound(self, schedule, due_us, request_id), request_id=f"{request_id}/{schedule.updated_us}")

    return command


def _paused_too(sound: Sound) -> Sound:
    def on_wake(self: Any, now: Any, rng: Any) -> None:
        paused = [schedule for schedule in self._schedules.values() if schedule.paused]
        for schedule in paused:
            schedule.paused = False
        self._look_ms = now.mono_ms if paused else self._look_ms
        sound(self, now, rng)
        for schedule in paused:
            schedule.paused = True

    return on_wake


def _wherever_it_is(sound: Sound) -> Sound:
    return lambda self, job_id: self._jobs.get(job_id)


def _whatever_waits(sound: Sound) -> Sound:
    def on_dropped(self: Any, event: Any, now: Any) -> None:
        self._waiting[event.job_id] = None
        sound(self, event, now)

    return on_dropped


def _same_epoch(sound: Sound) -> Sound:
    def load(self: Any, rows: Any) -> None:
        sound(self, rows)
        self._epoch = max(1, self._epoch - 1)

    return load


def _dead_ones_leases_too(sound: Sound) -> Sound:
    def on_peer_down(self: Any, node_id: str, now: Any) -> None:
        sound(self, node_id, now)
        for key in self._leases.at_host(node_id):
            self._drop_lease(key)

    return on_peer_down


def _by_timer(sound: Sound) -> Sound:
    def begin(self: Any, now: Any) -> None:
        due_ms = self._jobs.deadlines.deadline_ms()
        if due_ms is not None and due_ms <= now.mono_ms:
            sound(self, now)
        else:
            self._jobs.begin(now)

    return begin


def _look_away(sound: Sound) -> Sound:
    def on_wake(self: Any, now: Any, rng: Any) -> None:
        self._look_ms = None

    return on_wake


def _forget_stop(sound: Sound) -> Sound:
    def on_cancel(self: Any, ticket: int, command: Any, now: Any) -> None:
        self._post.reply(ticket, jobs_pb2.CancelStartsResponse())

    return on_cancel


def _all_prices(sound: Sound) -> Sound:
    def refusal_of(self: Any, rule: Any, order: Any, price_micro: int, minute: int) -> Any:
        return sound(self, rule, order, 10**15, minute)

    return refusal_of


def _for_ever(sound: Any) -> Any:
    return 10**18


MUTANTS: dict[str, Mutant] = {
    "first-price": Mutant("a winner is paid what it asks", (Patch(clearing, "_price", _first_price),), MARKET_MESH),
    "priority-ignored": Mutant(
        "orders wait in the order in which they came", (Patch(backlog, "alike_and_priority", _in_turn),), MARKET_MESH
    ),
    "wake-lost": Mutant(
        "who waits at a broker is never looked at again", (Patch(Broker, "clear", never(None)),), MARKET_MESH
    ),
    "ended-accepted-again": Mutant(
        "a report on a job that has ended is accepted, whosever it is",
        (Patch(Reports, "_refusal_of_ended", never("")),),
        MARKET_MESH,
    ),
    "expired-late": Mutant(
        "a deadline that the clock was set past is seen when a timer runs out, not before a result is taken",
        (Patch(Core, "begin", _by_timer),),
        MARKET_MESH,
    ),
    "expired-paid": Mutant("who had a job that expires is paid", (Patch(OpenJobs, "expire", _pay_too),), MARKET_MESH),
    "cancel-forgotten": Mutant(
        "a host says that it stopped, and goes on", (Patch(Host, "on_cancel", _forget_stop),), MARKET_MESH
    ),
    "released-by-the-first": Mutant(
        "a job goes once one of those before it has completed",
        (Patch(Dependencies, "on_end", _by_the_first),),
        MARKET_MESH,
    ),
    "epoch-stays": Mutant(
        "a broker that begins anew says its old epoch", (Patch(Postings, "load", _same_epoch),), MARKET_MESH
    ),
    "request-ids-forgotten": Mutant(
        "a restarted core knows no request that it has served", (Patch(Requests, "load", never(None)),), MARKET_MESH
    ),
    "schedule-twice": Mutant(
        "a due time that comes again makes another job",
        (Patch(Schedules, "_command", _under_another_name),),
        MARKET_MESH,
    ),
    "schedule-asleep": Mutant("no due time is ever seen", (Patch(Schedules, "on_wake", _look_away),), MARKET_MESH),
    "schedule-made-up-for": Mutant(
        "what was long missed is made up for, wanted or not",
        (Patch(schedules, "LATE_US", _for_ever),),
        MARKET_MESH,
    ),
    "dead-forgotten": Mutant(
        "a broker awards anew, under the same number, what a host had that is dead by now",
        (Patch(Broker, "on_peer_down", _dead_ones_leases_too),),
        MARKET_MESH,
    ),
    "pause-ignored": Mutant("a paused schedule goes on", (Patch(Schedules, "on_wake", _paused_too),), MARKET_MESH),
    "drop-taken-twice": Mutant(
        "a result from the drop folder ends a job that is elsewhere by now",
        (Patch(Drops, "_waits", _wherever_it_is), Patch(Drops, "on_dropped", _whatever_waits)),
        MARKET_MESH,
    ),
    "duty-forgotten": Mutant(
        "a restarted host takes work, whatever its owner said", (Patch(Duty, "load", never(None)),), MARKET_MESH
    ),
    "denial-ignored": Mutant(
        "a host's rules deny nobody", (Patch(Rules, "refusal", never("")), Patch(Rules, "take", never(""))), MARKET_MESH
    ),
    "rule-price-ignored": Mutant(
        "a host works for less than its rules ask", (Patch(Rules, "_refusal_of", _all_prices),), MARKET_MESH
    ),
}
