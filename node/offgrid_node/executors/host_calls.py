"""How modules call functions of ours: bound to wasmtime's C API, without the objects that wasmtime-py makes of values.

Those cost a call 28 µs, where this takes 5, and most modules make three. Nothing here gives up the interpreter lock:
what is asked of wasmtime takes less time than getting the lock back.

API: https://docs.wasmtime.dev/c-api/ (func.h, linker.h, memory.h)
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import msgspec
from wasmtime import Func, FuncType, Instance, Linker, Store, ValType, _ffi

# Of one value, in memory: 16 bytes, of which the first ones count.
LAYOUTS = {"i": "I12x", "q": "Q8x"}
KINDS = {"i": ValType.i32, "q": ValType.i64}
MEMORY_NAME = b"memory"

# (environment, caller, values, how many) → a trap, which is never ours to raise
_Callback = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_held = ctypes.PyDLL(_ffi.dll._name)  # the same library, called with the interpreter lock held


def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(_held, name)
    function.restype, function.argtypes = result, arguments
    found: Callable[..., Any] = function
    return found


_pointer, _size = ctypes.c_void_p, ctypes.c_size_t
_caller_context = _function("wasmtime_caller_context", _pointer, _pointer)
_export_get = _function("wasmtime_caller_export_get", ctypes.c_bool, _pointer, ctypes.c_char_p, _size, _pointer)
_instance_get = _function(
    "wasmtime_instance_export_get", ctypes.c_bool, *[_pointer] * 2, ctypes.c_char_p, _size, _pointer
)
_memory_data = _function("wasmtime_memory_data", _pointer, _pointer, _pointer)
_memory_size = _function("wasmtime_memory_data_size", _size, _pointer, _pointer)
_define = _function(
    "wasmtime_linker_define_func_unchecked",
    _pointer,
    _pointer,
    ctypes.c_char_p,
    _size,
    ctypes.c_char_p,
    _size,
    _pointer,
    _Callback,
    _pointer,
    _Finalizer,
)
_NO_FINALIZER = _Finalizer()


class Exported(msgspec.Struct, frozen=True):
    """The memory of one store that its module exports: `address` is that of its handle, which `item` holds."""

    address: int
    item: Any

    @classmethod
    def of(cls, caller: int) -> Exported | None:
        """That of the module that calls; None when it exports none."""
        item = _ffi.wasmtime_extern_t()
        found = _export_get(caller, MEMORY_NAME, len(MEMORY_NAME), ctypes.addressof(item))
        return cls._of_item(item) if found else None

    @classmethod
    def of_instance(cls, store: Store, instance: Instance) -> Exported | None:
        """That of a module that does not run."""
        item = _export_of(store, instance, MEMORY_NAME)
        return cls._of_item(item) if item is not None else None

    @classmethod
    def _of_item(cls, item: Any) -> Exported | None:
        if item.kind != _ffi.WASMTIME_EXTERN_MEMORY.value:
            return None
        return cls(ctypes.addressof(item.of.memory), item)

    def size_bytes(self, store: Store) -> int:
        size: int = _memory_size(_address_of(store._context()), self.address)
        return size

    def bounds(self, caller: int) -> tuple[int, int]:
        """Where it begins, and how many bytes it has, until the module goes on: it may grow, and move."""
        context = _caller_context(caller)
        return _memory_data(context, self.address) or 0, _memory_size(context, self.address)


def function_of(store: Store, instance: Instance, name: bytes) -> Func:
    """What the instance exports under the name, which is a function: without looking at all else that it exports."""
    return Func._from_raw(_export_of(store, instance, name).of.func)


def define(linker: Linker, module: str, name: str, kinds: str, function: Callable[..., int]) -> object:
    """Offers `function` to modules; `kinds` has an "i" for each argument of 32 bits and a "q" for each of 64.

    It is called with the caller's address and its arguments, unsigned, returns one i32 and must not raise. What is
    returned is to be held for as long as the linker and what was linked by it.
    """
    values = struct.Struct("<" + "".join(LAYOUTS[kind] for kind in kinds))

    def call(environment: int | None, caller: int, raw: int, count: int) -> int:
        arguments = values.unpack(ctypes.string_at(raw, values.size))
        ctypes.c_int32.from_address(raw).value = function(caller, *arguments)
        return 0

    callback = _Callback(call)
    kind = FuncType([KINDS[kind]() for kind in kinds], [ValType.i32()])
    error = _define(
        _address_of(linker.ptr()),
        module.encode(),
        len(module.encode()),
        name.encode(),
        len(name.encode()),
        _address_of(kind.ptr()),
        callback,
        None,
        _NO_FINALIZER,
    )
    if error:
        raise ValueError(f"wasmtime defines no function {module}::{name}")
    return callback


def _export_of(store: Store, instance: Instance, name: bytes) -> Any:
    """None when there is no such one."""
    item, handle = _ffi.wasmtime_extern_t(), ctypes.addressof(instance._instance)
    found = _instance_get(_address_of(store._context()), handle, name, len(name), ctypes.addressof(item))
    return item if found else None


def _address_of(pointer: Any) -> int:
    """Of what a pointer of wasmtime-py points to, whose type nobody knows."""
    return ctypes.addressof(pointer.contents)
