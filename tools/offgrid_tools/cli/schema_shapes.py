"""Shapes of documents, and JSON Schema (draft 2020-12) of them. A shape is

"Job"                      a message of offgrid.v1, in the form of offgrid.json_form
{"job": "Job", "why?": …}  an object that has all of these, but for those with a ?
[shape]                    a list
TEXT, INTEGER, …           JSON Schema itself
Either(shape, …)           one of them; Maybe(shape): or null
Lines(shape, …)            a stream: each line is one of them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offgrid.api import entry_of, message_of

if TYPE_CHECKING:
    from offgrid.api import Descriptor, FieldDescriptor

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


class Given(dict[str, Any]):
    """JSON Schema that stands for itself."""


class Either(tuple["Shape", ...]):
    """One of these shapes."""

    __slots__ = ()

    def __new__(cls, *shapes: Shape) -> Either:
        return super().__new__(cls, shapes)


class Lines(Either):
    """A line for each of what comes, of one of these shapes."""

    __slots__ = ()


Shape = str | Given | Either | Mapping[str, Any] | Sequence[Any]

TEXT, INTEGER, NUMBER, BOOLEAN = (Given(type=kind) for kind in ("string", "integer", "number", "boolean"))
ANYTHING, OBJECT, NULL = Given(), Given(type="object"), Given(type="null")
BASE64 = Given(type="string", contentEncoding="base64")
WHOLE, FRACTION = (Given(type=kind, minimum=0) for kind in ("integer", "number"))


def Maybe(shape: Shape) -> Either:  # noqa: N802 - reads as what it makes
    """It, or null."""
    return Either(shape, NULL)


def schema_of(shape: Shape, *, title: str, strict: bool = False) -> Schema:
    """A schema that stands alone, with all messages that it needs under $defs. A `strict` one takes no field that it
    does not name: newer nodes may have more, so what is published is not."""
    needed: dict[str, Schema] = {}
    made = part_of(shape, needed, strict=strict)
    return {"$schema": DRAFT, "title": title, **made, "$defs": dict(sorted(needed.items()))}


def part_of(shape: Shape, needed: dict[str, Schema], *, strict: bool = False) -> Schema:
    """A schema whose messages are added to those that are `needed`, under "#/$defs" of what it becomes a part of."""
    about = "Each line is such a document." if isinstance(shape, Lines) else "One document on one line."
    return {"description": about, **_schema(shape, needed, strict)}


def _schema(shape: Shape, needed: dict[str, Schema], strict: bool) -> Schema:
    match shape:
        case str():
            return _reference(message_of(shape), needed, strict)
        case Given():
            return dict(shape)
        case Either():
            found = [_schema(each, needed, strict) for each in shape]
            return found[0] if len(found) == 1 else {"anyOf": found}
        case Mapping():
            properties = {name.rstrip("?"): _schema(each, needed, strict) for name, each in shape.items()}
            return _object(properties, [name for name in shape if not name.endswith("?")], strict)
    return {"type": "array", "items": _schema(shape[0], needed, strict)}


def _object(properties: Mapping[str, Schema], required: Sequence[str], strict: bool) -> Schema:
    closed = {"additionalProperties": False} if strict else {}
    return {"type": "object", "properties": properties, "required": list(required), **closed}


def _reference(message: Descriptor, needed: dict[str, Schema], strict: bool) -> Schema:
    if message.name not in needed:
        needed[message.name] = {}  # it may contain itself
        properties = {field.name: _field(field, needed, strict) for field in message.fields}
        required = [field.name for field in message.fields if field.containing_oneof is None]
        needed[message.name] = _object(properties, required, strict)
    return {"$ref": f"#/$defs/{message.name}"}


def _field(field: FieldDescriptor, needed: dict[str, Schema], strict: bool) -> Schema:
    if field.is_repeated:
        if entry := entry_of(field):
            return {"type": "object", "additionalProperties": _value(entry.value, needed, strict)}
        return {"type": "array", "items": _value(field, needed, strict)}
    value_schema = _value(field, needed, strict)
    may_be_null = field.message_type is not None and field.containing_oneof is None
    return {"anyOf": [value_schema, {"type": "null"}]} if may_be_null else value_schema


def _value(field: FieldDescriptor, needed: dict[str, Schema], strict: bool) -> Schema:
    if field.message_type is not None:
        return _reference(field.message_type, needed, strict)
    if field.enum_type is not None:
        known = {"enum": [value.name for value in field.enum_type.values]}
        return known if strict else {"anyOf": [known, {"type": "integer"}]}  # what this version does not know
    return dict(BASE64 if field.type == field.TYPE_BYTES else _SCALARS[field.cpp_type])


def _scalars() -> Iterator[tuple[int, Given]]:
    from google.protobuf.descriptor import FieldDescriptor as F

    yield from ((kind, INTEGER) for kind in (F.CPPTYPE_INT32, F.CPPTYPE_INT64))
    yield from ((kind, WHOLE) for kind in (F.CPPTYPE_UINT32, F.CPPTYPE_UINT64))
    yield from ((kind, NUMBER) for kind in (F.CPPTYPE_FLOAT, F.CPPTYPE_DOUBLE))
    yield F.CPPTYPE_BOOL, BOOLEAN
    yield F.CPPTYPE_STRING, TEXT


_SCALARS = dict(_scalars())
