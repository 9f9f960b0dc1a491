"""What a summary takes of an event of the journal: the ids and names in it, and its amounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from offgrid.event_types import type_name
from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.summaries.summary import Facts


class _Fields(NamedTuple):
    keys: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


# By the case of Event's oneof; its subject is a key in any case.
_FIELDS: Mapping[str, _Fields] = {
    "node_started": _Fields(),
    "member": _Fields(("node_id", "name"), ("weight_milli",)),
    "mission": _Fields(("mission_id", "title")),
    "task": _Fields(("task_id", "mission_id", "name")),
    "job": _Fields(
        ("job_id", "task_id", "mission_id", "host", "broker", "request_id"),
        ("size_tokens", "price_micro", "payload_bytes", "input_bytes", "result_bytes"),
    ),
    "attempt": _Fields(("job_id", "core", "host"), ("price_micro",)),
    "invite": _Fields(("invite_id", "used_by")),
    "peer": _Fields(("node_id",)),
    "quorum": _Fields(("quorum_id", "node_id"), ("acked_milli",)),
    "object": _Fields(("object_id", "owner", "key", "reader", "former"), ("size_bytes",)),
    "ledger": _Fields(("tx_id", "src"), ("amount_micro", "fee_micro")),
    "session": _Fields(("session_id", "name")),
    "block": _Fields(("session_id",), ("count",)),
    "alert": _Fields(("name",)),
    "mail": _Fields(("source", "destination", "node"), ("size_bytes",)),
}


def facts_of(event: state_pb2.Event) -> Facts:
    case, name = event.WhichOneof("data"), type_name(event.etype)
    fields = _FIELDS.get(case) if case is not None else None
    if case is None or fields is None:
        return Facts(name, (event.subject,), (), event.subject)
    data = getattr(event, case)
    keys = [event.subject, *(getattr(data, field) for field in fields.keys)]
    numbers = [(f"{name}/{field}", value) for field in fields.numbers if (value := getattr(data, field))]
    return Facts(name, keys, numbers, event.subject)
