"""docs/reference/events.md: the types of events, and what each carries."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor

from offgrid.event_types import SEMANTIC, EventType
from offgrid.v1 import state_pb2

HEAD = f"""# Events

What the journal of a node says happened: `offgrid events`, `client.events`, `StateService`. Each event has `seq`, its
place in the journal; `etype` and `type`, the number and name of its type; `timestamp_us` (UTC); `subject`, the id of
what it is about; and the data of the last column, a message of `proto/offgrid/v1` whose fields stand below. In JSON,
fields have the same names, whole numbers of 64 bits are strings, and bytes are base64.

{SEMANTIC[0]} to {SEMANTIC[-1]} are promised: they keep number, name and meaning. The others are the node's own. What
an application puts into the outbox under a type of its choice, of those, is an event of that type with `object` once it
is durable. A type that this version does not know was written by a newer one: it is kept as it is, shown as its number,
and asked for by it (`offgrid events --type 99`).

| number | type | what happened | data |
|---|---|---|---|"""
_KINDS = {getattr(FieldDescriptor, name): name[5:].lower() for name in dir(FieldDescriptor) if name.startswith("TYPE_")}


def text() -> str:
    return (
        "\n".join([HEAD, *_types(), "", "## Data", "", "| data | message | fields |", "|---|---|---|", *_data()]) + "\n"
    )


def _types() -> Iterator[str]:
    for etype in EventType:
        data = " or ".join(f"`{case}`" for case in etype.data)
        yield f"| {etype.value} | `{etype.name}` | {etype.meaning} | {data} |"


def _data() -> Iterator[str]:
    for case in state_pb2.Event.DESCRIPTOR.oneofs_by_name["data"].fields:
        message = case.message_type
        assert message is not None, "every case is a message"
        fields = ", ".join(f"{field.name} {_kind(field)}" for field in message.fields)
        yield f"| `{case.name}` | {message.name} | {fields} |"


def _kind(field: FieldDescriptor) -> str:
    inner = field.message_type or field.enum_type
    kind = inner.name if inner is not None else _KINDS[field.type]
    return f"(list of {kind})" if field.is_repeated else kind
