"""What each command prints with --json, as a shape; `offgrid schema` and docs/reference/schemas.json publish them.

A test holds that every command is here, and that what commands print, in the tests and of a real mesh, is as it says.
"""

from __future__ import annotations

from collections.abc import Mapping

from offgrid_tools.cli.schema_shapes import (
    ANYTHING,
    BASE64,
    BOOLEAN,
    DRAFT,
    FRACTION,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Either,
    Given,
    Lines,
    Maybe,
    Schema,
    Shape,
    part_of,
    schema_of,
)

_PROBLEMS = [{"field": TEXT, "problem": TEXT}]
_RECORD = {
    "record": {
        "number": WHOLE, "timestamp_us": INTEGER, "kind": TEXT, "frame_id": Maybe(WHOLE), "energy_delta": Maybe(NUMBER),
        "data": OBJECT,
    }
}  # fmt: skip
_KIND = {"kind": TEXT, "registered_us": INTEGER, "schema": ANYTHING}
_BASIS = {"events": WHOLE, "summarised": WHOLE, "recorded": WHOLE, "forgotten": WHOLE, "unreadable": WHOLE}
_GOT = {"object_id": TEXT, "name": TEXT, "size_bytes": WHOLE, "path": TEXT}
_ROUTED = {"job": "Job", "route": TEXT, "reason": TEXT}
_CONTEXT = {"name": TEXT, "node_dir": Maybe(TEXT), "socket": Maybe(TEXT), "url": Maybe(TEXT), "current": BOOLEAN}
_TX_FILE = {"offgrid_transaction": INTEGER, "mesh_id": TEXT, "body": TEXT, "signature": TEXT}
_TX_FACTS = {
    "tx_id": TEXT, "mesh_id": TEXT, "src": TEXT, "lane": WHOLE, "seq": WHOLE,
    "outputs": [{"account": TEXT, "amount_micro": WHOLE}], "fee_micro": WHOLE, "meta": OBJECT, "signed": BOOLEAN,
}  # fmt: skip
_SIGNED = {"body": TEXT, "signature": TEXT}
_KEY_CHANGE = {**_SIGNED, "next_signature": TEXT}
_PROVEN = {"name": TEXT, "records": [{**_SIGNED, "key_changes": [_KEY_CHANGE]}]}
_MESH = {"id": TEXT, "name": TEXT}

DOCUMENTS: Mapping[str, Shape] = {
    "status": "GetStatusResponse",
    "smoke": {
        "ok": BOOLEAN,
        "checks": [
            {"check": TEXT, "about": TEXT, "outcome": Given(enum=["ok", "failed", "skipped"]), "detail": TEXT,
             "next": TEXT, "took_ms": FRACTION}
        ],
    },
    "page": "CreatePageLinkResponse",
    "peers": Either({"peers": ["Peer"]}, "ListRoadsResponse"),
    "ping": Lines("PingPeerResponse", {"lost": TEXT}),
    "trace": {"steps": [{"node": TEXT, "via": TEXT, "address": TEXT, "rtt_ms": Maybe(FRACTION), "trouble": TEXT}]},
    "link list": "ListLinksResponse",
    "link airtime": "ListLinksResponse",
    "mesh invite": "CreateInviteResponse",
    "mesh invites": {"invites": ["Invite"]},
    "mesh revoke": {"invites": ["Invite"]},
    "mesh members": {"members": ["Member"]},
    "mesh remove": {"member": "Member"},
    "mission create": {"mission": "Mission"},
    "mission list": {"missions": ["Mission"]},
    "mission show": {"mission": "Mission"},
    "mission update": {"mission": "Mission"},
    "task create": {"task": "Task"},
    "task list": {"tasks": ["Task"]},
    "task show": {"task": "Task", "counts": Given(type="object", additionalProperties={"type": "integer"})},
    "job run": {"job": "Job"},
    "job submit": _ROUTED,
    "job array": {
        "task_id": TEXT, "completed": WHOLE, "failed": WHOLE,
        "jobs": [{"job_id": TEXT, "input": TEXT, "state": TEXT, "error": TEXT, "output?": TEXT}],
    },
    "job create": {"job": "Job"},
    "job dispatch": "DispatchJobResponse",
    "job watch": Lines({"job": "Job"}),
    "job logs": Lines({"progress": "JobProgress"}, {"job": "Job"}),
    "job cancel": {"job_ids": [TEXT]},
    "job why": "ExplainJobResponse",
    "job top": Lines(
        {
            "open": WHOLE, "slots_busy": WHOLE, "slots_total": WHOLE,
            "ended_per_s": Given(type="object", additionalProperties={"type": "number"}), "jobs": ["Job"],
            "hosts": [
                {"node_id": TEXT, "name": TEXT, "liveness": TEXT, "jobs": WHOLE, "slots_free": Maybe(INTEGER)}
            ],
        }
    ),
    "job list": {"jobs": ["Job"]},
    "job show": {"job": "Job"},
    "job receipt": OBJECT,
    "job verify-receipt": {
        "valid": BOOLEAN, "problems": _PROBLEMS, "facts": Maybe(OBJECT), "host": Maybe(TEXT),
        "key_number": Maybe(WHOLE), "keys_replaced": INTEGER, "mesh": _MESH,
        "checked": {"mesh": BOOLEAN, "result": BOOLEAN},
    },
    "host show": {"host": "HostState"},
    "host toggle": {"host": "HostState"},
    "host drain": Lines({"host": "HostState"}),
    "host drop": {"owner": TEXT, "dropped": WHOLE},
    "schedule add": {"schedule": "Schedule"},
    "schedule list": {"schedules": ["Schedule"]},
    "schedule pause": {"schedule": "Schedule"},
    "schedule resume": {"schedule": "Schedule"},
    "schedule rm": {"schedule_id": TEXT},
    "market": "ListOffersResponse",
    "transfer": {"transaction": "Transaction"},
    "settle": "SettleResponse",
    "settle-rewards": "Epoch",
    "balance": Either({"balance": "Balance", "lanes?": ["Balance"]}, "ListBalancesResponse"),
    "history": {"transactions": ["Transaction"]},
    "bookings": "ListBookingsResponse",
    "wallet list": "GetWalletResponse",
    "wallet create-lane": "GetWalletResponse",
    "wallet credit": {"lines": ["CreditLine"]},
    "tx create": _TX_FILE,
    "tx sign": _TX_FILE,
    "tx send": {"transaction": "Transaction"},
    "tx finalize": {"transaction": "Transaction"},
    "tx list": {"transactions": ["Transaction"]},
    "tx show": Either({"transaction": "Transaction"}, _TX_FACTS),
    "tx unlock": {"transaction": "Transaction"},
    "tx receipt": "GetReceiptResponse",
    "tx verify-receipt": {
        "valid": BOOLEAN, "problems": _PROBLEMS, "checked": {"mesh": BOOLEAN}, "facts": Maybe(OBJECT),
    },
    "ledger open": "GetGenesisResponse",
    "ledger status": "GetLedgerStatusResponse",
    "ledger dag": {
        "newest": WHOLE,
        "blocks": [
            {"position": WHOLE, "author": TEXT, "name": TEXT, "height": WHOLE, "digest": TEXT, "prev": TEXT,
             "parents": [TEXT], "created_us": INTEGER, "kinds": OBJECT, "details": [TEXT], "forked": BOOLEAN}
        ],
    },
    "ledger witnesses": Either(
        {
            "epoch": WHOLE, "entered_us": INTEGER, "witnesses": ["Witness"], "orders": ["CommitteeOrder"],
            "wishing": ["Witness"], "accused": ["Witness"], "waits": [TEXT],
        },
        "CommitteeOrder",
    ),
    "ledger checkpoint": {"epochs": ["Epoch"]},
    "ledger epochs": {"epochs": ["Epoch"]},
    "ledger verify": {
        "holds": BOOLEAN, "mesh": _MESH, "blocks": WHOLE, "signatures": WHOLE, "final": WHOLE, "epochs": WHOLE,
        "first_epoch": WHOLE, "unsealed": [ANYTHING], "below_zero": WHOLE, "compared": BOOLEAN, "took_s": FRACTION,
        "found": WHOLE, "findings": [{"where": TEXT, "what": TEXT}],
    },
    "ledger genesis": {
        "offgrid_ledger": INTEGER, "genesis": _SIGNED, "issuer": _PROVEN, "witnesses": [_PROVEN],
        "mesh": {"id": TEXT, "genesis": _SIGNED, "root_changes": [{**_KEY_CHANGE, "kept": [TEXT]}]},
        "epochs": [{"checkpoint": TEXT, "seals": Given(type="object", additionalProperties={"type": "string"})}],
    },
    "metrics": {"address": TEXT, "text": TEXT},
    "put": Either({"object": "Object"}, {"objects": ["Object"]}),
    "get": Either(_GOT, {"files": [_GOT]}),
    "ls": Either({"objects": ["Object"]}, {"deletions": ["Deletion"]}, {"objects": ["RegainedObject"]}),
    "share": {"object": "Object"},
    "unshare": {"object": "Object"},
    "rm": {"deletions": ["Deletion"]},
    "info": {"object": "Object"},
    "audit": "AuditObjectResponse",
    "scrub": Lines("ScrubReplicasResponse"),
    "outbox": {"entries": ["OutboxEntry"]},
    "outbox cancel": {"entry": "OutboxEntry"},
    "placement explain": "ExplainPlacementResponse",
    "keys show": "GetDataKeysResponse",
    "keys rotate": "GetDataKeysResponse",
    "keys reencrypt": "GetDataKeysResponse",
    "quorum create": {"quorum": "Quorum"},
    "quorum ack": {"quorum": "Quorum"},
    "quorum status": {"quorum": "Quorum"},
    "quorum list": {"quorums": ["Quorum"]},
    "mail send": {"mail": "Mail"},
    "mail job": {"mail": "Mail"},
    "mail sent": {"mail": ["Mail"]},
    "mail show": "GetMailResponse",
    "mail inbox": {"messages": ["Message"]},
    "mail read": "ReadMessageResponse",
    "mail rm": {"deleted": [TEXT]},
    "mail held": {"parcels": ["HeldParcel"], "count": WHOLE, "used_bytes": WHOLE, "limit_bytes": WHOLE},
    "events": Lines({"events": ["Event"]}, {"event": "Event"}),
    "state sessions": {"sessions": ["Session"]},
    "state show": {
        "session": "Session", "reducer": TEXT, "version": INTEGER, "number": WHOLE, "snapshot": ANYTHING,
        "digest": TEXT, "state": ANYTHING,
    },
    "state records": Lines(_RECORD),
    "state watch": Lines(
        {
            "sync": {
                "session": Maybe("Session"), "number": WHOLE, "reducer": TEXT, "version": INTEGER, "state": ANYTHING,
                "digest": BASE64,
            }
        },
        _RECORD,
    ),
    "state snapshot": {"number": WHOLE},
    "state kinds": {"kinds": [_KIND], "store_raw_content": BOOLEAN},
    "state register-kind": {"kind": _KIND},
    "state purge": {"sessions": WHOLE, "events": WHOLE},
    "state retention": {"retention": "GetRetentionResponse"},
    "state pin": {"session": "Session"},
    "state export": {
        "session_id": TEXT, "file": TEXT, "format": TEXT, "events": WHOLE, "content": TEXT,
        "state": {"reducer": TEXT, "version": INTEGER, "digest": TEXT}, "digest": TEXT,
    },
    "state import": {"session": "Session", "known": BOOLEAN},
    "state replay": Lines(
        {
            "reducer": TEXT, "version": INTEGER, "number": WHOLE, "digest": TEXT, "kept": ANYTHING,
            "equal": Maybe(BOOLEAN), "why": TEXT, "state": ANYTHING,
        },
        _RECORD,
    ),
    "state validate": Lines(
        {"session_id": TEXT, "rejected": {"number": WHOLE, "kind": TEXT, "path": TEXT, "rule": TEXT}},
        {"session_id": TEXT, "events": WHOLE, "wrong": WHOLE},
        {"session_id": TEXT, "unreadable": TEXT, "reason": TEXT},
    ),
    "state backup": {"backup": "Backup"},
    "state backups": "ListBackupsResponse",
    "state verify-backup": Either({"whole": BOOLEAN, "manifest": OBJECT}, {"whole": BOOLEAN, "trouble": TEXT}),
    "state restore": Lines({"session_id": TEXT, "outcome": TEXT, "made": TEXT, "why": TEXT}),
    "state recovery-key": {"recovery_key": TEXT, "secret_file": TEXT},
    "state migrate": {"store_form": INTEGER, "newest_form": INTEGER},
    "state compact": {"before_bytes": WHOLE, "after_bytes": WHOLE},
    "memory ask": Either(
        {
            "key": TEXT, "at_least": WHOLE, "at_most": WHOLE, "false_positive": FRACTION, "sightings": ["Sighting"],
            "basis": _BASIS,
        },
        {"type": TEXT, "at_least": WHOLE, "at_most": WHOLE, "cut": WHOLE, "basis": _BASIS},
    ),
    "memory windows": {"windows": ["Summary"]},
    "doctor": {
        "folder": TEXT, "well": BOOLEAN, "took_ms": WHOLE,
        "findings": [{"check": TEXT, "state": TEXT, "sentence": TEXT, "command": TEXT}],
    },
    "mesh rotate": {"mesh": TEXT, "number": WHOLE, "key": TEXT, "change": TEXT},
    "debug bundle": {"path": TEXT, "files": [TEXT]},
    "context add": {"context": _CONTEXT},
    "context use": {"context": Maybe(_CONTEXT)},
    "context ls": {"current": TEXT, "contexts": [_CONTEXT]},
    "context rm": {"context": _CONTEXT},
}  # fmt: skip

ERROR: Shape = {
    "error": {
        "exit_code": INTEGER, "message": TEXT, "hint": TEXT, "code?": TEXT, "reason?": TEXT,
        "violations?": [{"field": TEXT, "description": TEXT}], "retry_ms?": Maybe(INTEGER),
    }
}  # fmt: skip
OTHERS: Mapping[str, str] = {
    "sim": "a report of the simulator's own", "sim ledger": "the same, of each level",
    "schema": "JSON Schema itself", "completion": "a shell's script, also with --json",
}  # fmt: skip
"""Commands whose output is no document of this table, and where it is told of."""


def all_schemas() -> Schema:
    """Of every command under "commands", and of what any prints on standard error under "error"; what several need
    stands once, under "$defs"."""
    defs: dict[str, Schema] = {}
    commands = {name: part_of(shape, defs) for name, shape in DOCUMENTS.items()}
    error = part_of(ERROR, defs)
    return {"$schema": DRAFT, "title": "offgrid --json", "commands": commands, "error": error, "$defs": defs}


def schema_for(command: str, *, strict: bool = False) -> Schema:
    """Of what `offgrid COMMAND --json` prints; "error" is of what any prints on standard error. Raises KeyError."""
    shape = ERROR if command == "error" else DOCUMENTS[command]
    return schema_of(shape, title=f"offgrid {command} --json" if command != "error" else "an error", strict=strict)
