"""Missions, tasks, jobs, hosts and events as the prototype's paths answer them. Pure.

What has two obvious names in users' scripts has both (`id` and `mission_id`). Times are ISO 8601 in UTC with
microseconds; prices are in credits, sizes in millions of tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from offgrid.event_types import ETYPE_MAX, SEMANTIC, EventType
from offgrid.json_form import json_of
from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.jobs.table import COMPLETED

UrlOf = Callable[[str], str]
"""From a node id to the URL of its gateway."""
Document = dict[str, Any]
ROUTES: Mapping[int, str] = {jobs_pb2.ROUTE_OFFGRID: "offgrid", jobs_pb2.ROUTE_FILE_QUEUE: "file_queue"}


def iso(utc_us: int) -> str | None:
    """None for 0, which is no time."""
    if not utc_us:
        return None
    return datetime.fromtimestamp(utc_us // 1_000_000, UTC).replace(microsecond=utc_us % 1_000_000).isoformat()


def mission_document(mission: jobs_pb2.Mission) -> Document:
    return {
        "id": mission.mission_id,
        "mission_id": mission.mission_id,
        "title": mission.title,
        "description": mission.description,
        "status": mission.status,
        "created_at": iso(mission.created_us),
        "updated_at": iso(mission.updated_us),
    }


def task_document(task: jobs_pb2.Task) -> Document:
    return {
        "id": task.task_id,
        "task_id": task.task_id,
        "mission_id": task.mission_id,
        "name": task.name,
        "kind": task.kind,
        "type": task.kind,
        "created_at": iso(task.created_us),
    }


def job_document(job: jobs_pb2.Job, url_of: UrlOf) -> Document:
    return {
        "id": job.job_id,
        "job_id": job.job_id,
        "task_id": job.task_id,
        "mission_id": job.mission_id,
        "kind": job.kind,
        "type": job.kind,
        "status": status_of(job),
        "route": ROUTES.get(job.route),
        "reason": job.waiting or job.route_reason or None,
        "size": job.size_tokens / 1_000_000,
        "needs": job.needs,
        "timeout_ms": job.timeout_ms,
        "attempt": job.attempt,
        "broker": job.broker or None,
        "created_at": iso(job.created_us),
        "updated_at": iso(job.updated_us),
        "result": result_document(job, url_of),
        "quote": quote_of(job, url_of),
        "error": job.error or None,
        "error_detail": job.error_detail or None,
    }


def without_output(document: Document) -> Document:
    """A job's as lists have it: what is not told is no empty text."""
    result = document["result"]
    return document if result is None else document | {"result": result | {"output": None}}


def status_of(job: jobs_pb2.Job) -> str:
    """JOB_STATE_COMPLETED is "completed"."""
    return jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def result_document(job: jobs_pb2.Job, url_of: UrlOf) -> Document | None:
    """None while there is none."""
    if not job.HasField("result"):
        return None
    result = job.result
    document: Document = {
        "ok": job.state == COMPLETED,
        "offgrid_receipt": receipt_document(result.receipt) if result.HasField("receipt") else None,
        "host": url_of(job.host) if job.host else None,
        "exit_code": result.exit_code,
        "log": result.log.decode(errors="replace"),
    }
    if result.output_object:
        return document | {"output": None, "output_object": result.output_object, "output_bytes": result.output_bytes}
    try:
        return document | {"output": result.output.decode()}
    except UnicodeDecodeError:
        return document | {"output": None, "output_base64": _base64(result.output)}


def receipt_document(receipt: jobs_pb2.Receipt) -> Document:
    """What the host signed, in words and as it stands: `body` is a leaf of the Merkle tree of which `signature` is."""
    facts = receipt.facts
    metrics = ("compute_tokens_m", "latency_ms", "cpu_ms", "memory_peak_bytes", "output_bytes")
    return {
        "node_id": facts.node_id,
        "job_id": facts.job_id,
        "attempt": facts.attempt,
        "core_id": facts.core_id,
        "status": facts.status,
        "executor": facts.executor,
        "result_digest": facts.result_digest.hex(),
        "price": facts.price_micro / 1_000_000,
        "metrics": {name: getattr(facts, name) for name in metrics},
        "signature": _base64(receipt.root_signature),
        "body": _base64(receipt.body),
        "index": receipt.index,
        "count": receipt.count,
        "path": [_base64(step) for step in receipt.path],
    }


def quote_of(job: jobs_pb2.Job, url_of: UrlOf) -> Document | None:
    """What was agreed with the host that has the job, or had it last."""
    if not job.host:
        return None
    return quote_document(job.host, url_of(job.host), job.price_micro)


def quote_document(node_id: str, url: str, price_micro: int) -> Document:
    return {"host": url, "node_id": node_id, "price": price_micro / 1_000_000, "price_micro": price_micro}


def host_document(host: jobs_pb2.HostState) -> Document:
    """What a host says of itself to whoever looks for one."""
    profile, offers = host.profile, host.offers
    prices = [offer.ask_micro for offer in offers]
    return {
        "enabled": host.state == "on",
        "state": host.state,
        "kinds": sorted({kind for offer in offers for kind in offer.kinds}),
        "executors": sorted({executor for offer in offers for executor in offer.executors}),
        "models": list(profile.models),
        "price": min(prices) / 1_000_000 if prices else None,
        "price_micro": min(prices) if prices else None,
        "capacity": {
            "slots": profile.slots,
            "slots_free": max(0, profile.slots - host.slots_busy),
            "cpus": profile.cpus,
            "memory_mb": profile.memory_mb,
            "gpus": [{"model": gpu.model, "memory_mb": gpu.memory_mb} for gpu in profile.gpus],
        },
        "labels": dict(profile.labels),
        "platform": profile.platform,
    }


def event_document(event: state_pb2.Event) -> Document:
    """Of the journal."""
    case = event.WhichOneof("data")
    return {
        "seq": event.seq,
        "etype": event.etype,
        "type": event.type,
        "ts": event.timestamp_us / 1_000_000,
        "timestamp": iso(event.timestamp_us),
        "subject": event.subject,
        "data": json_of(getattr(event, case)) if case else {},
    }


def record_document(session: str, record: state_pb2.Record, data: object) -> Document:
    """An application's own event, of a session. Its `etype` is that by which the journal knows of sessions."""
    document: Document = {
        "seq": record.number,
        "etype": int(EventType.SESSION_CHANGED),
        "type": record.kind,
        "ts": record.timestamp_us / 1_000_000,
        "timestamp": iso(record.timestamp_us),
        "session": session,
        "data": data,
    }
    for name in ("frame_id", "energy_delta"):
        if record.HasField(name):
            document[name] = getattr(record, name)
    return document


def etypes_of(words: Sequence[str]) -> list[int]:
    """Of numbers and names; without any those that users know, 10 to 30. Raises ValueError with the word."""
    if not words:
        return list(SEMANTIC)
    return [_etype_of(word) for word in words]


def _etype_of(word: str) -> int:
    if word.upper() in EventType.__members__:
        return int(EventType[word.upper()])
    if word.isascii() and word.isdigit() and len(word) <= len(str(ETYPE_MAX)) and 0 < int(word) <= ETYPE_MAX:
        return int(word)
    raise ValueError(word)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
