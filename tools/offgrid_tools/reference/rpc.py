"""docs/reference/rpc.md: services, methods and messages, from the .proto files with their comments."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2 as pb

from offgrid_node.services.access import ACCESS, MEMBERS, ROLE_NAMES, Row
from offgrid_tools.reference.plain import shown

PROTO = Path(__file__).parents[3] / "proto"
PACKAGE = ".offgrid.v1."
HEAD = """# RPCs

Every service of a node, with its messages. A node's own machine reaches them over the local socket (`admin.address`),
members over mutual TLS, both by gRPC and with reflection; what has an HTTP path is there as JSON as well. *Callers* are
who is let in: `admin` is whoever has the local socket or the gateway's token, `member` any member of the mesh, `core`,
`broker` and `host` members with that role in force, `anonymous` who knocks with an invite. *At* is the role that the
node itself must have to answer.
"""
CARRIER = Row(MEMBERS)  # what carries other calls has no row of its own: those have
FieldPath = tuple[int, ...]


class Source:
    """One .proto file, and the comments before its parts."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self.file = file
        self._comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}

    def comment(self, *path: int) -> str:
        return " ".join(self._comments.get(path, "").split())


def text() -> str:
    sources = [Source(file) for file in compiled() if file.package == "offgrid.v1"]
    lines = [HEAD]
    for source in sources:
        lines += _services(source)
    for source in sources:
        lines += _types(source)
    return "\n".join(lines).rstrip() + "\n"


def compiled() -> Sequence[pb.FileDescriptorProto]:
    """proto/ with its comments, which the generated modules leave out. Raises RuntimeError when protoc refuses it."""
    import grpc_tools
    from grpc_tools import protoc

    includes = [PROTO, Path(grpc_tools.__file__).parent / "_proto", Path(annotations_pb2.__file__).parents[2]]
    names = sorted(str(path.relative_to(PROTO).as_posix()) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory(prefix="offgrid-reference-") as folder:
        out = Path(folder) / "all.binpb"
        arguments = ["protoc", *(f"-I{place}" for place in includes), "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={out}", *names]):
            raise RuntimeError("protoc refuses proto/")
        return pb.FileDescriptorSet.FromString(out.read_bytes()).file


def _services(source: Source) -> Iterator[str]:
    for number, service in enumerate(source.file.service):
        yield from (f"## {service.name}", "")
        if about := source.comment(6, number):
            yield from (shown(about), "")
        for place, method in enumerate(service.method):
            yield from _method(service.name, method, source.comment(6, number, 2, place))


def _method(service: str, method: pb.MethodDescriptorProto, about: str) -> Iterator[str]:
    asked, answered = _named(method.input_type), _named(method.output_type)
    row = ACCESS.get(f"offgrid.v1.{service}/{method.name}", CARRIER)
    yield from (f"### {service}.{method.name}", "")
    if about:
        yield from (shown(about), "")
    yield f"- {'stream of ' * method.client_streaming}{asked} → {'stream of ' * method.server_streaming}{answered}"
    at = f"; at: {ROLE_NAMES[row.own]}" if row.own is not None else ""
    yield f"- callers: {', '.join(sorted(row.callers))}{at}"
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        if path := _path(binding):
            yield f"- `{path}`"
    yield ""


def _path(rule: http_pb2.HttpRule) -> str:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        return ""
    if kind == "custom":
        return f"{rule.custom.kind} {rule.custom.path}"
    return f"{kind.upper()} {getattr(rule, kind)}"


def _types(source: Source) -> Iterator[str]:
    for number, message in enumerate(source.file.message_type):
        yield from _message(source, message, (4, number), message.name)
    for number, enum in enumerate(source.file.enum_type):
        yield from _enum(source, enum, (5, number), enum.name)


def _message(source: Source, message: pb.DescriptorProto, path: FieldPath, name: str) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield from (f"### {name}", "")
    if about := source.comment(*path):
        yield from (shown(about), "")
    if message.field:
        yield from ("| field | type | what it is |", "|---|---|---|")
    for number, field in enumerate(message.field):
        kind = _kind(message, field)
        alternatives = ""
        if field.HasField("oneof_index") and not field.proto3_optional:
            alternatives = f"One of `{message.oneof_decl[field.oneof_index].name}`. "
        about = shown(source.comment(*path, 2, number))
        yield f"| `{field.name}` | {kind} | {alternatives}{about} |"
    yield ""
    for number, inner in enumerate(message.nested_type):
        yield from _message(source, inner, (*path, 3, number), f"{name}.{inner.name}")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(source, enum, (*path, 4, number), f"{name}.{enum.name}")


def _enum(source: Source, enum: pb.EnumDescriptorProto, path: FieldPath, name: str) -> Iterator[str]:
    yield from (f"### {name}", "")
    if about := source.comment(*path):
        yield from (shown(about), "")
    yield from ("| number | value | what it is |", "|---|---|---|")
    for number, value in enumerate(enum.value):
        yield f"| {value.number} | `{value.name}` | {shown(source.comment(*path, 2, number))} |"
    yield ""


def _kind(message: pb.DescriptorProto, field: pb.FieldDescriptorProto) -> str:
    entry = next((inner for inner in message.nested_type if field.type_name.endswith(f".{message.name}.{inner.name}")
                  and inner.options.map_entry), None)  # fmt: skip
    if entry is not None:
        return f"map of {_scalar(entry.field[0])} to {_scalar(entry.field[1])}"
    kind = _scalar(field)
    if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"list of {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _scalar(field: pb.FieldDescriptorProto) -> str:
    if field.type_name:
        return _named(field.type_name)
    return pb.FieldDescriptorProto.Type.Name(field.type)[5:].lower()


def _named(type_name: str) -> str:
    """The type's name, with a link where it stands on this page."""
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.lstrip('.')}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{re.sub(r'[^a-z0-9_-]', '', name.lower())})"
