"""What `offgrid smoke` tries, one after the other: each check gives lines, and takes back what it has made.

A check that cannot be made here says why (SKIPPED); one that went wrong says what to type next (FAILED). Whatever a
check raises is a line as well, so that the others are still made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from offgrid.client.errors import OffgridError
from offgrid.client.jobs import ENDED
from offgrid.v1.common_pb2 import LIVENESS_ALIVE, ROLE_BROKER, ROLE_CORE, ROLE_HOST

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.jobs_pb2 import Job
    from offgrid.v1.mesh_pb2 import GetStatusResponse, Peer

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
WITHIN_S = 15.0  # all of it
AT_ONCE = 8
PING_S, JOBS_S, OBJECT_S, TRANSFER_S, HTTP_S = 3.0, 8.0, 5.0, 5.0, 3.0
OBJECT_BYTES = 1_024
COPIES_MAX = 3
LEAST_MICRO = 1
NAMED_MAX = 5
SAID = b"hello from offgrid smoke\n"


class Line(NamedTuple):
    """One line of the table: what was tried, where, what came of it, and what to type next."""

    check: str
    about: str
    outcome: str
    detail: str
    next: str = ""


@dataclass(slots=True)
class Seen:
    """What earlier checks have found out for the later ones."""

    client: Client
    with_transfer: bool
    give_up_at: float  # time.monotonic()
    status: GetStatusResponse
    peers: list[Peer] = field(default_factory=list)
    job_id: str = ""

    @property
    def others(self) -> list[Peer]:
        """The members that are alive, but for this node."""
        return [peer for peer in self.peers if not peer.self and peer.liveness == LIVENESS_ALIVE]

    @property
    def hosts(self) -> list[Peer]:
        """The members alive that do jobs, this node perhaps among them."""
        return [p for p in self.peers if ROLE_HOST in p.roles_in_force and (p.self or p.liveness == LIVENESS_ALIVE)]

    def left_s(self, most: float) -> float:
        return max(0.1, min(most, self.give_up_at - time.monotonic()))


Check = Callable[[Seen], Iterable[Line]]


def begin(client: Client, *, with_transfer: bool) -> Seen:
    """Asks the node who it is; raises OffgridError when none answers: then there is nothing to try."""
    return Seen(client, with_transfer, time.monotonic() + WITHIN_S, client.mesh.status())


def carry_out(seen: Seen, name: str, check: Check) -> list[tuple[Line, float]]:
    """The lines of one check and how long each took, in ms."""
    made, before = list[tuple[Line, float]](), time.monotonic()
    try:
        for line in check(seen):
            made.append((line, 1000 * (time.monotonic() - before)))
            before = time.monotonic()
    except OffgridError as error:
        made.append((Line(name, "", FAILED, error.message, "offgrid doctor"), 1000 * (time.monotonic() - before)))
    return made


# ---- the checks


def node(seen: Seen) -> Iterator[Line]:
    told = seen.status
    if told.removed:
        yield Line("node", told.name, FAILED, "its membership was revoked", "offgrid mesh members")
    else:
        yield Line("node", told.name, OK, f"of mesh {told.mesh}, version {told.version}")


def peers(seen: Seen) -> Iterator[Line]:
    seen.peers = list(seen.client.mesh.peers())
    away = [peer.member.name for peer in seen.peers if not peer.self and peer.liveness != LIVENESS_ALIVE]
    total = len(seen.peers) - 1
    if not total:
        yield Line("peers", "", SKIPPED, "this node is the mesh's only member", "offgrid mesh invite")
    elif not seen.others:
        yield Line("peers", "", FAILED, f"none of {total} is alive", "offgrid peers --roads")
    else:
        said = f"; not alive: {_named(away)}" if away else ""
        yield Line("peers", "", OK, f"{len(seen.others)} of {total} alive{said}")


def roads(seen: Seen) -> Iterator[Line]:
    if not seen.others:
        yield Line("roads", "", SKIPPED, "there is nobody to call")
        return

    def ping(peer: Peer) -> Line:
        name = peer.member.name
        try:
            answer = seen.client.links.ping(peer.member.node_id, timeout_s=seen.left_s(PING_S))
        except OffgridError as error:
            return Line("road", name, FAILED, error.message, f"offgrid peers --roads; offgrid trace {name}")
        return Line("road", name, OK, f"{answer.rtt_ms:.1f} ms by {answer.road.via}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(ping, seen.others)


def jobs(seen: Seen) -> Iterator[Line]:
    if ROLE_CORE not in seen.status.roles:
        yield Line("job", "", SKIPPED, "this node is no core: it sends no jobs")
        return
    brokered = any(ROLE_BROKER in p.roles_in_force and (p.self or p.liveness == LIVENESS_ALIVE) for p in seen.peers)
    if brokered and seen.hosts:
        yield from _echoes(seen)
    else:
        yield _own_queue(seen, "no host is alive" if brokered else "no broker is alive")


def _own_queue(seen: Seen, lacking: str) -> Line:
    """What becomes of a job without the mesh, in the mode that is configured."""
    from datetime import timedelta

    from offgrid.client.payloads import builtin

    client, payload, within_s = seen.client, builtin("echo", input=SAID, input_name="smoke"), seen.left_s(JOBS_S)
    task_id = client.jobs.task_for(payload, title="smoke test")
    ended = False
    try:
        answer = client.jobs.start(task_id, [payload], deadline=timedelta(seconds=within_s))
        seen.job_id, deadline = answer.job_ids[0], time.monotonic() + within_s
        while not (ended := (job := client.jobs.get(seen.job_id)).state in ENDED) and time.monotonic() < deadline:
            time.sleep(0.02)
    except OffgridError as error:
        return Line("job", "", FAILED, f"{lacking}: {error.message}", "offgrid peers")
    finally:
        with suppress(OffgridError):
            if not ended:
                client.jobs.cancel(task_id=task_id, reason="smoke test")
            client.missions.update(client.tasks.show(task_id).mission_id, status="completed")
    if job.result.output == SAID:
        return Line("job", "", OK, f"{lacking}; echo came back from this node's own queue")
    why = f"{job.error} {job.error_detail}".strip() if ended else f"a job was not back within {within_s:.0f} s"
    return Line("job", "", FAILED, f"{lacking}; {why}", "offgrid peers")


def _echoes(seen: Seen) -> Iterator[Line]:
    """A job for each host; what has not come back in time is cancelled."""
    from datetime import timedelta

    from offgrid.client.payloads import builtin

    client, payload = seen.client, builtin("echo", input=SAID, input_name="smoke")
    within_s = seen.left_s(JOBS_S)
    task_id = client.jobs.task_for(payload, title="smoke test")
    sent = dict[str, str]()
    for host in seen.hosts:
        only_there, until = f'host == "{host.member.node_id}"', timedelta(seconds=within_s)
        answer = client.jobs.start(task_id, [payload], mode="offgrid", requirements=only_there, deadline=until)
        sent[answer.job_ids[0]] = host.member.name
    seen.job_id = next(iter(sent))
    deadline, waiting = time.monotonic() + within_s, dict(sent)
    try:
        while waiting and time.monotonic() < deadline:
            ended = [job for job in client.jobs.list(task_id=task_id) if job.job_id in waiting and job.state in ENDED]
            for job in ended:
                yield _echo(client.jobs.get(job.job_id), waiting.pop(job.job_id))
            if not ended:
                time.sleep(0.02)
        for job_id, name in waiting.items():
            yield Line("job", name, FAILED, f"not back within {within_s:.0f} s", f"offgrid job why {job_id}")
    finally:
        with suppress(OffgridError):
            if waiting:
                client.jobs.cancel(task_id=task_id, reason="smoke test")
            client.missions.update(client.tasks.show(task_id).mission_id, status="completed")


def _echo(job: Job, name: str) -> Line:
    if job.result.output == SAID:
        return Line("job", name, OK, "echo came back, with a receipt" if job.result.HasField("receipt") else "echo")
    why = job.error or ("another output than it should have" if job.result.output else "no output")
    return Line("job", name, FAILED, f"{why} {job.error_detail}".strip(), f"offgrid job why {job.job_id}")


def objects(seen: Seen) -> Iterator[Line]:
    weights = {peer.member.node_id: peer.member.weight_milli for peer in seen.hosts if not peer.self}
    if not weights:
        yield Line("object", "", SKIPPED, "no other host is alive to keep one")
        return
    copies, data = min(COPIES_MAX, len(weights)), os.urandom(OBJECT_BYTES)
    enough_milli = copies * min(weights.values())
    if told := _too_light(seen, sum(weights.values())):
        yield told
    made = seen.client.objects.put(data, name="smoke-test", copies=copies, required_milli=enough_milli)
    try:
        try:
            made = seen.client.objects.wait_durable(made.object_id, timeout_s=seen.left_s(OBJECT_S))
        except TimeoutError as error:
            yield Line("object", "put", FAILED, str(error), "offgrid outbox --open; offgrid placement explain")
            return
        yield Line("object", "put", OK, f"sealed, {len(made.acks)} {'host' if len(made.acks) == 1 else 'hosts'} acked")
        same = seen.client.objects.read(made.object_id) == data
        yield Line("object", "read", OK if same else FAILED, "the same bytes" if same else "OTHER bytes")
    finally:
        seen.client.objects.delete(made.object_id)
    yield Line("object", "rm", OK, "gone here; its hosts are being told")


def _too_light(seen: Seen, weight_milli: int) -> Line | None:
    """Of what is put without saying anything, whether the hosts that are alive can ever make it durable."""
    plain = seen.client.objects.put(b"smoke", name="smoke-test")
    seen.client.objects.delete(plain.object_id)
    if weight_milli >= plain.required_milli:
        return None
    away_milli = sum(
        peer.member.weight_milli
        for peer in seen.peers
        if ROLE_HOST in peer.roles_in_force and not peer.self and peer.liveness != LIVENESS_ALIVE
    )
    said = f"hosts weigh {weight_milli / 1000:g}, an object wants {plain.required_milli / 1000:g}: it waits"
    if weight_milli + away_milli >= plain.required_milli:
        return Line("object", "weight", FAILED, said, "offgrid peers")
    return Line("object", "weight", SKIPPED, f"{said} for another host", "offgrid put FILE --required 1.0")


def quorum(seen: Seen) -> Iterator[Line]:
    """Every member that is alive acks; such a quorum stays, as all do."""
    if not seen.others:
        yield Line("quorum", "", SKIPPED, "no other member is alive to ack one")
        return
    called, nodes = f"smoke:{os.urandom(4).hex()}", [p for p in seen.peers if p.self or p.liveness == LIVENESS_ALIVE]
    ids = [peer.member.node_id for peer in nodes]
    seen.client.quorum.create(called, sum(peer.member.weight_milli for peer in nodes), ids)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        refused = [said for said in pool.map(lambda peer: _ack(seen, called, peer), nodes) if said]
    told, show = seen.client.quorum.status(called), f"offgrid quorum status --id {called}"
    if told.reached:
        yield Line("quorum", "", OK, f"{len(told.acks)} of {len(nodes)} members acked, reached")
    else:
        yield Line("quorum", "", FAILED, "; ".join(refused[:NAMED_MAX]) or "not reached", show)


def _ack(seen: Seen, called: str, peer: Peer) -> str:
    """Why there is none; "" of one that came."""
    try:
        seen.client.quorum.ack(called, peer.member.node_id)
    except OffgridError as error:
        return f"{peer.member.name}: {error.message}"
    return ""


def events(seen: Seen) -> Iterator[Line]:
    found = list(seen.client.events.list(subject=seen.job_id, limit=NAMED_MAX, newest_first=not seen.job_id))
    if found and seen.job_id:
        yield Line("events", "", OK, f"the journal tells of job {seen.job_id}")
    elif found:
        yield Line("events", "", OK, f"the journal is read up to event {found[0].seq}")
    else:
        what = f"job {seen.job_id}" if seen.job_id else "anything"
        yield Line("events", "", FAILED, f"the journal does not tell of {what}", "offgrid events")


def session(seen: Seen) -> Iterator[Line]:
    made = seen.client.session(f"smoke-{os.urandom(4).hex()}")
    try:
        made.record("health.heartbeat", {"queue_depth": 0})
        made.flush(seen.left_s(OBJECT_S))
        count = len(list(seen.client.sessions.records(made.session_id)))
        made.end()
    finally:
        seen.client.sessions.purge([made.session_id])
    if count == 1:
        yield Line("session", "", OK, "recorded, read back, purged")
    else:
        yield Line("session", "", FAILED, f"{count} events read of the 1 that was recorded", "offgrid state sessions")


def ledger(seen: Seen) -> Iterator[Line]:
    told = seen.client.ledger.status()
    if not told.enabled:
        yield Line("ledger", "", SKIPPED, "economy.enabled is false here")
    elif not told.open:
        yield Line("ledger", "", SKIPPED, "it is not open", "offgrid ledger open")
    elif told.reach_milli < told.quorum_milli:
        said = f"cut off: {told.reach_milli / 1000:g} of {told.quorum_milli / 1000:g} witnesses' weight in reach"
        yield Line("ledger", "", FAILED, said, "offgrid ledger status")
    elif told.muted_why:
        yield Line("ledger", "", FAILED, f"this node signs nothing: {told.muted_why}", "offgrid ledger status")
    else:
        said = f"{told.reach_milli / 1000:g} of {told.quorum_milli / 1000:g} needed in reach"
        yield Line("ledger", "", OK, f"{len(told.witnesses)} witnesses, {said}")
        if seen.with_transfer:
            yield _transfer(seen)


def _transfer(seen: Seen) -> Line:
    """The least amount, to a lane of this node's own: all that it costs is the fee."""
    lanes = [account.balance.name for account in seen.client.ledger.wallet().accounts if account.lane]
    if not lanes:
        return Line("transfer", "", SKIPPED, "this node has no lane to pay into", "offgrid wallet create-lane")
    made = seen.client.ledger.transfer(lanes[0], LEAST_MICRO, src=seen.status.node_id, meta={"reason": "smoke test"})
    ended = seen.client.ledger.settled(made.tx_id, seen.left_s(TRANSFER_S))
    from offgrid.v1.ledger_pb2 import TX_STATE_FINAL

    if ended.state == TX_STATE_FINAL:
        return Line("transfer", lanes[0], OK, "0.000001 final")
    return Line("transfer", lanes[0], FAILED, "not final yet; do not send it again", f"offgrid tx show {made.tx_id}")


def gateway(seen: Seen) -> Iterator[Line]:
    import http.client
    from urllib.parse import urlsplit

    url = seen.status.gateway
    if not url:
        yield Line("gateway", "", SKIPPED, "gateway.listen is off, or it could not listen", "offgrid status")
        return
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=seen.left_s(HTTP_S))
    try:
        connection.request("GET", "/v1/about")
        answer = connection.getresponse()
        answer.read(1 << 20)
    except (OSError, http.client.HTTPException) as error:
        yield Line("gateway", url, FAILED, f"no answer: {error}", "offgrid status")
        return
    finally:
        connection.close()
    good = answer.status == http.client.OK
    yield Line("gateway", url, OK if good else FAILED, f"answers {answer.status}", "" if good else "offgrid status")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("node", node), ("peers", peers), ("roads", roads), ("job", jobs), ("object", objects), ("quorum", quorum),
    ("events", events), ("session", session), ("ledger", ledger), ("gateway", gateway),
)  # fmt: skip


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
