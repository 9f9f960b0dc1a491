"""The prototype's paths in the OpenAPI document: `old_paths.py` serves them, `old_shapes.py` has their answers."""

from __future__ import annotations

from offgrid_node.gateway.openapi_forms import (
    ANY,
    EDGE,
    FLAG,
    TEXT,
    WRITING,
    Json,
    answers,
    content,
    in_path,
    listed,
    maybe,
    query,
    ref,
    shape,
    told,
)

TAG = "Prototype"
TAG_TEXT = (
    "The paths of the prototype, bound to the same handlers. Bodies are JSON whatever the Content-Type says, numbers "
    "may be texts, fields that a path does not know are passed over. With `gateway.auth_key` set, `/auction` and "
    "`/run` ask for a signature (HMAC-SHA256, see `/docs/http.html`) or the token, and on the others that change "
    "something a signature does in the token's place."
)

_ID = in_path("id")
_SIGNED: Json = {
    "timestamp": told(ANY, "Of a signed request: seconds or milliseconds since 1970, or ISO 8601; five minutes count."),
    "signature": told(TEXT, "HMAC-SHA256 over the rest as canonical JSON, in hexadecimal or base64."),
    "signed_path": told(TEXT, "The only path that the signature is good for."),
    "signed_node": told(TEXT, "The only node that it is good for, by its id: GET /announce."),
}
_WORK: Json = {
    "payload": told(ANY, "What is to be run; a body without it is the payload itself."),
    "size": told({"type": "number", "minimum": 0}, "In millions of tokens; estimated if it is not there."),
    "timeout": told({"type": "number", "minimum": 0, "maximum": 86_400}, "In seconds."),
    "timeout_ms": {"type": "number", "minimum": 0, "maximum": 86_400_000},
    "priority": {"type": "number", "minimum": -100, "maximum": 100},
    "requirements": told(TEXT, "See /docs/requirements.html."),
}
_KIND: Json = {"type": told(TEXT, "compute, llm_call, …; of a task `kind` does as well.")}
_REPEATED: Json = {"request_id": told(TEXT, "Sent twice, it is done once.")}
_LIMIT = query("limit", {"type": "integer", "minimum": 1, "maximum": 1_000}, "100 unless it says otherwise.")
_TOKEN = query("page_token", TEXT, "`next_page_token` of the answer before.")
_WAIT = {"type": "number", "minimum": 0, "maximum": 300}


def _body(properties: Json, example: Json) -> Json:
    schema = {"type": "object", "properties": properties | _SIGNED}
    return {"content": {"application/json": {"schema": schema, "example": example}}}


def _page(name: str, kind: str) -> Json:
    return shape({name: listed(ref(kind)), "next_page_token": maybe(TEXT)})


def _operation(
    name: str,
    summary: str,
    answer: Json,
    *parameters: Json,
    takes: Json | None = None,
    errors: tuple[int, ...] = (),
    text: str = "",
) -> Json:
    """`errors`: besides those of every path."""
    found: Json = {"operationId": f"{TAG}_{name}", "tags": [TAG], "summary": summary}
    if text:
        found["description"] = text
    if parameters:
        found["parameters"] = list(parameters)
    if takes is not None:
        found["requestBody"] = takes
    codes = (*(EDGE if takes is None else WRITING), *errors)
    return found | {"responses": answers(codes, s200={"description": "As it is now", **content(answer)})}


_MISSION: Json = {"title": TEXT, "description": TEXT}
_FOUND, _ROLE, _MADE = (404,), (409,), (404, 409)

PATHS: dict[str, Json] = {
    "/api/missions": {
        "post": _operation(
            "CreateMission",
            "Creates a mission",
            ref("OldMission"),
            takes=_body(_MISSION | _REPEATED, {"title": "Count words"}),
            errors=_ROLE,
        ),
        "get": _operation(
            "ListMissions", "Missions, the newest first", _page("missions", "OldMission"), _LIMIT, _TOKEN, errors=_ROLE
        ),
    },
    "/api/missions/{id}": {
        "get": _operation("GetMission", "A mission", ref("OldMission"), _ID, errors=_MADE),
        "patch": _operation(
            "UpdateMission",
            "Changes what is named",
            ref("OldMission"),
            _ID,
            takes=_body(_MISSION | {"status": TEXT}, {"status": "completed"}),
            errors=_MADE,
        ),
    },
    "/api/missions/{id}/tasks": {
        "post": _operation(
            "CreateTask",
            "Creates a task of a mission",
            ref("OldTask"),
            _ID,
            takes=_body({"name": TEXT, "kind": TEXT} | _REPEATED, {"name": "count", "kind": "compute"}),
            errors=_MADE,
        ),
        "get": _operation(
            "ListTasks", "Tasks of a mission", _page("tasks", "OldTask"), _ID, _LIMIT, _TOKEN, errors=_MADE
        ),
    },
    "/api/tasks/{id}": {"get": _operation("GetTask", "A task", ref("OldTask"), _ID, errors=_MADE)},
    "/api/tasks/{id}/jobs": {
        "post": _operation(
            "CreateJob",
            "Creates a job of a task",
            ref("OldJob"),
            _ID,
            takes=_body(_WORK | _REPEATED, {"payload": {"command": "wc", "args": ["-w"], "input": "to be or not"}}),
            errors=_MADE,
        ),
        "get": _operation(
            "ListJobsOfTask",
            "Jobs of a task, the newest first",
            _page("jobs", "OldJob"),
            _ID,
            query("status", TEXT, "completed, running, …; several with commas."),
            _LIMIT,
            _TOKEN,
            errors=_MADE,
        ),
    },
    "/api/jobs": {
        "get": _operation(
            "ListJobs",
            "Jobs, the newest first",
            _page("jobs", "OldJob"),
            query("status", TEXT, "completed, running, …; several with commas."),
            _LIMIT,
            _TOKEN,
            errors=_ROLE,
        ),
    },
    "/api/jobs/{id}": {"get": _operation("GetJob", "A job, its result and quote", ref("OldJob"), _ID, errors=_MADE)},
    "/api/jobs/{id}/dispatch": {
        "post": _operation(
            "DispatchJob",
            "Sends a job to the mesh or to the local queue",
            ref("OldJob"),
            _ID,
            query("wait", _WAIT, "Seconds for its end; one unless it says otherwise."),
            takes=_body(
                {"mode": {"enum": ["", "auto", "offgrid", "disabled"]}, "wait": _WAIT}, {"mode": "auto", "wait": 5}
            ),
            errors=(*_MADE, 504),
        ),
    },
    "/auction": {
        "post": _operation(
            "Auction",
            "Who would get a job now, and for how much",
            ref("OldAuction"),
            takes=_body(
                {"job_id": TEXT, "needs": TEXT, "model": TEXT} | _KIND | _WORK,
                {"job_id": "j-1", "type": "compute", "size": 0.25},
            ),
            errors=_ROLE,
            text="It awards nothing. Where `gateway.auth_key` is set, only for who signs or shows the token.",
        ),
    },
    "/run": {
        "post": _operation(
            "Run",
            "Runs work here, and answers with the signed receipt",
            ref("OldRun"),
            query("wait", _WAIT, "Seconds for its end."),
            takes=_body(
                {"job_id": TEXT} | _KIND | _WORK,
                {"job_id": "j-1", "payload": {"command": "wc", "args": ["-c"], "input": "four"}},
            ),
            errors=(409, 504),
            text="The same `job_id` with the same work runs once. Where `gateway.auth_key` is set, only for who signs "
            "or shows the token.",
        ),
    },
    "/toggle": {
        "post": _operation(
            "Toggle",
            "Switches a host on or off for new work",
            ref("OldHostSwitch"),
            takes=_body({"enabled": FLAG, "state": {"enum": ["", "on", "off", "drain"]}}, {"enabled": True}),
            errors=_ROLE,
            text="Without a body: to the other of on and off.",
        ),
    },
    "/status": {"get": _operation("Status", "How this node is", ref("OldStatus"))},
    "/announce": {"get": _operation("Announce", "Who this node is, and what it offers", ref("OldAnnounce"))},
    "/memory/query": {
        "get": _operation(
            "QueryMemory",
            "Events of the journal, or of an application's session",
            _page("events", "OldEvent"),
            query("since_ts", TEXT, "Seconds, milliseconds, or ISO 8601."),
            query("until_ts", TEXT, "Likewise."),
            query("etype", TEXT, "Numbers and names, with commas; 10 to 30 unless it says otherwise."),
            query("type", TEXT, "As etype."),
            query("subject", TEXT, "Of whom or what."),
            query("session", TEXT, "Of this session alone."),
            query("order", {"enum": ["oldest", "newest", "asc", "desc"]}, "The oldest first unless it says otherwise."),
            _LIMIT,
            _TOKEN,
            errors=_FOUND,
        ),
    },
}
