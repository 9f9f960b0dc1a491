"""Planted bugs, each a small patch of the node from outside, in force within a `with`.

A simulator that misses one of them is blind there: the tests demand each within a hundred seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Call, Execute, Reply
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.fence import Fence
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.open_jobs import RESULTS, OpenJobs
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.requests import Requests
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED, RUNNING
from offgrid_node.protocol.mesh import machine as mesh_machine
from offgrid_node.protocol.mesh import roll
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.mesh.spreading import Spreader
from offgrid_node.protocol.mesh.swim import ALIVE, BOOT_SHIFT, Swim
from offgrid_node.runtime import Runtime

Sound = Callable[..., Any]  # the method as it is; a patch gets it and returns the broken one


@dataclass(frozen=True, slots=True)
class Patch:
    """`owner.name` becomes `breaks(the sound one)`."""

    owner: Any
    name: str
    breaks: Callable[[Sound], Sound]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug: what it says about itself, and what it changes."""

    says: str
    patches: tuple[Patch, ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        sound = [getattr(patch.owner, patch.name) for patch in self.patches]
        try:
            for patch, method in zip(self.patches, sound, strict=True):
                setattr(patch.owner, patch.name, patch.breaks(method))
            yield
        finally:
            for patch, method in zip(self.patches, sound, strict=True):
                setattr(patch.owner, patch.name, method)


def _early(kind: type) -> Callable[[Sound], Sound]:
    """Effects of this kind leave as soon as they are gathered."""

    def breaks(gather: Sound) -> Sound:
        def gather_and_release(self: Any) -> Any:
            pending = gather(self)
            if pending is not None:
                hasty = [effect for effect in pending.outgoing if isinstance(effect, kind)]
                pending.outgoing = [effect for effect in pending.outgoing if not isinstance(effect, kind)]
                for effect in hasty:
                    self._release(effect)
            return pending

        return gather_and_release

    return breaks


def _never(value: object) -> Callable[[Sound], Sound]:
    """Does nothing and returns this."""
    return lambda sound: lambda *args, **kwargs: value


def _after(then: Callable[[Any], None]) -> Callable[[Sound], Sound]:
    """Does what it should, and then this as well."""

    def breaks(sound: Sound) -> Sound:
        def method(self: Any, *args: Any) -> Any:
            result = sound(self, *args)
            then(self)
            return result

        return method

    return breaks


def _fail_without_reload(sound: Sound) -> Sound:
    def fail(self: Any, pending: Any, fault: Any) -> None:
        self._in_commit = None
        for effect in pending.outgoing:
            if isinstance(effect, Reply) and (ticket := self._tickets.pop(effect.ticket, None)):
                ticket.resolve(fault)

    return fail


def _old_machines_stay(sound: Sound) -> Sound:
    def reload(self: Any, fault: Any = None) -> None:
        old = self.machines
        sound(self, fault)
        if not self.machines:
            self.machines, self._absent = old, None

    return reload


def _keep_only_first_attempts(sound: Sound) -> Sound:
    def keep(self: Any, job: Any, now: Any, etype: Any = None) -> None:
        if job.state != QUEUED or job.attempt == 1:
            sound(self, job, now, etype)

    return keep


def _accept_though(words: str) -> Callable[[Sound], Sound]:
    def breaks(sound: Sound) -> Sound:
        def refusal(self: Any, host: Any, report: Any) -> Any:
            why: str = sound(self, host, report)
            entry = self._jobs.get(report.key[0])
            return "" if words in why and entry and entry.job.state in (AWARDED, RUNNING) else why

        return refusal

    return breaks


def _all_but_results(sound: Sound) -> Sound:
    def put(self: Any, table: str, key: bytes, row: Any) -> None:
        if table != RESULTS:
            sound(self, table, key, row)

    return put


def _version_one(sound: Sound) -> Sound:
    return lambda node_id, version, *rest: sound(node_id, 1, *rest)


def _never_busy(sound: Sound) -> Sound:
    def refusal(self: Any, order: Any, price_micro: int) -> Any:
        why = sound(self, order, price_micro)
        return "" if why == "busy" else why

    return refusal


def _let_timers_pass(sound: Sound) -> Sound:
    def on_wake(self: Any, now: Any, rng: Any) -> None:
        self._jobs.timers.take_due(now.mono_ms)

    return on_wake


def _reset_attempts(core: Any) -> None:
    for entry in core._jobs:
        entry.job.attempt = min(entry.job.attempt, 1)


def _execute_again(host: Any) -> None:
    for key, lease in host._leases.items():
        if not lease.HasField("report"):
            host._running.add(key)
            host._timers.cancel(key)
            core, job_id, attempt = key
            host._post.execute(Execute(core, job_id, attempt, jobs_pb2.JobPayload(), host._orders[key].timeout_ms))


def _newest_record_wins(sound: Sound) -> Sound:
    return lambda record: (not record.issuer, record.epoch, record.removed, record.body_hash)


def _same_boot(machine: Any) -> None:
    if machine._boot > 1:
        machine._boot -= 1
        machine._swim.incarnation -= 1 << BOOT_SHIFT


def _dead_for_good(sound: Sound) -> Sound:
    def heard(self: Any, node_id: str, incarnation: int, now_ms: int) -> None:
        if self.liveness(node_id) == ALIVE or incarnation > self.incarnation_of(node_id):
            sound(self, node_id, incarnation, now_ms)

    return heard


MUTANTS: dict[str, Mutant] = {
    "reply-before-commit": Mutant(
        "answers leave while their batch is still being synced", (Patch(Runtime, "gather", _early(Reply)),)
    ),
    "send-before-commit": Mutant(
        "calls to other nodes leave while their batch is still being synced", (Patch(Runtime, "gather", _early(Call)),)
    ),
    "execute-before-commit": Mutant(
        "work starts while its lease is still being synced", (Patch(Runtime, "gather", _early(Execute)),)
    ),
    "no-reload": Mutant(
        "after a failed commit the machines go on with what they remember",
        (Patch(Runtime, "fail", _fail_without_reload),),
    ),
    "old-machines-stay": Mutant(
        "after a failed commit, on a disk that cannot be read, the machines go on with what they remember",
        (Patch(Runtime, "reload", _old_machines_stay),),
    ),
    "attempt-not-durable": Mutant(
        "the number of a second attempt is not written", (Patch(OpenJobs, "keep", _keep_only_first_attempts),)
    ),
    "attempt-reset": Mutant(
        "a restarted core counts attempts from one", (Patch(Core, "load", _after(_reset_attempts)),)
    ),
    "old-attempt-accepted": Mutant(
        "the core accepts a report of an attempt that it gave up", (Patch(Core, "_refusal", _accept_though("is over")),)
    ),
    "other-host-accepted": Mutant(
        "the core accepts a report from a host that the attempt was not awarded to",
        (Patch(Core, "_refusal", _accept_though("another host")),),
    ),
    "work-repeated": Mutant(
        "a restarted host carries out its leases again", (Patch(Host, "load", _after(_execute_again)),)
    ),
    "fence-missing": Mutant("a host forgets what it has settled", (Patch(Fence, "settle", _never(None)),)),
    "request-id-ignored": Mutant(
        "a repeated request makes a second job",
        (Patch(Requests, "made", _never("")),),
    ),
    "output-lost": Mutant("the core keeps no outputs", (Patch(Post, "put", _all_but_results),)),
    "slots-ignored": Mutant("a host takes whatever comes", (Patch(Host, "refusal", _never_busy),)),
    "address-unversioned": Mutant(
        "a node that moved signs its new address as the old version", (Patch(mesh_machine, "PeerRecord", _version_one),)
    ),
    "queue-forgotten": Mutant(
        "a restarted broker forgets what waits", (Patch(Broker, "load", _after(lambda broker: broker._queue.clear())),)
    ),
    "timers-ignored": Mutant("the core never repeats itself", (Patch(Core, "on_wake", _let_timers_pass),)),
    "tombstone-loses": Mutant(
        "a removal yields to a later or stronger record", (Patch(roll, "rank", _newest_record_wins),)
    ),
    "no-anti-entropy": Mutant("differing directories are not compared", (Patch(Spreader, "digest_seen", _never([])),)),
    "no-refutation": Mutant(
        "who is taken for dead neither says so nor is believed",
        (Patch(Swim, "_refute", _never(None)), Patch(Swim, "heard", _dead_for_good)),
    ),
    "boot-not-counted": Mutant(
        "a restarted node speaks in its former incarnation", (Patch(MeshMachine, "load", _after(_same_boot)),)
    ),
}
