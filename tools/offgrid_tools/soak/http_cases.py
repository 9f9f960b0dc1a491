"""A real node, asked over HTTP what its own OpenAPI document allows and what it does not, by schemathesis.

No request may come to a defect (5xx, but for faults that say to come back), and every answer has the form that the
document promises. Streams are looked at for a moment and left.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.soak.toll import Say, Toll, at_home

NODES = {"only": ["core", "broker", "host"]}
AWAY = re.compile(r"/v1/backups$|/v1/node:stop$|/offgrid\.v1\.")
"""It writes to where it is told; it ends what is asked; schemathesis knows no gRPC-Web."""
TIMEOUT_MS = 2_000  # for the node to answer; it may be working on what was asked before
GIVE_UP_S = 30.0
ROUND = 100  # how many rounds are told of at once
WAIT_S = 0.2  # for a job's end, of the prototype's paths
SHOWN_CHARS_MAX = 400
STREAMS = ("application/x-ndjson", "text/event-stream")
TELLING = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


def soak_http(seed: int, rounds: int, folder: Path | None, say: Say) -> list[str]:
    """So many requests of each operation; returns what was violated."""
    return at_home("http", folder, lambda home: Toll(violations=_soak(seed, rounds, home, say)), say).violations


def _soak(seed: int, rounds: int, home: Path, say: Say) -> list[str]:
    with LocalMesh(home, "http", NODES, gateway__listen="127.0.0.1:0", node__log_level="warning") as mesh:
        mesh.start()
        with mesh["only"].client() as client:
            url = client.mesh.status().gateway
        broken: list[str] = []
        for first in range(0, rounds, ROUND):
            broken += wrong_answers(url, seed + first, min(ROUND, rounds - first))
            say(f"   {min(first + ROUND, rounds)} of {rounds} rounds")
        if "Traceback" in mesh["only"].log_path.read_text(errors="replace"):
            broken.append("the node's log has a traceback")
    return broken


def wrong_answers(url: str, seed: int, rounds: int, every: int = 1) -> list[str]:
    """What a gateway answered to so many requests of each operation (of RPCs, of one in `every`) that it should not
    have, one sentence for each kind; in turn what the document allows, and what it does not."""
    import requests
    import schemathesis

    session = requests.Session()
    schema = schemathesis.openapi.from_dict(session.get(f"{url}/openapi.json", timeout=GIVE_UP_S).json())
    broken, known = dict[str, str](), known_ids(url, session)
    for number, result in enumerate(schema.get_all_operations()):
        operation = cast(Any, result).ok()  # it raises for one that makes no sense
        mine = number % every == seed % every or not operation.path.startswith("/v1/")
        if mine and not AWAY.search(operation.path):
            for case in _cases(operation, seed + number, rounds):
                case.path_parameters = {**(case.path_parameters or {}), **_some(known, case, seed + number)}
                if wrong := _wrong(case, url, session):
                    broken.setdefault(f"{operation.label}: {wrong[:40]}", f"{operation.label}: {wrong}")
    return list(broken.values())


def known_ids(url: str, session: Any) -> dict[str, str]:
    """Ids of what is really there, by the names of path parameters: without them most requests find nothing."""

    def made(path: str, body: dict[str, Any]) -> Any:
        answer = session.post(f"{url}/v1/{path}", json=body, timeout=GIVE_UP_S)
        answer.raise_for_status()
        return next(iter(answer.json().values()))

    mission_id = made("missions", {"title": "asked for"})["mission_id"]
    task_id = made("tasks", {"mission_id": mission_id, "name": "asked", "kind": "compute"})["task_id"]
    job = {"payload": {"builtin": {"name": "echo"}, "input": "aGVsbG8="}}
    job_id = made("jobs", {"task_id": task_id, "job": job})["job_id"]
    return {
        "mission_id": mission_id,
        "task_id": task_id,
        "job_id": job_id,
        "schedule_id": made("schedules", {"schedule": {"task_id": task_id, "cron": "0 3 * * *", "job": job}})[
            "schedule_id"
        ],
        "object": made("objects", {"name": "asked", "data": "aGVsbG8="})["object_id"],
        "quorum_id": made("quorums", {"quorum_id": "asked:for", "required_milli": 1})["quorum_id"],
        "session": made("sessions", {"name": "asked"})["session_id"],
        "kind": "energy.update",
        "node": session.get(f"{url}/v1/status", timeout=GIVE_UP_S).json()["node_id"],
    }


def _old_id(known: dict[str, str], path: str) -> str:
    """What `{id}` is on the prototype's paths."""
    return next((known[f"{what}_id"] for what in ("mission", "task", "job") if f"/{what}s/{{id}}" in path), "")


def _some(known: dict[str, str], case: Any, seed: int) -> dict[str, str]:
    """For every other operation, the ids that its path asks for; a node is not to be told to remove itself."""
    wanted = set(case.path_parameters or {}) - ({"node"} if case.method == "DELETE" else set())
    known = known | {"id": _old_id(known, case.operation.path)}
    return {name: known[name] for name in wanted & known.keys()} if seed % 4 < 2 else {}


def _hurry(case: Any) -> None:
    """What would wait for a job's end waits a moment."""
    if any(parameter.name == "wait" for parameter in case.operation.query):
        case.query = {**(case.query or {}), "wait": str(WAIT_S)}
        if isinstance(case.body, dict):
            case.body.pop("wait", None)


def _cases(operation: Any, seed: int, rounds: int) -> list[Any]:
    """Requests, every other one of which is wrong."""
    from schemathesis import GenerationMode

    valid = (rounds + seed % 2) // 2
    found = _drawn(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), seed, valid)
    return [*found, *_drawn(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), seed, rounds - valid)]


def _drawn(strategy: Any, seed: int, count: int) -> list[Any]:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable

    found: list[Any] = []

    def draw(case: Any) -> None:
        found.append(case)

    bounds = settings(
        max_examples=max(1, count),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    if count:
        with suppress(Unsatisfiable):  # nothing about it can be wrong
            draws = cast(Any, given(strategy))(draw)
            cast(Any, seeded(seed))(bounds(draws))()
    return found


def _wrong(case: Any, url: str, session: Any) -> str:
    """What is wrong with the answer; "": nothing."""
    import requests
    from schemathesis.checks import CHECKS
    from schemathesis.core.failures import FailureGroup

    names = ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    headers = {"X-Offgrid-Timeout-Ms": str(TIMEOUT_MS)}
    _hurry(case)
    asked = case.as_transport_kwargs(base_url=url, headers=headers)
    try:
        with session.request(**asked, timeout=GIVE_UP_S, stream=True, allow_redirects=False) as answer:
            said = f"{asked['method']} {asked['url']} {asked.get('json', asked.get('data', ''))!r}"[:SHOWN_CHARS_MAX]
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status_code not in TELLING:
                return f"{answer.status_code} {answer.text[:SHOWN_CHARS_MAX]} to {said}"
            if not answer.headers.get("content-type", "").startswith(STREAMS):
                case.validate_response(answer, checks=CHECKS.get_by_names(names))
    except requests.RequestException as error:
        return f"no answer: {error!r} to {asked['url']}"[:SHOWN_CHARS_MAX]
    except FailureGroup as failed:
        return f"{answer.status_code} {' '.join(str(failed.exceptions[0]).split())} to {said}"[:SHOWN_CHARS_MAX]
    return ""
