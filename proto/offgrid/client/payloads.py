"""What a job consists of: built here, so that applications need not know the wire."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import jobs_pb2


def wasm(module: bytes, args: Sequence[str] = (), *, input: bytes = b"", input_name: str = "") -> jobs_pb2.JobPayload:  # noqa: A002 - the wire's own word
    """A WebAssembly module, binary or text (WAT), that reads `input` on standard input."""
    task = jobs_pb2.WasmTask(module=module, args=args)
    return jobs_pb2.JobPayload(wasm=task, input=input, input_name=input_name)


def builtin(name: str = "echo", *, input: bytes = b"", input_name: str = "") -> jobs_pb2.JobPayload:  # noqa: A002 - the wire's own word
    """What every host can do by itself: "echo" gives back its input. To try a mesh out, and to measure it."""
    return jobs_pb2.JobPayload(builtin=jobs_pb2.BuiltinTask(name=name), input=input, input_name=input_name)


def command(name: str, args: Sequence[str] = (), *, input: bytes = b"", input_name: str = "") -> jobs_pb2.JobPayload:  # noqa: A002 - the wire's own word
    """A command of the host's allow-list (a name, never a path) that reads `input` on standard input."""
    task = jobs_pb2.ProcessTask(command=name, args=args)
    return jobs_pb2.JobPayload(process=task, input=input, input_name=input_name)


def llm(
    model: str,
    messages: Sequence[tuple[str, str]] = (),
    *,
    system: str = "",
    input: bytes = b"",  # noqa: A002 - the wire's own word
    input_name: str = "",
    max_tokens: int = 0,
    temperature: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
) -> jobs_pb2.JobPayload:
    """A question to a language model of the host's: `messages` of roles ("user", "assistant") and texts, and `input` as
    the user's last one. `system` goes before them all."""
    if isinstance(messages, str | bytes):
        raise TypeError('messages are roles and texts, such as [("user", "hello")]; a question alone is input=b"hello"')
    said = [("system", system), *messages] if system else messages
    task = jobs_pb2.LlmTask(
        model=model,
        messages=[jobs_pb2.ChatMessage(role=role, content=content) for role, content in said],
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        stop=stop,
    )
    return jobs_pb2.JobPayload(llm=task, input=input, input_name=input_name)
