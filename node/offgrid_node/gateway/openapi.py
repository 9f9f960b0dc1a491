"""The OpenAPI 3.1 document of all that is served: RPCs by descriptors, annotations and comments, the rest as the files
beside this one say it.

Messages are in the form of offgrid.json_form: 64-bit integers are numbers, what is a message and not set is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as F
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid.api import PACKAGE, entry_of
from offgrid.api_comments import comments
from offgrid_node import __version__
from offgrid_node.gateway import openapi_old, openapi_others
from offgrid_node.gateway.faults import JSON
from offgrid_node.gateway.json_requests import INTEGERS
from offgrid_node.gateway.openapi_forms import error_responses
from offgrid_node.gateway.openapi_old_shapes import OLD_SCHEMAS
from offgrid_node.gateway.openapi_texts import ABOUT, ERROR_SCHEMAS, EXAMPLES, OBJECT_BYTES
from offgrid_node.gateway.requests import TIMEOUT_HEADER, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX
from offgrid_node.gateway.streams import EVENTS, NDJSON
from offgrid_node.gateway.transcoding import annotated
from offgrid_node.services.router import SERVICES, Method

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from offgrid.api import Descriptor, EnumDescriptor, FieldDescriptor

PATH = "/openapi.json"
FORMATS = {F.CPPTYPE_INT32: "int32", F.CPPTYPE_UINT32: "int64", F.CPPTYPE_INT64: "int64", F.CPPTYPE_UINT64: "uint64"}

Json = dict[str, Any]


def openapi_routes() -> list[BaseRoute]:
    async def document(request: Request) -> Response:
        return Response(document_bytes(), media_type=JSON)

    return [Route(PATH, document, methods=["GET"])]


@cache
def document_bytes() -> bytes:
    """Made once, when somebody asks for it."""
    return json.dumps(Document(comments()).whole(), ensure_ascii=False).encode() + b"\n"


class Document:
    """One document in the making; messages and enums come in as they are met."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts` are comments by full name."""
        self._texts = texts
        self._schemas: Json = {**ERROR_SCHEMAS, **OLD_SCHEMAS, **openapi_others.SCHEMAS}

    def whole(self) -> Json:
        paths: dict[str, Json] = {}
        for verb, template, method, descriptor, in_body in annotated():
            fields = [variable.field for variable in template.variables]
            operation = self._operation(method, descriptor, fields, in_body)
            paths.setdefault(template.plain, {})[verb.lower()] = operation
        for others in (OBJECT_BYTES, openapi_others.PATHS, openapi_others.grpc_web_paths(), openapi_old.PATHS):
            for path, operations in others.items():
                paths.setdefault(path, {}).update(operations)
        return {
            "openapi": "3.1.0",
            "info": {"title": "offgrid-node", "version": __version__, "description": ABOUT},
            "servers": [{"url": "/"}],
            "security": [{}, {"bearer": []}],
            "tags": [
                *(self._described(_tag(each.full_name), each.full_name) for each in SERVICES),
                *({"name": part.TAG, "description": part.TAG_TEXT} for part in (openapi_others, openapi_old)),
            ],
            "paths": {path: paths[path] for path in sorted(paths)},
            "components": {
                "schemas": {name: self._schemas[name] for name in sorted(self._schemas)},
                "responses": {"Error": _error_response(), **error_responses()},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
                "parameters": {"timeout": _timeout_parameter()},
            },
        }

    def _described(self, name: str, full_name: str) -> Json:
        text = self._texts.get(full_name)
        return {"name": name, "description": text} if text else {"name": name}

    def _operation(self, method: Method, descriptor: MethodDescriptor, path: list[str], in_body: bool) -> Json:
        service, _, rpc = method.name.partition("/")
        text = self._texts.get(f"{service}.{rpc}", "")
        request = method.request.DESCRIPTOR
        parameters = [self._parameter(request.fields_by_name[name], name, "path") for name in path]
        found: Json = {
            "operationId": f"{_tag(service)}_{rpc}",
            "tags": [_tag(service)],
            "summary": text.split(". ")[0].rstrip(".")[:120] or rpc,
            **({"description": text} if text else {}),
        }
        if in_body:
            found["requestBody"] = {"content": {JSON: self._body(method, request, path)}}
        else:
            parameters += self._query(request, path, "")
        if not method.streaming:
            parameters.append({"$ref": "#/components/parameters/timeout"})
        if parameters:
            found["parameters"] = parameters
        answer = {"schema": self._ref(method.response.DESCRIPTOR)}
        kinds = (NDJSON, EVENTS) if method.streaming else (JSON,)
        told = "A message for each line, or event" if method.streaming else "What the RPC answers with"
        found["responses"] = {
            "200": {"description": told, "content": dict.fromkeys(kinds, answer)},
            "default": {"$ref": "#/components/responses/Error"},
        }
        return found

    def _body(self, method: Method, request: Descriptor, path: list[str]) -> Json:
        schema = self._message(request, without=path) if path else self._ref(request)
        example = EXAMPLES.get(method.name)
        return {"schema": schema} if example is None else {"schema": schema, "example": example}

    def _query(self, message: Descriptor, path: list[str], prefix: str) -> Iterator[Json]:
        for field in message.fields:
            if field.name in path and not prefix:
                continue
            if field.message_type is None:
                yield self._parameter(field, f"{prefix}{field.name}", "query")
            elif not field.is_repeated:
                yield from self._query(field.message_type, [], f"{prefix}{field.name}.")

    def _parameter(self, field: FieldDescriptor, name: str, place: str) -> Json:
        schema = self._one(field)
        if place == "path" and schema.get("type") == "string":
            schema["minLength"] = 1
        if field.is_repeated:
            schema = {"type": "array", "items": schema}
        found: Json = {"name": name, "in": place, "schema": schema}
        if place == "path":
            found["required"] = True
        text = self._texts.get(field.full_name)
        return found | ({"description": text} if text else {})

    # ---- schemas

    def _ref(self, kind: Descriptor | EnumDescriptor) -> Json:
        name = kind.full_name.removeprefix(f"{PACKAGE}.")
        if name not in self._schemas:
            self._schemas[name] = {}  # it may hold itself
            made = self._message(kind) if hasattr(kind, "fields") else self._enum(kind)
            self._schemas[name] = made
        return {"$ref": f"#/components/schemas/{name}"}

    def _message(self, message: Any, without: list[str] | None = None) -> Json:
        shown = [field for field in message.fields if field.name not in (without or ())]
        found: Json = {"type": "object"}
        if text := self._texts.get(message.full_name):
            found["description"] = text
        return found | {"properties": {f.name: self._field(f) for f in shown}, "additionalProperties": False}

    def _enum(self, enum: Any) -> Json:
        values = [value.name for value in enum.values]
        told = [self._texts.get(enum.full_name, "")]
        told += [f"{name}: {text}" for name in values if (text := self._texts.get(f"{enum.full_name}.{name}"))]
        text = "\n".join(filter(None, told))
        return {"type": "string", "enum": values, **({"description": text} if text else {})}

    def _field(self, field: FieldDescriptor) -> Json:
        if entry := entry_of(field):
            found: Json = {"type": "object", "additionalProperties": self._one(entry.value)}
        elif field.is_repeated:
            found = {"type": "array", "items": self._one(field)}
        elif field.message_type is not None:
            found = {"anyOf": [self._one(field), {"type": "null"}]}
        else:
            found = self._one(field)
        text = self._texts.get(field.full_name)
        return found | ({"description": text} if text else {})

    def _one(self, field: FieldDescriptor) -> Json:
        if field.message_type is not None:
            return self._ref(field.message_type)
        if field.enum_type is not None:
            return self._ref(field.enum_type)
        if field.cpp_type in INTEGERS:
            least, most = INTEGERS[field.cpp_type]
            return {"type": "integer", "format": FORMATS[field.cpp_type], "minimum": least, "maximum": most}
        match field.type:
            case F.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            case F.TYPE_BOOL:
                return {"type": "boolean"}
            case F.TYPE_STRING:
                return {"type": "string"}
        return {"type": "number", "format": "double"}


def _tag(service: str) -> str:
    return service.rpartition(".")[2]


def _error_response() -> Json:
    return {
        "description": "What went wrong, whose fault it is and what to do",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
    }


def _timeout_parameter() -> Json:
    schema = {"type": "integer", "minimum": 0, "maximum": TIMEOUT_MS_MAX, "default": TIMEOUT_MS_DEFAULT}
    text = "How long to wait for the answer. After it the error is 504: what was asked for may have been done."
    return {"name": TIMEOUT_HEADER, "in": "header", "schema": schema, "description": text}
