"""The API as its descriptors have it: files, messages, what fields hold, and the paths of methods over HTTP. Pure.

Whoever answers by it or tells of it looks here: the gateway's paths, JSON and OpenAPI, the command's schemas, the
reference. What the .proto files say of each part is in `api_comments.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from google.api import annotations_pb2, http_pb2

if TYPE_CHECKING:
    from google._upb._message import Descriptor as FastDescriptor
    from google._upb._message import EnumDescriptor as FastEnumDescriptor
    from google._upb._message import FieldDescriptor as FastFieldDescriptor
    from google.protobuf.descriptor import Descriptor as PlainDescriptor
    from google.protobuf.descriptor import EnumDescriptor as PlainEnumDescriptor
    from google.protobuf.descriptor import FieldDescriptor as PlainFieldDescriptor
    from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

    Descriptor = PlainDescriptor | FastDescriptor
    EnumDescriptor = PlainEnumDescriptor | FastEnumDescriptor
    FieldDescriptor = PlainFieldDescriptor | FastFieldDescriptor

PACKAGE = "offgrid.v1"
FILES = ("common", "objects", "jobs", "lane", "ledger", "links", "mail", "mesh", "quorum", "state")
"""Each behind those that it imports."""
_VERBS = ("get", "put", "post", "delete", "patch")


class Binding(NamedTuple):
    """Where a method is over HTTP: verb ("GET"), template ("/v1/jobs/{job_id}"), whether its fields come in a body."""

    verb: str
    template: str
    in_body: bool


class Entry(NamedTuple):
    """Of a map."""

    key: FieldDescriptor
    value: FieldDescriptor


def files() -> Iterator[FileDescriptor]:
    for name in FILES:
        yield import_module(f"{PACKAGE}.{name}_pb2").DESCRIPTOR


def message_of(name: str) -> Descriptor:
    """By its name in the package, "Job". Raises LookupError."""
    for file in files():
        if found := file.message_types_by_name.get(name):
            return found
    raise LookupError(f"{PACKAGE} has no message {name}")


def bindings(method: MethodDescriptor) -> tuple[Binding, ...]:
    """By its annotation google.api.http; () for one that has no path. Raises ValueError for what is not understood."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    return tuple(_binding(each) for each in (rule, *rule.additional_bindings) if each.WhichOneof("pattern"))


def _binding(rule: http_pb2.HttpRule) -> Binding:
    verb = rule.WhichOneof("pattern")
    if verb not in _VERBS or rule.body not in ("", "*"):
        raise ValueError(f"a rule for {verb} with the body {rule.body!r} is more than is understood here")
    return Binding(verb.upper(), getattr(rule, verb), rule.body == "*")


@cache
def entry_of(field: FieldDescriptor) -> Entry | None:
    """What a map's field holds; None for a field of anything else."""
    kind = field.message_type
    if kind is None or not kind.GetOptions().map_entry:
        return None
    return Entry(kind.fields_by_name["key"], kind.fields_by_name["value"])


def is_optional(field: FieldDescriptor) -> bool:
    """Whether it was declared so: protoc makes a oneof of its own of that."""
    return field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}"
