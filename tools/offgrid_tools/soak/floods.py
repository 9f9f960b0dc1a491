"""A real mesh, and a member of it that floods one role after another by each carrier, while its owners go on working.

Of each flood: what the flooder was told, how much memory the flooded process took, and what an honest job took before,
during and after. A flood breaks a promise when an honest job fails, when memory grows beyond `GROWTH_MIB_MAX`, or when
the flooder was sent away without being told when to come back. Times are shown and not judged: machines differ.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.soak.flooder import FRAMED, GRPC, Outcome, Siege
from offgrid_tools.soak.toll import Say, Toll, at_home

NODES = {"core": ["core"], "broker": ["broker"], "host": ["host"], "flooder": ["core", "broker", "host"]}
SECONDS = 4.0
REST_S = 1.0
CALM_JOBS = 40
JOB_S_MAX = 20.0
GROWTH_MIB_MAX = 96.0  # of one flood; a broker's line of 100,000 orders is the most of it
OUR_WAY = {"TooManyCalls", "RateLimited", "TooManyBytes", "TooManyPeers", "ClassFlood", "TooManyLanes", "InboxFull"}


class Flood(msgspec.Struct, frozen=True):
    """What is thrown at which role, by which carriers."""

    name: str
    role: str
    carriers: tuple[str, ...] = (GRPC, FRAMED)


FLOODS = (
    Flood("pings", "core"),
    Flood("receipts", "core"),
    Flood("awards", "core"),
    Flood("progress", "core"),
    Flood("renewals", "core"),
    Flood("starts", "host"),
    Flood("cancels", "host"),
    Flood("pieces", "host"),
    Flood("offers", "broker"),
    Flood("closings", "broker"),
    Flood("explanations", "broker"),
    Flood("idle", "core", (FRAMED,)),
    Flood("half-frames", "core", (FRAMED,)),
    Flood("unread", "core", (FRAMED,)),
    Flood("classes", "broker"),
    Flood("orders", "broker"),
)


def soak_floods(rounds: int, say: Say, folder: Path | None = None) -> list[str]:
    """All of them, so often; returns what was violated. See `at_home` for what becomes of the mesh's folder."""
    return at_home("floods", folder, lambda home: Toll(violations=_soak(rounds, home, say)), say).violations


def _soak(rounds: int, home: Path, say: Say) -> list[str]:
    violations: list[str] = []
    with LocalMesh(home, "floods", NODES, node__log_level="warning") as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(1)
        mesh["flooder"].stop()  # its key is what is wanted of it
        with mesh["core"].client(JOB_S_MAX) as client:
            for _ in range(rounds):
                for flood in FLOODS:
                    for carrier in flood.carriers:
                        violations += _one(mesh, client, flood, carrier, say)
    return violations


def _one(mesh: LocalMesh, client: Client, flood: Flood, carrier: str, say: Say) -> list[str]:
    name, target = f"{flood.name} by {carrier}", mesh[flood.role]
    assert target.process is not None
    before_mib, violations = resident_mib(target.process.pid), list[str]()
    before_ms, during_ms = [_job(client, violations) for _ in range(CALM_JOBS)], list[float]()
    most_mib = before_mib
    with _flooding(mesh, client, flood, carrier) as process:
        while process.poll() is None and not violations:
            during_ms.append(_job(client, violations))
            most_mib = max(most_mib, resident_mib(target.process.pid))
        said, errors = process.communicate()
    time.sleep(REST_S)
    after_ms = [_job(client, violations) for _ in range(CALM_JOBS)]
    after_mib = resident_mib(target.process.pid)
    outcome = Outcome(**json.loads(said)) if process.returncode == 0 else None
    if outcome is None:
        violations.append(f"the flooder broke down: {errors.decode()[-500:]}")
    else:
        violations += _judged(outcome)
    if max(most_mib, after_mib) - before_mib > GROWTH_MIB_MAX:
        violations.append(f"the {flood.role} grew from {before_mib:.0f} to {max(most_mib, after_mib):.0f} MiB")
    say(
        f"{name:24} job p50 {_p50(before_ms):6.1f} / {_p50(during_ms):7.1f} (max {max(during_ms, default=0):7.1f}) / "
        f"{_p50(after_ms):6.1f} ms, {flood.role} {before_mib:5.0f} / {most_mib:5.0f} / {after_mib:5.0f} MiB, "
        f"{_in_words(outcome)}"
    )
    return [f"{name}: {violation}" for violation in violations]


def _flooding(mesh: LocalMesh, client: Client, flood: Flood, carrier: str) -> subprocess.Popen[bytes]:
    target, flooder = mesh[flood.role], mesh["flooder"]
    address = next(peer.addresses[0] for peer in client.mesh.peers() if peer.member.node_id == target.node_id)
    mesh_id = client.mesh.status().mesh_id
    siege = Siege(flood.name, carrier, str(flooder.folder), str(target.folder), address, mesh_id, SECONDS)
    process = subprocess.Popen(
        [sys.executable, "-m", "offgrid_tools.soak.flooder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(msgspec.to_builtins(siege)).encode())
    process.stdin.close()
    process.stdin = None
    return process


def _job(client: Client, violations: list[str]) -> float:
    """An honest one from end to end, in milliseconds."""
    began_s = time.monotonic()
    try:
        job = client.jobs.submit(payloads.builtin(input=b"honest")).result(JOB_S_MAX)
    except Exception as error:  # noqa: BLE001 - whatever it was, an honest job has come to nothing
        violations.append(f"an honest job came to nothing: {error!r}")
    else:
        if job.state != jobs_pb2.JOB_STATE_COMPLETED:
            violations.append(f"an honest job ended as {jobs_pb2.JobState.Name(job.state)}: {job.error}")
    return 1_000 * (time.monotonic() - began_s)


def resident_mib(pid: int) -> float:
    """The memory that a process has in use, as POSIX's ps(1) says; 0 where there is none."""
    ps = shutil.which("ps")
    if ps is None:
        return 0.0
    said = subprocess.run([ps, "-o", "rss=", "-p", str(pid)], check=False, capture_output=True).stdout
    return int(said or 0) / 1_024


def _judged(outcome: Outcome) -> list[str]:
    """Whoever is refused for asking too much is told when to come back."""
    refused = sum(count for reason, count in outcome.refused.items() if reason in OUR_WAY)
    if outcome.with_retry < refused:
        return [f"of {refused} refusals {outcome.with_retry} said when to come back: {dict(outcome.refused)}"]
    return []


def _p50(times_ms: list[float]) -> float:
    return statistics.median(times_ms) if times_ms else 0.0


def _in_words(outcome: Outcome | None) -> str:
    if outcome is None:
        return "broken down"
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.refused.items())) or "none"
    return f"{outcome.answered} answered, refused {refused} ({outcome.with_retry} with a time), {outcome.lost} lost"
