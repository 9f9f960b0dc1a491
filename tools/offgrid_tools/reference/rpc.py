"""docs/reference/rpc.md: services, methods and messages, by their descriptors and with the comments of proto/."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor as F

from offgrid.api import PACKAGE, bindings, entry_of, files, is_optional
from offgrid.api_comments import comments
from offgrid_node.services.access import ACCESS, MEMBERS, ROLE_NAMES, Row
from offgrid_tools.reference.plain import shown

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from offgrid.api import Descriptor, EnumDescriptor, FieldDescriptor

HEAD = """# RPCs

Every service of a node, with its messages. A node's own machine reaches them over the local socket (`admin.address`),
members over mutual TLS, both by gRPC and with reflection; what has an HTTP path is there as JSON as well. *Callers* are
who is let in: `admin` is whoever has the local socket or the gateway's token, `member` any member of the mesh, `core`,
`broker` and `host` members with that role in force, `anonymous` who knocks with an invite. *At* is the role that the
node itself must have to answer.
"""
CARRIER = Row(MEMBERS)  # what carries other calls has no row of its own: those have
TYPES = {number: name[5:].lower() for name, number in vars(F).items() if name.startswith("TYPE_")}


def text() -> str:
    page = _Page({name: shown(" ".join(said.split())) for name, said in comments().items()})
    lines = [HEAD]
    for file in files():
        for service in file.services_by_name.values():
            lines += page.service(service)
    for file in files():
        for message in file.message_types_by_name.values():
            lines += page.message(message)
        for enum in file.enum_types_by_name.values():
            lines += page.enum(enum)
    return "\n".join(lines).rstrip() + "\n"


class _Page:
    """Its parts; `about` is what is said of each, by full name."""

    def __init__(self, about: Mapping[str, str]) -> None:
        self._about = about

    def _headed(self, level: str, name: str, full_name: str) -> Iterator[str]:
        yield from (f"{level} {name}", "")
        if about := self._about.get(full_name):
            yield from (about, "")

    def service(self, service: ServiceDescriptor) -> Iterator[str]:
        yield from self._headed("##", service.name, service.full_name)
        for method in service.methods:
            yield from self._method(service, method)

    def _method(self, service: ServiceDescriptor, method: MethodDescriptor) -> Iterator[str]:
        asked, answered = _link(method.input_type), _link(method.output_type)
        row = ACCESS.get(f"{service.full_name}/{method.name}", CARRIER)
        yield from self._headed("###", f"{service.name}.{method.name}", method.full_name)
        yield f"- {'stream of ' * method.client_streaming}{asked} → {'stream of ' * method.server_streaming}{answered}"
        at = f"; at: {ROLE_NAMES[row.own]}" if row.own is not None else ""
        yield f"- callers: {', '.join(sorted(row.callers))}{at}"
        yield from (f"- `{each.verb} {each.template}`" for each in bindings(method))
        yield ""

    def message(self, message: Descriptor) -> Iterator[str]:
        if message.GetOptions().map_entry:
            return
        yield from self._headed("###", _name(message), message.full_name)
        if message.fields:
            yield from ("| field | type | what it is |", "|---|---|---|")
        for field in message.fields:
            one_of = field.containing_oneof
            alternatives = f"One of `{one_of.name}`. " if one_of and not is_optional(field) else ""
            yield f"| `{field.name}` | {_kind(field)} | {alternatives}{self._about.get(field.full_name, '')} |"
        yield ""
        for inner in message.nested_types:
            yield from self.message(inner)
        for enum in message.enum_types:
            yield from self.enum(enum)

    def enum(self, enum: EnumDescriptor) -> Iterator[str]:
        yield from self._headed("###", _name(enum), enum.full_name)
        yield from ("| number | value | what it is |", "|---|---|---|")
        for value in enum.values:
            yield f"| {value.number} | `{value.name}` | {self._about.get(f'{enum.full_name}.{value.name}', '')} |"
        yield ""


def _kind(field: FieldDescriptor) -> str:
    if entry := entry_of(field):
        return f"map of {_one(entry.key)} to {_one(entry.value)}"
    if field.is_repeated:
        return f"list of {_one(field)}"
    return f"optional {_one(field)}" if is_optional(field) else _one(field)


def _one(field: FieldDescriptor) -> str:
    kind = field.message_type or field.enum_type
    return _link(kind) if kind else TYPES[field.type]


def _link(kind: Descriptor | EnumDescriptor) -> str:
    """The type's name, with a link where it stands on this page."""
    if not kind.full_name.startswith(f"{PACKAGE}."):
        return f"`{kind.full_name}`"
    return f"[{_name(kind)}](#{re.sub(r'[^a-z0-9_-]', '', _name(kind).lower())})"


def _name(kind: Descriptor | EnumDescriptor) -> str:
    return kind.full_name.removeprefix(f"{PACKAGE}.")
