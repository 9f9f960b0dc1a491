"""Messages as JSON, as the command prints them and the gateway answers: the wire's own field names, every field
present, enums by name.

Unlike protobuf's canonical JSON, 64-bit integers are numbers (all that we send stay below 2**53, which jq and
JavaScript hold exactly); bytes are base64, numbers that are none are texts ("nan", "inf"). A field that is a message
and not set is null; of a oneof only what is set appears.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from offgrid.api import entry_of

if TYPE_CHECKING:
    from offgrid.api import FieldDescriptor


def json_of(message: Message) -> dict[str, Any]:
    """The message as what `json.dumps` takes."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields if _shown(message, field)}


def _shown(message: Message, field: FieldDescriptor) -> bool:
    return field.containing_oneof is None or message.HasField(field.name)


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if entry := entry_of(field):
            return {str(key): _value(entry.value, value[key]) for key in sorted(value)}
        return [_value(field, item) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return json_of(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode("ascii")
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
