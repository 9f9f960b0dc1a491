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
