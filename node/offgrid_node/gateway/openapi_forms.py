"""Of what the OpenAPI document is put together, where no .proto file is its source. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

JSON = "application/json"
TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "array", "items": TEXT}
FLAG: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
ANY: Json = {}

ERRORS: dict[int, str] = {
    400: "Not what this path takes: which field, and what is allowed",
    401: "Who asks has not shown who it is: the token, or the signature, and what is the matter with it",
    403: "Another Host, a page of another site, or what nobody may do",
    404: "There is none of that name",
    408: "It came too slowly",
    409: "This node has not that role, or it is there already",
    413: "The body is too large",
    415: "The body is packed, or of another kind",
    416: "No such part",
    426: "Only a WebSocket is served here",
    429: "Too much, or too many wrong tries: Retry-After says when",
    503: "Not now: Retry-After says when",
    504: "No answer came in time: it may have been done, or not",
}
EDGE = (400, 401, 403, 429, 503)
"""What any path may answer, before or behind its handler."""
WRITING = (*EDGE, 408, 413, 415)
"""Of those that take a body."""


def ref(name: str) -> Json:
    """To a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def told(schema: Json, text: str) -> Json:
    return schema | {"description": text}


def maybe(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def shape(properties: Json, *, optional: tuple[str, ...] = (), text: str = "") -> Json:
    """An object of just these, all there but the optional ones."""
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    made["required"] = [name for name in properties if name not in optional]
    return made | ({"description": text} if text else {})


def query(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": text}


def in_path(name: str, text: str = "") -> Json:
    made: Json = {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return made | ({"description": text} if text else {})


def content(schema: Json, *kinds: str) -> Json:
    return {"content": {kind: {"schema": schema} for kind in kinds or (JSON,)}}


def answers(codes: tuple[int, ...], **ok: Json) -> Json:
    """The answers of an operation: `ok` by "s200", errors by their codes."""
    good = {name.removeprefix("s"): answer for name, answer in ok.items()}
    return good | {str(code): {"$ref": f"#/components/responses/Error{code}"} for code in sorted(set(codes))}


def error_responses() -> Json:
    """Components that `answers` names."""
    return {f"Error{code}": {"description": text, **content(ref("ErrorAnswer"))} for code, text in ERRORS.items()}
