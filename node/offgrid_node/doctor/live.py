"""What the running node says of itself and its mesh: membership, peers, brokers, jobs, objects, ledger, backups."""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1.common_pb2 import ROLE_BROKER, ROLE_CORE
from offgrid.v1.mesh_pb2 import Peer
from offgrid.v1.objects_pb2 import OUTBOX_STATUS_PENDING
from offgrid.verdicts import (
    OF_OBJECTS,
    SMOKE_OWN,
    alert_sentence,
    in_reach,
    ledger_cut_off,
    ledger_mute,
    objects_at_risk,
    objects_gone,
    playing,
)
from offgrid_node import __version__
from offgrid_node.config import CONFIG_NAME
from offgrid_node.doctor.clock import shown
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.restarting import restarted
from offgrid_node.doctor.subject import Subject
from offgrid_node.doctor.work import gateways_tried
from offgrid_node.folder import DOTENV_NAME, MESH_PLAN

NAMES_SHOWN = 4
WAITING_US = 5_000_000  # a job that has found no host for so long, an object no hosts
ASKED_MAX = 3  # jobs whose story is asked for
LATE_BACKUPS = 3  # intervals
WRITTEN_US = 2_000_000  # a start takes as long, and writes


def names_of(peers: list[Peer]) -> str:
    """The first few."""
    return _some([peer.member.name for peer in peers])


def _others(subject: Subject) -> list[Peer]:
    return [peer for peer in subject.peers if not peer.self]


def starting(subject: Subject, peer: Peer) -> str:
    """What starts a member that does not run: beside this node where `offgrid-node up` made both, else over there."""
    mesh = subject.path.absolute().parent
    if (mesh / MESH_PLAN).is_file() and (mesh / peer.member.name / CONFIG_NAME).is_file():
        return command("offgrid-node", "up", "--dir", mesh)
    return "offgrid-node run   # on that machine"


def is_removed(subject: Subject) -> bool:
    """As far as the node knows, or the members' silence shows."""
    assert subject.status is not None
    return subject.status.removed or any("no member accepts this node" in each for each in subject.status.notices)


def _membership(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    if not is_removed(subject):
        return
    sentence = (
        "this node was removed from its mesh"
        if subject.status.removed
        else "members are there and refuse this node: it was removed, or its key was replaced elsewhere"
    )
    again = command("offgrid-node", "join", "TOKEN", "--dir", "ANOTHER-FOLDER")
    yield fault(f"{sentence}. To come back it needs a new invite (offgrid mesh invite, at an admin)", again)


def _in_force(subject: Subject) -> Iterator[Said]:
    """A node reads its config once."""
    assert subject.status is not None
    started_us = subject.utc_us() - subject.status.uptime_ms * 1_000
    for path in (subject.folder.config_path, subject.path / DOTENV_NAME):
        if path.exists() and path.stat().st_mtime_ns // 1_000 > started_us + WRITTEN_US:
            yield warning(
                f"{path.name} was changed after the node was started: that holds from its next start on",
                restarted(subject),
            )


def _versions(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    if subject.status.version != __version__:
        yield warning(
            f"the node runs version {subject.status.version}, and {__version__} is installed: start it anew",
            restarted(subject),
        )
        return
    different = [peer for peer in _others(subject) if peer.version not in ("", subject.status.version)]
    if different:
        told = ", ".join(f"{peer.member.name} {peer.version}" for peer in different[:NAMES_SHOWN])
        yield warning(
            f"members run other versions than this node's {subject.status.version}: {told}", subject.operator("peers")
        )


def _broker(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    mode = subject.config.jobs.mode
    if ROLE_CORE not in subject.status.roles or mode == "disabled":
        yield not_applicable("no jobs start here by the mesh")
        return
    brokers = playing(ROLE_BROKER, subject.peers)
    if any(map(in_reach, brokers)):
        return
    known = [peer for peer in brokers if peer.roles_in_force]
    if known:
        sentence, next_ = f"no broker is in reach: {names_of(known)}", starting(subject, known[0])
    else:
        sentence, next_ = "no member of this mesh is a broker", subject.operator("mesh", "invite", "--role", "broker")
    if mode == "offgrid":
        yield fault(f'{sentence}; with jobs.mode = "offgrid" every job fails', next_)
    else:
        yield warning(f"{sentence}; jobs stay in this node's own queue", next_)


def _jobs(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    if ROLE_CORE not in subject.status.roles:
        yield not_applicable("no jobs start here")
        return
    before_us = subject.utc_us() - WAITING_US
    waiting = [job for job in subject.asked.jobs.list(states=["queued"], limit=50) if job.updated_us < before_us]
    for job in waiting[:ASKED_MAX]:
        told = subject.asked.jobs.why(job.job_id)
        if any(verdict.able for verdict in told.verdicts):
            continue
        reasons = list(dict.fromkeys(verdict.reason for verdict in told.verdicts))[:2]
        why = "; ".join(reasons) or told.story or "no host offers anything"
        yield warning(
            f"job {job.job_id} waits and no host can do it: {why}", subject.operator("job", "why", job.job_id)
        )
        return


def _outbox(subject: Subject) -> Iterator[Said]:
    before_us = subject.utc_us() - WAITING_US
    entries = [
        entry
        for entry in subject.asked.objects.outbox(open_only=True, limit=100)
        if entry.status == OUTBOX_STATUS_PENDING and entry.created_us < before_us and not entry.for_job
    ]
    if entries:
        first = entries[0]
        weights = f"{first.acked_milli / 1000:g} of {first.required_milli / 1000:g}"
        yield warning(
            f"{len(entries)} objects wait for hosts and are not durable; {first.key or first.object_id[:12]} has acks "
            f"of {weights}" + (f": {first.trouble}" if first.trouble else ""),
            subject.operator("outbox", "--open"),
        )


def _objects(subject: Subject) -> Iterator[Said]:
    """By the node's own rule: who asked for a single copy knows that there is one."""
    assert subject.status is not None
    if not subject.status.HasField("objects"):
        yield not_applicable("the node was started a moment ago, and finds its hosts")
        return
    told = subject.status.objects
    missing = [peer for peer in _others(subject) if peer.member.node_id in told.away]
    hosts = f"; their hosts that are away: {names_of(missing)}" if missing else ""
    back = starting(subject, missing[0]) if missing else subject.operator("ls", "--at-risk")
    if lost := objects_gone(told):
        yield fault(lost + hosts, back)
    if bare := objects_at_risk(told):
        yield warning(bare + hosts, back)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _ledger(subject: Subject) -> Iterator[Said]:
    told = subject.asked.ledger.status()
    if not told.enabled or not told.open:
        yield not_applicable("the mesh's ledger is not open" if told.enabled else "economy.enabled = false")
        return
    if mute := ledger_mute(told):
        yield fault(mute, subject.node("rotate", "identity"))
    if cut_off := ledger_cut_off(told):
        yield warning(cut_off, subject.operator("ledger", "status"))


def _backups(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    interval_s = subject.config.state.backup_interval
    if not interval_s:
        yield warning(
            "state.backup_interval = 0: this node makes no backups by itself", subject.operator("state", "backup")
        )
        return
    told = subject.asked.backups.list()
    newest = max((backup.made_us for backup in told.backups), default=0)
    first = next(
        iter(subject.asked.events.list(since_us=newest + 1, limit=1)), None
    )  # that is in none: else none is due
    since_us = 0 if first is None else min(subject.utc_us() - first.timestamp_us, subject.status.uptime_ms * 1_000)
    if since_us > LATE_BACKUPS * interval_s * 1_000_000:
        when = f"the newest is of {shown(newest)}" if newest else "there is none"
        sentence = f"no backup was made for {LATE_BACKUPS} times state.backup_interval: {when}"
        yield warning(sentence, subject.operator("state", "backup"))
    damaged = next((backup for backup in told.backups if backup.damaged_total), None)
    if damaged is not None:
        lacking = f"{damaged.path} lacks {damaged.damaged_total} rows that could not be read"
        yield warning(lacking, subject.operator("state", "verify-backup", damaged.path))


def _recovery_key(subject: Subject) -> Iterator[Said]:
    if subject.config.state.recovery_key or not subject.config.state.backup_interval:
        yield not_applicable("there is one" if subject.config.state.recovery_key else "this node makes no backups")
        return
    if all(session.name == SMOKE_OWN for session in subject.asked.sessions.list(limit=2)):
        yield not_applicable("there are no sessions, which it is for")
        return
    yield warning(
        "state.recovery_key is not set: what sessions say is in the backups, and nobody can read it once this disk is "
        "lost",
        "offgrid state recovery-key recovery.txt   # what it prints becomes state.recovery_key; then a new start",
    )


def _alerts(subject: Subject) -> Iterator[Said]:
    assert subject.status is not None
    for alert in subject.status.alerts:
        if alert.name not in OF_OBJECTS and (said := alert_sentence(alert)):
            yield warning(said, subject.operator("status"))


SAID_ELSEWHERE = ("no other member is in reach", "no member accepts this node", "new messages:", "the disk under")


def _notices(subject: Subject) -> Iterator[Said]:
    """Whatever else the node itself says that an operator should know."""
    assert subject.status is not None
    gateways = (f"{key} = {url.rstrip('/')}: " for (key, url), why in gateways_tried(subject).items() if why)
    elsewhere = (*SAID_ELSEWHERE, *gateways)
    for notice in subject.status.notices:
        if not notice.startswith(elsewhere):
            said, pip, package = notice.partition(": pip install ")
            yield warning(said, f"{pip[2:]}{package}" if pip else subject.operator("status"))


CHECKS = (
    Check("membership", "the mesh has not removed this node", _membership, Needs.RUNNING),
    Check("in-force", "the config is the one that the node was started with", _in_force, Needs.RUNNING),
    Check("versions", "members run the same version", _versions, Needs.RUNNING),
    Check("broker", "a broker is in reach", _broker, Needs.RUNNING),
    Check("jobs", "some host can do each job that waits", _jobs, Needs.RUNNING),
    Check("outbox", "objects find their hosts", _outbox, Needs.RUNNING),
    Check("objects", "what is kept survives the loss of one more host", _objects, Needs.RUNNING),
    Check("ledger", "a quorum of witnesses is in reach", _ledger, Needs.RUNNING),
    Check("backups", "backups are made", _backups, Needs.RUNNING),
    Check("recovery-key", "backups of sessions can be read without this disk", _recovery_key, Needs.RUNNING),
    Check("alerts", "the node's figures are below their thresholds", _alerts, Needs.RUNNING),
    Check("notices", "the node says nothing else that its owner should know", _notices, Needs.RUNNING),
)
