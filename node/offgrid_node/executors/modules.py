"""Compiled WebAssembly modules: checked, bounded, found again by the digest of their source."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable

from wasmtime import Config, Engine, FuncType, InstancePre, Linker, Module, WasmtimeError, wat2wasm

from offgrid_node.executors.declared import table_elements

BINARY_MAGIC = b"\0asm"
# What may be compiled in this process; see compiler.py for why.
SMALL_BYTES_MAX = 8 * 1024
COMPILED_BYTES_MAX = 64 * 1024 * 1024
STACK_BYTES_MAX = 512 * 1024
TABLE_ELEMENTS_MAX = 100_000  # of each
TABLES_MAX = 8
DETAIL_CHARS_MAX = 500
FEATURES = (
    "threads",
    "multi-memory",
    "multiple memories",
    "memory64",
    "gc",
    "function references",
    "exceptions",
    "stack switching",
)
LINE = re.compile(r"--> <anon>:(\d{1,9}):(\d{1,9})")
QUOTED = re.compile("`[^`]*`")
OFFSET = re.compile(r"at offset (0x[0-9a-f]{1,9}|[1-9]\d{0,9}|0\b)")


CompileApart = Callable[[bytes], bytes]


class NotRunnable(Exception):
    """The bytes are no module, or none that can run here. The message is a sentence for the job's owner."""


def new_engine(*, metered: bool = False) -> Engine:
    """An engine whose code can be interrupted; with `metered` it counts fuel, and code of one kind runs on no other.

    Off: whatever allocates outside the store's limits. On: same answers on every machine (NaN bits, relaxed SIMD), so
    that two hosts' results can be compared."""
    config = Config()
    config.epoch_interruption = True
    config.consume_fuel = metered
    config.max_wasm_stack = STACK_BYTES_MAX
    config.wasm_threads = False
    config.wasm_gc = False
    config.gc_support = False
    config.wasm_function_references = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.cranelift_nan_canonicalization = True
    config.wasm_relaxed_simd_deterministic = True
    return Engine(config)


def digest_of_module(source: bytes, *, metered: bool = False) -> bytes:
    person = b"metered" if metered else b""
    return hashlib.blake2b(source, digest_size=32, person=person).digest()


class CompiledModules:
    """Machine code of the modules used last, least recently used out first; shared by threads and engines."""

    def __init__(self, bytes_max: int = COMPILED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._code: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._code)

    def link(self, engine: Engine, linker: Linker, source: bytes, digest: bytes, apart: CompileApart) -> InstancePre:
        """The module ready to be instantiated on `engine`; compiles it at most the first time. Raises NotRunnable.

        `apart` compiles, elsewhere and under limits, what is not small.
        """
        with self._lock:
            code = self._code.get(digest)
            if code is not None:
                self._code.move_to_end(digest)
        if code is not None:
            return linker.instantiate_pre(Module.deserialize(engine, code))
        try:
            binary = source if source.startswith(BINARY_MAGIC) else bytes(wat2wasm(source))
            _check_tables(binary)
            if len(binary) <= SMALL_BYTES_MAX:
                module = Module(engine, binary)
            else:
                module = Module.deserialize(engine, apart(binary))
        except WasmtimeError as error:
            raise NotRunnable(no_module(str(error))) from error
        _check_start(module)
        try:
            linked = linker.instantiate_pre(module)
        except WasmtimeError as error:
            raise NotRunnable(f"a job has only WASI preview 1 (no files, no network){_which(module, error)}") from error
        self._keep(digest, bytes(module.serialize()))
        return linked

    def _keep(self, digest: bytes, code: bytes) -> None:
        if len(code) > self._bytes_max:
            return
        with self._lock:
            self._bytes += len(code) - len(self._code.pop(digest, b""))
            self._code[digest] = code
            while self._bytes > self._bytes_max:
                self._bytes -= len(self._code.popitem(last=False)[1])


def no_module(text: str) -> str:
    """What is wrong, in words of ours, and where, of wasmtime's message about a module that does not parse.

    That quotes the module: its lines, its names, its bytes. Whoever runs a job writes its error to disk in the clear,
    where nothing that its owner has sealed may be found.
    """
    if line := LINE.search(text):
        return f"it is not a WebAssembly module: line {line[1]}, column {line[2]}"
    own = QUOTED.sub("", text)
    needs = next((feature for feature in FEATURES if feature in own), "")
    reason = f"it needs {needs}, which no job has" if needs else "it does not parse"
    offsets = OFFSET.findall(own)
    where = f", byte {int(offsets[-1], 0)}" if offsets else ""
    return f"it is not a WebAssembly module that runs here: {reason}{where}"


def _which(module: Module, error: WasmtimeError) -> str:
    """The import that cannot be given, by its number: its name is the module's own."""
    text = str(error)
    found = (at for at, wanted in enumerate(module.imports, 1) if f"`{wanted.module}::{wanted.name}`" in text)
    number = next(found, 0)
    return f": its import {number} is another" if number else ""


def short(text: str) -> str:
    """wasmtime's message on one line, its cause first, without the backtrace."""
    cause = text.rpartition("Caused by:")[2]
    return " ".join(cause.split())[:DETAIL_CHARS_MAX]


def _check_tables(binary: bytes) -> None:
    """A store refuses them as well, but only once they are compiled."""
    tables = table_elements(binary)
    if len(tables) > TABLES_MAX or any(elements > TABLE_ELEMENTS_MAX for elements in tables):
        text = f"it declares {len(tables)} tables, the largest of {max(tables)} elements"
        raise NotRunnable(f"{text}; at most {TABLES_MAX} of {TABLE_ELEMENTS_MAX} elements are allowed")


def _check_start(module: Module) -> None:
    start = next((export.type for export in module.exports if export.name == "_start"), None)
    if not isinstance(start, FuncType):
        raise NotRunnable("it exports no function `_start`: build it as a WASI command, not as a library")
    if start.params or start.results:
        raise NotRunnable("its `_start` takes parameters or returns results; a WASI command's has neither")
