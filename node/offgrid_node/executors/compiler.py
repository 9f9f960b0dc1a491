"""Compiles modules that could hurt: in a process of its own, with limits, where it can be killed.

Compiling cannot be interrupted, and its cost is far from linear: 350 kB of contrived code took 29 s and 1.8 GB
(measured, wasmtime 50), 8 KiB at worst 1.4 s and 100 MB. So small modules are compiled where they run, others here:
`python -P -m offgrid_node.executors.compiler` reads a module from standard input and writes its machine code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from wasmtime import Module, WasmtimeError

from offgrid_node.executors import confine
from offgrid_node.executors.modules import NotRunnable, new_engine, no_module

if TYPE_CHECKING:  # the compiler's process needs none of what it imports
    from offgrid_node.executors.wasi import Run

CPU_S = 60
MEMORY_BYTES = 1024 * 1024 * 1024
CODE_BYTES_MAX = 32 * 1024 * 1024
OPEN_FILES_MAX = 64
REFUSED, TOO_LARGE = 1, 2
METERED = "--metered"


def compile_apart(binary: bytes, run: Run, *, metered: bool = False) -> bytes:
    """The module's machine code. Stopping `run` kills the compiler. Raises NotRunnable."""
    limits = confine.Limits(CPU_S, MEMORY_BYTES, file_bytes=0, open_files=OPEN_FILES_MAX)
    argv = [sys.executable, "-P", "-m", __spec__.name, *([METERED] if metered else [])]
    # Our own import path, since we may not be installed; one heap per thread would count against the limit.
    environment = {**confine.environment(os.sep), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": "2"}
    try:
        process = subprocess.Popen(
            confine.wrapped(argv, limits, confine.find_prlimit()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise NotRunnable(f"this host could not start a compiler: {error.strerror}") from error
    with process:
        run.begin(process.kill)
        if run.stopped.is_set():
            process.kill()
        try:
            code, message = process.communicate(binary)
        finally:
            run.end()
    if process.returncode == REFUSED:
        raise NotRunnable(no_module(message.decode(errors="replace")))
    if process.returncode == TOO_LARGE:
        raise NotRunnable(f"its machine code has more than {CODE_BYTES_MAX} bytes")
    if process.returncode != 0:
        raise NotRunnable(f"compiling it takes more than {CPU_S} s or {MEMORY_BYTES} bytes of memory")
    return code


def main() -> int:
    """The other side of `compile_apart`."""
    try:
        code = Module(new_engine(metered=METERED in sys.argv), sys.stdin.buffer.read()).serialize()
    except WasmtimeError as error:
        sys.stderr.write(str(error))
        return REFUSED
    if len(code) > CODE_BYTES_MAX:  # nor is it to be read by whoever waits
        return TOO_LARGE
    sys.stdout.buffer.write(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
