"""The OpenAPI document: whole, true to the descriptors, with the comments of the .proto files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc_tools
import jsonschema_rs
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from starlette.routing import Route, WebSocketRoute

import offgrid
from offgrid.api_comments import comments
from offgrid.json_form import json_of
from offgrid_node.config.apart import Secret
from offgrid_node.gateway import openapi_old, openapi_others
from offgrid_node.gateway.app import routes_of
from offgrid_node.gateway.json_requests import read_request
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.openapi import document_bytes
from offgrid_node.gateway.openapi_texts import EXAMPLES
from offgrid_node.gateway.transcoding import Paths, annotated
from offgrid_node.services.router import METHODS

PROTO = Path(offgrid.__file__).parents[1]
DOCUMENT: dict[str, Any] = json.loads(document_bytes())
VIEW = SimpleNamespace(
    config=SimpleNamespace(
        gateway=SimpleNamespace(auth_key=Secret(""), kit=True), node=SimpleNamespace(data_dir=Path("nowhere"))
    ),
    folder=Path("nowhere"),
    **dict.fromkeys(("router", "unbound", "about", "url", "node_id", "request", "asks_quickly", "stopping")),
    runtime=SimpleNamespace(clock=None),
    meters=SimpleNamespace(http=None),
)


def operations() -> dict[str, dict[str, Any]]:
    return {each["operationId"]: each for path in DOCUMENT["paths"].values() for each in path.values()}


def test_every_annotated_rpc_is_there_and_those_that_carry_bytes() -> None:
    expected = {method.name.removeprefix("offgrid.v1.").replace("/", "_") for _, _, method, _, _ in annotated()}
    found = {name for name in operations() if not name.startswith((openapi_old.TAG, openapi_others.TAG))}
    as_they_are = {f"ObjectService_{name}" for name in ("PutBytes", "GetBytes", "WriteUploadBytes")}
    assert found == expected | as_they_are


def test_all_that_is_served_is_there_and_nothing_else() -> None:
    """Verbs and paths of the application's routes, those of its table among them."""
    served = set[tuple[str, str]]()
    for route in routes_of(cast(NodeView, VIEW), None):
        if isinstance(route, Paths):
            served |= {(verb.lower(), template.plain) for verb, template, _ in route.rows}
        elif isinstance(route, Route):
            path = re.sub(r"^/page/[0-9a-f]{16}/", "/page/{version}/", route.path).replace(":path}", "}")
            served |= {(verb.lower(), path) for verb in (route.methods or set()) - {"HEAD"}}
        else:
            assert isinstance(route, WebSocketRoute)
            served |= {("get", route.path)}
    assert served == {(verb, path) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}


def test_what_asks_for_a_signature_has_its_fields() -> None:
    for path, verbs in openapi_old.PATHS.items():
        for verb, operation in verbs.items():
            if verb != "get":
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert {"timestamp", "signature", "signed_path", "signed_node"} <= schema["properties"].keys(), path
                assert "401" in operation["responses"]


def test_every_reference_leads_somewhere_and_every_path_names_its_parameters() -> None:
    text = json.dumps(DOCUMENT)
    for name in set(re.findall(r'"#/components/([a-zA-Z]+/[A-Za-z0-9_.]+)"', text)):
        room, _, key = name.partition("/")
        assert key in DOCUMENT["components"][room], name
    for path, verbs in DOCUMENT["paths"].items():
        for operation in verbs.values():
            named = {each["name"] for each in operation.get("parameters", ()) if each.get("in") == "path"}
            assert named == set(re.findall(r"\{([a-z_.]+)\}", path)), path
            names = [each.get("name", each.get("$ref")) for each in operation.get("parameters", ())]
            assert len(names) == len(set(names)), path


def test_a_field_of_the_path_is_not_asked_for_again_in_the_body() -> None:
    body = operations()["JobService_DispatchJob"]["requestBody"]["content"]["application/json"]
    assert list(body["schema"]["properties"]) == ["mode"]
    listed = operations()["JobService_ListJobs"]["parameters"]
    assert {"task_id", "states", "page_size"} <= {each.get("name") for each in listed}
    counted = operations()["MemoryService_AskCount"]["parameters"]
    assert "scope.session" in {each.get("name") for each in counted}


def test_a_schema_has_all_that_the_json_of_its_message_has() -> None:
    for method in METHODS.values():
        name = method.response.DESCRIPTOR.full_name.removeprefix("offgrid.v1.")
        schema = DOCUMENT["components"]["schemas"].get(name)
        if schema is not None:
            assert json_of(method.response()).keys() <= schema["properties"].keys(), name


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_streams_are_said_to_be_such() -> None:
    content = operations()["JobService_WatchJob"]["responses"]["200"]["content"]
    assert content.keys() == {"application/x-ndjson", "text/event-stream"}


def test_an_example_is_a_request() -> None:
    for name, example in EXAMPLES.items():
        read_request(METHODS[name].request, json.dumps(example).encode(), {})


def test_comments_are_those_that_protoc_finds(tmp_path: Path) -> None:
    found, out = comments(), tmp_path / "all.binpb"
    places = [PROTO, Path(grpc_tools.__file__).parent / "_proto", Path(annotations_pb2.__file__).parents[2]]
    arguments = ["protoc", *(f"-I{place}" for place in places), "--include_source_info", f"--descriptor_set_out={out}"]
    assert not protoc.main([*arguments, *map(str, PROTO.rglob("*.proto"))])
    expected: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        for place in file.source_code_info.location:
            if place.leading_comments and (name := full_name(file, list(place.path))):
                expected[name] = " ".join(place.leading_comments.split())
    assert len(expected) > 1_000
    assert {name: " ".join(text.split()) for name, text in found.items()} == expected


def full_name(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str:
    """Of a message, field, enum, value, service or method; "" for anything else."""
    kinds = {(4,): "message_type", (5,): "enum_type", (6,): "service"}
    inside = {"message_type": {2: "field", 3: "nested_type", 4: "enum_type"}, "enum_type": {2: "value"},
              "service": {2: "method"}, "nested_type": {2: "field", 3: "nested_type", 4: "enum_type"}}  # fmt: skip
    if len(path) < 2 or len(path) % 2 or (path[0],) not in kinds:
        return ""
    here: Any = file
    names, kind = [file.package], ""
    for number, index in zip(path[::2], path[1::2], strict=True):
        kind = kinds[(number,)] if not kind else inside.get(kind, {}).get(number, "")
        if not kind:
            return ""
        here = getattr(here, kind)[index]
        names.append(here.name)
    return ".".join(names)
