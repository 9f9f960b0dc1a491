"""What the OpenAPI document says that no .proto file does: how to read it, errors, objects as bytes, examples."""

from __future__ import annotations

from offgrid_node.gateway.openapi_forms import Json, content, in_path, query

ABOUT = (
    "All that a node serves over HTTP. Below /v1/: every RPC that its owner may call, as JSON. Fields have the names "
    "of the .proto files, and all of them are there; lowerCamelCase is understood too. Enums go by name, bytes as "
    "base64, times as microseconds since 1970. Lists are had page by page: pass `next_page_token` on as `page_token`. "
    "`request_id`, where there is one, makes a request safe to repeat. Streams are one JSON document a line, or "
    "server-sent events for who accepts text/event-stream. On this machine nothing more is needed; from elsewhere a "
    "token: `Authorization: Bearer …`."
)

ERROR_SCHEMAS: Json = {
    "ErrorAnswer": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"$ref": "#/components/schemas/Error"}},
    },
    "Error": {
        "type": "object",
        "description": "As AIP-193 has it.",
        "required": ["code", "status", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status."},
            "status": {"type": "string", "description": "A name of google.rpc.Code."},
            "message": {"type": "string", "description": "For people."},
            "details": {
                "type": "array",
                "description": "For programs: ErrorInfo with its `reason`, BadRequest with each field, RetryInfo.",
                "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
            },
        },
    },
}

_OBJECT = in_path("object", "Its name, which may hold slashes, or (to read it) its id.")
_BYTES = content({"type": "string", "format": "binary"}, "application/octet-stream")
_ERROR: Json = {"$ref": "#/components/responses/Error"}
_COUNT: Json = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
OBJECT_BYTES: dict[str, Json] = {
    "/v1/objects/{object}": {
        "put": {
            "operationId": "ObjectService_PutBytes",
            "tags": ["ObjectService"],
            "summary": "Puts a file, of any size",
            "description": "The body is the object: `curl -T photo.jpg http://127.0.0.1:8001/v1/objects/photo.jpg`.",
            "parameters": [
                _OBJECT,
                query("required_milli", _COUNT, "In thousandths of weight; 0: as the config says."),
                query("copies", _COUNT, "Full copies, and so many of them; 0: as the config says."),
                query("code.needed", _COUNT, "So many of code.total shards give it back."),
                query("code.total", _COUNT, "How many shards there are."),
                query("expires_after_ms", {"type": "integer", "minimum": 0}, "0: never."),
                query("request_id", {"type": "string"}, "Makes the whole put safe to repeat."),
            ],
            "requestBody": {"required": True, **_BYTES},
            "responses": {
                "201": {
                    "description": "It is durable here, and on its way to its hosts",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GetObjectResponse"}}},
                },
                "default": _ERROR,
            },
        },
    },
    "/v1/objects/{object}:bytes": {
        "get": {
            "operationId": "ObjectService_GetBytes",
            "tags": ["ObjectService"],
            "summary": "Gets an object as it was put",
            "parameters": [
                _OBJECT,
                {
                    "name": "Range",
                    "in": "header",
                    "schema": {"type": "string"},
                    "description": "One range of bytes, as curl's --continue-at and --range ask for.",
                },
            ],
            "responses": {
                "200": {"description": "All of it", **_BYTES},
                "206": {"description": "The part that Range asks for", **_BYTES},
                "default": _ERROR,
            },
        },
    },
    "/v1/uploads/{upload_id}": {
        "put": {
            "operationId": "ObjectService_WriteUploadBytes",
            "tags": ["ObjectService"],
            "summary": "Brings a part of an upload, of any length, as it is",
            "description": "As `:write`. With no body nothing is brought, and the answer says how much is here.",
            "parameters": [
                in_path("upload_id", "As OpenUpload has answered it."),
                query("offset", {"type": "integer", "minimum": 0}, "Where in the file the part begins."),
            ],
            "requestBody": {"required": False, **_BYTES},
            "responses": {
                "200": {
                    "description": "Where the next part begins",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/WriteUploadResponse"}}},
                },
                "default": _ERROR,
            },
        },
    },
}

EXAMPLES: Json = {
    "offgrid.v1.JobService/CreateMission": {"title": "Count the words of our letters"},
    "offgrid.v1.JobService/CreateTask": {"mission_id": "m-…", "name": "count", "kind": "compute"},
    "offgrid.v1.JobService/CreateJob": {
        "task_id": "t-…",
        "job": {"payload": {"process": {"command": "wc", "args": ["-w"]}, "input": "b25lIHR3byB0aHJlZQ=="}},
    },
    "offgrid.v1.JobService/DispatchJob": {"mode": "DISPATCH_MODE_AUTO"},
    "offgrid.v1.QuorumService/CreateQuorum": {"quorum_id": "mission:abc123", "required_milli": 2000},
    "offgrid.v1.LedgerService/CreateTransfer": {"dst": "barn", "amount_micro": 1500000, "request_id": "rent-11"},
    "offgrid.v1.MeshService/CreateInvite": {"roles": ["ROLE_HOST"]},
    "offgrid.v1.SessionService/StartSession": {"name": "evening"},
}
