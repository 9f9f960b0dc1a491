"""The answers of the prototype's paths as schemas, in step with `old_shapes.py`; a test holds them to each other."""

from __future__ import annotations

from offgrid_node.gateway.openapi_forms import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    Json,
    listed,
    maybe,
    ref,
    shape,
    told,
)

_TIME = maybe({"type": "string", "format": "date-time"})
_PRICE = told(NUMBER, "In credits.")
_MAYBE = maybe(TEXT)

OLD_SCHEMAS: Json = {
    "OldMission": shape(
        {
            "id": TEXT,
            "mission_id": TEXT,
            "title": TEXT,
            "description": TEXT,
            "status": TEXT,
            "created_at": _TIME,
            "updated_at": _TIME,
        }
    ),
    "OldTask": shape(
        {
            "id": TEXT,
            "task_id": TEXT,
            "mission_id": TEXT,
            "name": TEXT,
            "kind": TEXT,
            "type": TEXT,
            "created_at": _TIME,
        }
    ),
    "OldJob": shape(
        {
            "id": TEXT,
            "job_id": TEXT,
            "task_id": TEXT,
            "mission_id": TEXT,
            "kind": TEXT,
            "type": TEXT,
            "status": {
                "enum": ["created", "queued", "awarded", "running", "completed", "failed", "cancelled", "expired"]
            },
            "route": {"enum": ["offgrid", "file_queue", None]},
            "reason": told(_MAYBE, "Why it went that way; of one that waits for a host, why it has none yet."),
            "size": told(NUMBER, "In millions of tokens."),
            "needs": TEXT,
            "timeout_ms": COUNT,
            "attempt": COUNT,
            "broker": _MAYBE,
            "created_at": _TIME,
            "updated_at": _TIME,
            "result": maybe(ref("OldResult")),
            "quote": maybe(ref("OldQuote")),
            "error": told(_MAYBE, "A word: JobTimeout, NoHostsAvailable, …"),
            "error_detail": _MAYBE,
        }
    ),
    "OldResult": shape(
        {
            "ok": FLAG,
            "offgrid_receipt": maybe(ref("OldReceipt")),
            "host": _MAYBE,
            "exit_code": {"type": "integer"},
            "log": TEXT,
            "output": _MAYBE,
            "output_base64": told(TEXT, "Of one that is no text."),
            "output_object": told(TEXT, "Of a large one: GET /v1/objects/{object}:bytes."),
            "output_bytes": COUNT,
        },
        optional=("output_base64", "output_object", "output_bytes"),
    ),
    "OldReceipt": shape(
        {
            "node_id": TEXT,
            "job_id": TEXT,
            "attempt": COUNT,
            "core_id": TEXT,
            "status": TEXT,
            "executor": TEXT,
            "result_digest": TEXT,
            "price": _PRICE,
            "metrics": shape(
                {
                    "compute_tokens_m": NUMBER,
                    "latency_ms": NUMBER,
                    "cpu_ms": NUMBER,
                    "memory_peak_bytes": COUNT,
                    "output_bytes": COUNT,
                }
            ),
            "signature": TEXT,
            "body": TEXT,
            "index": COUNT,
            "count": COUNT,
            "path": TEXTS,
        },
        text="What the host signed: `body` is a leaf of the Merkle tree of whose root `signature` is.",
    ),
    "OldQuote": shape(
        {
            "host": TEXT,
            "node_id": TEXT,
            "price": _PRICE,
            "price_micro": COUNT,
            "name": TEXT,
            "reputation": NUMBER,
            "latency_ms": NUMBER,
            "slots_free": COUNT,
        },
        optional=("name", "reputation", "latency_ms", "slots_free"),
    ),
    "OldEvent": shape(
        {
            "seq": COUNT,
            "etype": told(COUNT, "10 to 30, and others that are asked for: /docs/reference/events.html."),
            "type": TEXT,
            "ts": told(NUMBER, "Seconds since 1970."),
            "timestamp": _TIME,
            "subject": TEXT,
            "data": ANY,
            "session": told(TEXT, "Of an application's event."),
            "frame_id": COUNT,
            "energy_delta": NUMBER,
        },
        optional=("subject", "session", "frame_id", "energy_delta"),
    ),
    "OldStatus": shape(
        {
            "ok": FLAG,
            "status": TEXT,
            "node_id": TEXT,
            "name": TEXT,
            "mesh": TEXT,
            "roles": TEXTS,
            "mode": {"enum": ["auto", "offgrid", "disabled"]},
            "version": TEXT,
            "uptime_s": NUMBER,
            "peers": shape({"alive": COUNT, "total": COUNT}),
            "jobs": shape({"open": COUNT}),
            "slots": shape({"total": COUNT, "busy": COUNT}),
            "notices": TEXTS,
            "enabled": told(FLAG, "Of a host."),
            "state": TEXT,
        },
        optional=("enabled", "state"),
    ),
    "OldAnnounce": shape(
        {
            "node_id": TEXT,
            "name": TEXT,
            "version": TEXT,
            "roles": TEXTS,
            "url": TEXT,
            "host": TEXT,
            "grpc": _MAYBE,
            "addresses": TEXTS,
            "enabled": FLAG,
            "state": TEXT,
            "kinds": TEXTS,
            "executors": TEXTS,
            "models": TEXTS,
            "price": maybe(_PRICE),
            "price_micro": maybe(COUNT),
            "capacity": shape(
                {
                    "slots": COUNT,
                    "slots_free": COUNT,
                    "cpus": NUMBER,
                    "memory_mb": COUNT,
                    "gpus": listed(shape({"model": TEXT, "memory_mb": COUNT})),
                }
            ),
            "labels": {"type": "object", "additionalProperties": TEXT},
            "platform": TEXT,
        },
        optional=("kinds", "executors", "models", "price", "price_micro", "capacity", "labels", "platform"),
        text="Of a node that is no host, who and where it is.",
    ),
    "OldAuction": shape(
        {
            "ok": FLAG,
            "job_id": TEXT,
            "type": TEXT,
            "needs": TEXT,
            "size": NUMBER,
            "broker": TEXT,
            "host": TEXT,
            "winner": ref("OldQuote"),
            "quote": ref("OldQuote"),
            "quotes": listed(ref("OldQuote")),
        }
    ),
    "OldHostSwitch": shape({"ok": FLAG, "enabled": FLAG, "state": TEXT, "detail": TEXT}),
}
_job: Json = OLD_SCHEMAS["OldJob"]
OLD_SCHEMAS["OldRun"] = shape(
    _job["properties"] | {"ok": FLAG, "host": TEXT, "offgrid_receipt": maybe(ref("OldReceipt"))},
    text="The job, and of its result what is looked for first. `job_id` is the sender's.",
)
