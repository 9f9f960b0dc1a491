"""What a job's payload must look like, what it needs of a host, and how large it is taken to be."""

from __future__ import annotations

import re

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import FieldViolation, InvalidRequest
from offgrid_node.protocol.jobs.artifacts import check_files
from offgrid_node.protocol.jobs.hosted import check_conversation, check_function

MODULE_BYTES_MAX = 1024 * 1024
INPUT_BYTES_MAX = 2 * 1024 * 1024  # in a payload that comes in a call; what is larger is put as an object first
INPUT_NAME_BYTES_MAX = 1024
FUEL_MAX = 2**62
ARGS_MAX = 64
ARG_BYTES_MAX = 4096
# The usual rule of thumb for English text; a byte of anything else is counted alike.
INPUT_BYTES_PER_TOKEN = 4

WITH_FOLDER = ("wasm", "process", "python", "dask")
BUILTINS = ("echo",)  # what every host has: the output is the input
NONE_SET = "none is set; set one of wasm, process, python, llm, dask and builtin"
COMMAND_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_payload(payload: jobs_pb2.JobPayload, field: str = "", *, input_bytes_max: int = INPUT_BYTES_MAX) -> None:
    """Raises InvalidRequest that names every field which is wrong, below `field` and `payload.`; returns when all are
    right. What a reference to an input says is not looked at."""
    wrong: list[FieldViolation] = []
    kind = payload.WhichOneof("executor")
    if kind is None:
        wrong.append(FieldViolation("payload.executor", NONE_SET))
    elif kind == "builtin":
        if payload.builtin.name not in BUILTINS:
            text = f"{payload.builtin.name[:80]!r} is not known; allowed: {', '.join(BUILTINS)}"
            wrong.append(FieldViolation("payload.builtin.name", text))
    elif kind == "wasm":
        wrong += _check_module(payload.wasm.module)
        wrong += _check_args("payload.wasm.args", list(payload.wasm.args))
        if payload.wasm.fuel > FUEL_MAX:
            wrong.append(FieldViolation("payload.wasm.fuel", f"{payload.wasm.fuel}; at most {FUEL_MAX} allowed"))
    elif kind == "python":
        wrong += check_function("payload.python", payload.python)
    elif kind == "dask":
        wrong += check_function("payload.dask", payload.dask)
    elif kind == "llm":
        wrong += check_conversation("payload.llm", payload.llm, with_input=_has_input(payload))
    else:
        if not COMMAND_NAME.fullmatch(payload.process.command):
            rule = "is not a command name: 1 to 63 of a-z 0-9 . _ -, a letter or digit first; it is never a path"
            wrong.append(FieldViolation("payload.process.command", f"{payload.process.command[:80]!r} {rule}"))
        wrong += _check_args("payload.process.args", list(payload.process.args))
    input_bytes, name = len(payload.input), payload.input_name
    if input_bytes > input_bytes_max:
        text = f"{input_bytes} bytes; at most {input_bytes_max} allowed here, name an object that holds more"
        wrong.append(FieldViolation("payload.input", text))
    others = payload.HasField("input_object"), bool(payload.input_object_id), bool(payload.input_job)
    if sum(others) + bool(input_bytes) > 1:
        text = "is set beside another input; a job has one of input, input_object_id, input_job and input_object"
        wrong.append(FieldViolation("payload.input", text))
    if name and (name_bytes := len(name.encode())) > INPUT_NAME_BYTES_MAX:
        text = f"{name_bytes} bytes; at most {INPUT_NAME_BYTES_MAX} allowed"
        wrong.append(FieldViolation("payload.input_name", text))
    if payload.files or payload.outputs:
        wrong += check_files(payload)
        if kind not in WITH_FOLDER:
            where = "payload.files" if payload.files else "payload.outputs"
            wrong.append(FieldViolation(where, f"only jobs of {', '.join(WITH_FOLDER)} have a folder for files"))
    if wrong and field:
        wrong = [FieldViolation(f"{field}{each.field}", each.description) for each in wrong]
    if wrong:
        raise InvalidRequest("; ".join(f"{v.field}: {v.description}" for v in wrong), violations=wrong)


def needs_of(payload: jobs_pb2.JobPayload) -> str:
    """The label that a host must offer: "wasm", or the kind and, after a colon, the command, the model, the builtin's
    name or the version of Python that reads the function. Raises InvalidRequest if none is set."""
    match payload.WhichOneof("executor"):
        case "wasm":
            return "wasm"
        case "process":
            return f"process:{payload.process.command}"
        case "python":
            return f"python:{payload.python.python}"
        case "dask":
            return f"dask:{payload.dask.python}"
        case "llm":
            return f"llm:{payload.llm.model}"
        case "builtin":
            return f"builtin:{payload.builtin.name}"
    raise InvalidRequest.field("payload.executor", NONE_SET)


def how_offered(needs: str) -> str:
    """The end of a sentence: what a host's owner writes to have it offer this; "" where there is nothing to write."""
    kind, _, what = needs.partition(":")
    line = {
        "wasm": "enabled = true",
        "process": f'commands = {{ {what} = "/usr/bin/{what}" }}' if "." not in what else "",
        "python": "enabled = true",
        "llm": 'endpoint = "http://127.0.0.1:11434/v1"',
        "dask": 'scheduler = "tcp://127.0.0.1:8786"',
    }.get(kind, "")
    return f"; a host, started anew, offers it with [host.{kind}] {line} in its offgrid.toml" if line else ""


def has_references(payload: jobs_pb2.JobPayload) -> bool:
    """Whether the host that won has something to fetch first."""
    return payload.HasField("input_object") or bool(payload.files)


def leaves_traces(payload: jobs_pb2.JobPayload) -> bool:
    """Whether anybody could tell that the work was done twice: a program or a function does what it likes and a model's
    tokens may be billed, while a module in its sandbox and a builtin leave nothing behind but their output."""
    return payload.WhichOneof("executor") not in ("wasm", "builtin")


def estimate_tokens(input_bytes: int, payload: jobs_pb2.JobPayload | None = None) -> int:
    """The size of the work in tokens, at least 1, for a job whose owner gives none. Of a conversation it is also what
    was said before, and the longest answer that is wanted."""
    said_bytes = answer_tokens = 0
    if payload is not None and payload.HasField("llm"):
        said_bytes = sum(len(message.content.encode()) for message in payload.llm.messages)
        answer_tokens = payload.llm.max_tokens
    return max(1, (input_bytes + said_bytes) // INPUT_BYTES_PER_TOKEN + answer_tokens)


def _has_input(payload: jobs_pb2.JobPayload) -> bool:
    return bool(payload.input or payload.HasField("input_object") or payload.input_object_id or payload.input_job)


def _check_module(module: bytes) -> list[FieldViolation]:
    if not module:
        return [FieldViolation("payload.wasm.module", "is empty; give a WebAssembly module, binary or text")]
    if len(module) > MODULE_BYTES_MAX:
        text = f"{len(module)} bytes; at most {MODULE_BYTES_MAX} allowed"
        return [FieldViolation("payload.wasm.module", text)]
    return []


def _check_args(field: str, args: list[str]) -> list[FieldViolation]:
    if len(args) > ARGS_MAX:
        return [FieldViolation(field, f"{len(args)} arguments; at most {ARGS_MAX} allowed")]
    wrong = []
    for index, arg in enumerate(args):
        arg_bytes = len(arg.encode())
        if "\0" in arg:
            wrong.append(FieldViolation(f"{field}[{index}]", "holds a NUL character"))
        elif arg_bytes > ARG_BYTES_MAX:
            text = f"{arg_bytes} bytes; at most {ARG_BYTES_MAX} allowed"
            wrong.append(FieldViolation(f"{field}[{index}]", text))
    return wrong
