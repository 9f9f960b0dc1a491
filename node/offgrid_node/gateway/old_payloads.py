"""What a client of the prototype says of a job, as the JobSpec that it means. Pure.

Numbers may come as texts. What is not known here is passed over: such clients cannot be told any more.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from offgrid.client import payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.bounds import TOKENS_MAX

COMPUTE, LLM_CALL = "compute", "llm_call"
# Of a body that has no `payload`, what is about the job and not of its work.
ABOUT_THE_JOB = frozenset(
    {
        "id",
        "job_id",
        "task_id",
        "mission_id",
        "type",
        "kind",
        "size",
        "timeout",
        "timeout_ms",
        "requirements",
        "priority",
    }
    | {"request_id", "mode", "wait", "timestamp", "signature", "signed_path", "signed_node"}
)
TIMEOUT_S_MAX, PRIORITY_MAX = 86_400.0, 100.0
LLM_WORDS = frozenset({"prompt", "messages", "model"})

Said = Mapping[str, Any]


def spec_of(kind: str, said: Said, models: Sequence[str] = ()) -> jobs_pb2.JobSpec:
    """Of a job of this kind; `models` are offered by hosts, for one that names none. Raises InvalidRequest."""
    if "payload" in said:
        payload = payload_of(kind, said["payload"], models)
    else:
        payload = payload_of(kind, {key: value for key, value in said.items() if key not in ABOUT_THE_JOB}, models)
    return jobs_pb2.JobSpec(
        payload=payload,
        size_tokens=tokens_of(said),
        timeout_ms=timeout_ms_of(said),
        requirements=text_in(said, "requirements"),
        priority=round(number_in(said, "priority", low=-PRIORITY_MAX, high=PRIORITY_MAX)),
    )


def payload_of(kind: str, said: object, models: Sequence[str] = ()) -> jobs_pb2.JobPayload:
    """What is to be run: `command`, `wasm`, or a question to a model (all of kind llm_call are one). What names nothing
    to run is given back as the job's output, as the builtin "echo" does it."""
    if isinstance(said, str) and kind == LLM_CALL:
        said = {"prompt": said}
    if not isinstance(said, Mapping):
        return payloads.builtin("echo", input=_bytes_of(said))
    if kind == LLM_CALL or LLM_WORDS & said.keys():
        return _question(said, models)
    given = _input(said)
    if command := text_in(said, "command"):
        return payloads.command(command, _texts(said, "args"), input=given)
    if module := said.get("wasm"):
        return payloads.wasm(_module(module), _texts(said, "args"), input=given)
    if name := text_in(said, "builtin"):
        return payloads.builtin(name, input=given)
    return payloads.builtin("echo", input=_bytes_of(said))


def tokens_of(said: Said) -> int:
    """`size` is in millions of tokens; 0: it is to be estimated."""
    size = number_in(said, "size", high=TOKENS_MAX / 1e6)
    return max(1, math.ceil(size * 1_000_000)) if size else 0


def timeout_ms_of(said: Said) -> int:
    """`timeout` is in seconds; 0: as the node's config says."""
    seconds = number_in(said, "timeout", high=TIMEOUT_S_MAX)
    return round(number_in(said, "timeout_ms", high=TIMEOUT_S_MAX * 1_000) or seconds * 1_000)


def text_in(said: Said, *names: str) -> str:
    """The first of these that is there, as a text; "" when none is."""
    name = next((name for name in names if said.get(name) is not None), None)
    value = "" if name is None else said[name]
    if isinstance(value, bool | list | dict):
        raise InvalidRequest.field(str(name), "is no text")
    return str(value)


def number_in(said: Said, name: str, *, low: float = 0.0, high: float) -> float:
    """A number, or a text that is one; 0 when it is not there."""
    value = said.get(name)
    if value is None or value == "":
        return 0.0
    try:
        number = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        raise InvalidRequest.field(name, f"{str(value)[:64]!r}; a number from {low:g} to {high:g} is allowed")
    return number


def flag_in(said: Said, name: str) -> bool | None:
    """true or false, also 1, "on", "yes", …; None when it is not there."""
    value = said.get(name)
    if value is None:
        return None
    word = str(value).lower()
    if word in ("true", "1", "on", "yes", "enabled"):
        return True
    if word in ("false", "0", "off", "no", "disabled"):
        return False
    raise InvalidRequest.field(name, f"{word[:64]!r}; true or false is allowed")


def _question(said: Said, models: Sequence[str]) -> jobs_pb2.JobPayload:
    model = text_in(said, "model") or next(iter(models), "")
    if not model:
        raise InvalidRequest.field("payload.model", "is missing, and this node knows of no host that offers one")
    stop = said.get("stop", [])
    return payloads.llm(
        model,
        _messages(said),
        system=text_in(said, "system"),
        input=text_in(said, "prompt").encode() or _input(said),
        max_tokens=round(number_in(said, "max_tokens", high=2**31)),
        temperature=number_in(said, "temperature", high=10.0) if said.get("temperature") is not None else None,
        seed=round(number_in(said, "seed", high=2.0**63)) if said.get("seed") is not None else None,
        stop=[stop] if isinstance(stop, str) else _texts(said, "stop"),
    )


def _messages(said: Said) -> list[tuple[str, str]]:
    """As OpenAI's API has them."""
    found = said.get("messages") or []
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise InvalidRequest.field("payload.messages", 'is no list of {"role": "user", "content": "…"}')
    return [(text_in(each, "role"), text_in(each, "content")) for each in found]


def _texts(said: Said, name: str) -> list[str]:
    found = said.get(name) or []
    if not isinstance(found, list) or any(isinstance(each, bool | list | dict) for each in found):
        raise InvalidRequest.field(f"payload.{name}", "is no list of texts")
    return [str(each) for each in found]


def _input(said: Said) -> bytes:
    if text := text_in(said, "input_base64"):
        return _decoded("payload.input_base64", text)
    return _bytes_of(said.get("input"))


def _bytes_of(value: object) -> bytes:
    """A text as it is, anything else as JSON, nothing as nothing."""
    if value is None:
        return b""
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


def _module(said: object) -> bytes:
    """Binary, in base64, or the text form."""
    text = said if isinstance(said, str) else ""
    if text.lstrip().startswith("("):
        return text.encode()
    return _decoded("payload.wasm", text)


def _decoded(field: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest.field(field, "is no base64") from None
