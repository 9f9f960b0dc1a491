"""What a function or a conversation must look like to be a job's payload: `python`, `dask` and `llm`.

They run on what a host's owner has set up: an interpreter, a cluster, an endpoint. So what they need of a host has a
value in it, the interpreter's version or the model's name.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from offgrid_node.protocol.errors import FieldViolation

if TYPE_CHECKING:  # who reads a config needs the rules alone, and not protobuf
    from offgrid.v1 import jobs_pb2

FUNCTION_BYTES_MAX = 1024 * 1024  # a function is code; what it works on is the job's input
FUNCTION_NAME_CHARS_MAX = 200
PYTHON_VERSION = re.compile(r"3\.[0-9]{1,2}")
MODEL_CHARS_MAX = 100  # with "llm:" before it, it is a label
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")
MESSAGES_MAX = 256
MESSAGES_BYTES_MAX = 1024 * 1024  # together; beyond any model's context, and what one call carries
ROLES = ("system", "user", "assistant")
TEMPERATURE_MAX = 2.0  # the endpoints' own bound
ANSWER_TOKENS_MAX = 1_000_000
SEED_MAX = 2**63 - 1  # endpoints read it as a signed number
STOPS_MAX, STOP_BYTES_MAX = 4, 256


def check_function(field: str, task: jobs_pb2.PythonTask | jobs_pb2.DaskTask) -> list[FieldViolation]:
    wrong = []
    if not task.function:
        wrong.append(FieldViolation(f"{field}.function", "is empty; give a function, see offgrid.by_value"))
    elif len(task.function) > FUNCTION_BYTES_MAX:
        text = f"{len(task.function)} bytes; at most {FUNCTION_BYTES_MAX} allowed, give data as the job's input"
        wrong.append(FieldViolation(f"{field}.function", text))
    if not PYTHON_VERSION.fullmatch(task.python):
        text = f'{task.python[:80]!r} is no version of Python; allowed: "3." and a number, such as "3.11"'
        wrong.append(FieldViolation(f"{field}.python", text))
    if len(task.name) > FUNCTION_NAME_CHARS_MAX or not (task.name.isprintable()):
        text = f"at most {FUNCTION_NAME_CHARS_MAX} printable characters are allowed"
        wrong.append(FieldViolation(f"{field}.name", text))
    return wrong


def check_conversation(field: str, task: jobs_pb2.LlmTask, *, with_input: bool) -> list[FieldViolation]:
    """`with_input`: the job has an input, which is the last message."""
    wrong = []
    if not MODEL_NAME.fullmatch(task.model):
        rule = f"is no model's name: 1 to {MODEL_CHARS_MAX} of A-Z a-z 0-9 . _ : / @ + -, a letter or digit first"
        wrong.append(FieldViolation(f"{field}.model", f"{task.model[:80]!r} {rule}"))
    wrong += _check_messages(f"{field}.messages", task, with_input=with_input)
    if task.HasField("temperature") and not (
        math.isfinite(task.temperature) and 0 <= task.temperature <= TEMPERATURE_MAX
    ):
        wrong.append(FieldViolation(f"{field}.temperature", f"{task.temperature:g}; 0 to {TEMPERATURE_MAX:g} allowed"))
    if task.max_tokens > ANSWER_TOKENS_MAX:
        wrong.append(FieldViolation(f"{field}.max_tokens", f"{task.max_tokens}; at most {ANSWER_TOKENS_MAX} allowed"))
    if task.seed > SEED_MAX:
        wrong.append(FieldViolation(f"{field}.seed", f"{task.seed}; at most {SEED_MAX} allowed"))
    if len(task.stop) > STOPS_MAX:
        wrong.append(FieldViolation(f"{field}.stop", f"{len(task.stop)} texts; at most {STOPS_MAX} allowed"))
    for index, text in enumerate(task.stop[:STOPS_MAX]):
        if not 0 < len(text.encode()) <= STOP_BYTES_MAX:
            said = f"{len(text.encode())} bytes; 1 to {STOP_BYTES_MAX} allowed"
            wrong.append(FieldViolation(f"{field}.stop[{index}]", said))
    return wrong


def _check_messages(field: str, task: jobs_pb2.LlmTask, *, with_input: bool) -> list[FieldViolation]:
    if not task.messages and not with_input:
        return [FieldViolation(field, "none, and the job has no input; say something to the model")]
    if len(task.messages) > MESSAGES_MAX:
        return [FieldViolation(field, f"{len(task.messages)} messages; at most {MESSAGES_MAX} allowed")]
    size = sum(len(message.content.encode()) for message in task.messages)
    if size > MESSAGES_BYTES_MAX:
        return [FieldViolation(field, f"{size} bytes in all; at most {MESSAGES_BYTES_MAX} allowed")]
    return [
        FieldViolation(f"{field}[{index}].role", f"{message.role[:80]!r}; allowed: {', '.join(ROLES)}")
        for index, message in enumerate(task.messages)
        if message.role not in ROLES
    ]
