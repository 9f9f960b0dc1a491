"""Functions, their calls and their results as bytes: what a `python` or `dask` job carries between owner and host.

    function    cloudpickle of the callable, with whatever of its own project it uses; installed packages go by name
    call        cloudpickle of (args, kwargs), the job's input; empty: called without arguments
    result      the bytes themselves where the function returns bytes, else a pickle, the job's output
    failure     a pickle of plain data, the output of a job whose function raised

Code goes by value, so both ends must run the same minor version of Python. A host may run whatever its jobs bring, but
an owner must not run what a host brings: unpickling can call anything. So results are read by `Reader`, which knows
plain data and refuses the rest, unless their owner trusts the host; `pickle_check` looks through them before. What a
bad pickle can still cost is time.
"""

from __future__ import annotations

import io
import itertools
import linecache
import pickle
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from offgrid import pickle_check

PICKLE_MARK = b"\x80\x05"  # a pickle of protocol 5 begins so; bytes that do so as well are pickled
PICKLE_PROTOCOL = 5
FUNCTION_BYTES_MAX = 1024 * 1024  # as every node's; a function is code, data belongs in its arguments
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # PythonTask.python of what is encoded here
FAILURE = "offgrid.failure/1"  # the first word of a failure
MESSAGE_CHARS_MAX = 2_000
TRACEBACK_CHARS_MAX = 64 * 1024
FRAME = re.compile(r'  File "(.+)", line (\d{1,7}), in ')

# All that an untrusted result may name, beyond what pickles need no name for (numbers, texts, lists, …). Each is a
# type that cannot be changed, since a pickle may set attributes, and does not make much out of little.
PLAIN: Mapping[str, frozenset[str]] = {
    "builtins": frozenset({"complex", "slice"}),
    "collections": frozenset({"OrderedDict", "deque"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
}
IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, see type objects in Python's C API


class TooLarge(ValueError):
    """The function does not fit into a job; the message says how large it is and what to do."""


class Untrusted(pickle.UnpicklingError):
    """A result holds something that is more than plain data, and its owner has not said that the host is trusted."""


class RemoteError(Exception):
    """A function failed on its host with an error that cannot be raised here as it was; `kind` is its class's name."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind, self.message = kind, message


class RemoteTraceback(Exception):
    """The cause of an error that was raised on a host: its traceback, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# ---- at the owner


def encode_function(function: Callable[..., Any]) -> bytes:
    """The function as a job carries it. Raises TypeError for what cannot be called or pickled, and TooLarge."""
    if not callable(function):
        raise TypeError(f"{function!r} cannot be called")
    import cloudpickle

    with _own_modules_by_value(function):
        try:
            code = bytes(cloudpickle.dumps(function, protocol=PICKLE_PROTOCOL))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(f"{name_of(function)} cannot be sent: {error}") from error
    if len(code) > FUNCTION_BYTES_MAX:
        raise TooLarge(
            f"{name_of(function)} takes {len(code)} bytes with all that it refers to, at most {FUNCTION_BYTES_MAX} are "
            "allowed; give data as an argument"
        )
    return code


def encode_call(args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> bytes:
    """The arguments as a job's input carries them; b"" where there are none."""
    if not args and not kwargs:
        return b""
    import cloudpickle

    return bytes(cloudpickle.dumps((tuple(args), dict(kwargs or {})), protocol=PICKLE_PROTOCOL))


def name_of(function: Callable[..., Any]) -> str:
    """For people: "statistics.mean"; PythonTask.name."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"[:200]


def decode_result(output: bytes, *, trusted: bool = False) -> Any:
    """What the function returned. Raises Untrusted when that is more than plain data, unless the host is `trusted`: a
    pickle can run any code of its maker's. Raises ValueError for what is no result."""
    return _load(output, trusted=trusted) if output.startswith(PICKLE_MARK) else output


def decode_failure(output: bytes, *, trusted: bool = False) -> BaseException | None:
    """What the function raised, caused by a RemoteTraceback; None when the output tells of no failure. An exception
    that is not one of Python's own comes as RemoteError unless the host is `trusted`."""
    if not output.startswith(PICKLE_MARK):
        return None
    try:
        told = _load(output, trusted=False)
        mark, kind, message, text, pickled = told
        if mark != FAILURE or {type(kind), type(message), type(text)} != {str}:
            return None
    except (ValueError, TypeError, pickle.UnpicklingError):
        return None
    error = _as_it_was(pickled, trusted=trusted) or RemoteError(kind, message)
    error.__cause__ = RemoteTraceback(_with_source(text))
    return error


# ---- at the host


def decode_function(code: bytes) -> Callable[..., Any]:
    """Raises whatever the function's makers may have put into it: only where any code may run."""
    function: Callable[..., Any] = pickle.loads(code)  # noqa: S301 - it is there to be run
    return function


def decode_call(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The other end of `encode_call`; raises as above."""
    if not data:
        return (), {}
    args, kwargs = pickle.loads(data)  # noqa: S301 - as above
    return args, kwargs


def encode_result(value: Any) -> bytes:
    """The other end of `decode_result`. Raises TypeError for what cannot be pickled."""
    if type(value) is bytes and not value.startswith(PICKLE_MARK):
        return value
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, protocol=PICKLE_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(f"the result, a {type(value).__qualname__}, cannot be sent: {error}") from error


def encode_failure(error: BaseException) -> bytes:
    """The other end of `decode_failure`; never raises."""
    text = "".join(traceback.format_exception(error))
    kind = type(error).__qualname__
    try:
        message = str(error)[:MESSAGE_CHARS_MAX]
    except Exception:  # noqa: BLE001 - the error's own `__str__` is a stranger's code
        message = ""
    return pickle.dumps((FAILURE, kind, message, text, _pickled(error)), protocol=PICKLE_PROTOCOL)


# ---- inside


class Reader(pickle.Unpickler):
    """Unpickles plain data, and exceptions of Python's own where `exceptions` is set; raises Untrusted for the rest."""

    def __init__(self, data: bytes, *, exceptions: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self._exceptions = exceptions

    def find_class(self, module: str, name: str) -> Any:
        plain = name in PLAIN.get(module, ())
        if plain or (self._exceptions and module == "builtins" and "." not in name):
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__flags__ & IMMUTABLE_TYPE and (plain or issubclass(found, Exception)):
                return found
        raise Untrusted(f"it holds {module}.{name}, which is more than plain data; say that the host is trusted")


def _with_source(text: str) -> str:
    """A traceback with the lines of the owner's own files: a sandbox at the host does not show them. Only files of
    modules that are loaded here are looked at, wherever a host may point."""
    known = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    lines, told = [], text[:TRACEBACK_CHARS_MAX].splitlines()
    for line, after in itertools.zip_longest(told, told[1:], fillvalue=""):
        lines.append(line)
        found = FRAME.match(line)
        if found and found[1] in known and not after.startswith("    "):
            source = linecache.getline(found[1], int(found[2])).strip()
            lines += [f"    {source}"] if source else []
    return "\n".join(lines) + "\n"


def _load(data: bytes, *, trusted: bool, exceptions: bool = False) -> Any:
    try:
        if trusted:
            return pickle.loads(data)  # noqa: S301 - asked for
        pickle_check.check(data)
        return Reader(data, exceptions=exceptions).load()
    except Untrusted:
        raise
    except Exception as error:
        raise ValueError(f"it cannot be read: {type(error).__name__}: {error}") from error


def _pickled(error: BaseException) -> bytes:
    """How to make the exception anew, where that can be done: many cannot be made from their `args`.

    Asked of the exception itself: libraries such as tblib teach pickle another way, which needs them to be read."""
    import cloudpickle

    try:
        pickled = bytes(cloudpickle.dumps(error.__reduce__(), protocol=PICKLE_PROTOCOL))
        made = _made(pickle.loads(pickled))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its `__reduce__` does
        return b""
    return pickled if type(made) is type(error) else b""


def _as_it_was(pickled: object, *, trusted: bool) -> BaseException | None:
    if not isinstance(pickled, bytes) or not pickled:
        return None
    try:
        error = _made(_load(pickled, trusted=trusted, exceptions=True))
    except Exception:  # noqa: BLE001 - a constructor may raise anything
        return None
    return error if isinstance(error, Exception) else None


def _made(reduced: Any) -> Any:
    make, args, *state = reduced
    error = make(*args)
    if state and isinstance(state[0], dict):
        error.__dict__.update(state[0])
    return error


@contextmanager
def _own_modules_by_value(function: Callable[..., Any]) -> Iterator[None]:
    """While it is pickled, the project that the function stands in goes along as code: a host has not installed it."""
    import cloudpickle

    with ExitStack() as undo:
        module = _project_of(function)
        if module is not None and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            undo.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _project_of(function: Callable[..., Any]) -> ModuleType | None:
    """The top package of the function's module, when that is somebody's own and not an installed one."""
    name = (getattr(function, "__module__", None) or "__main__").partition(".")[0]
    module = sys.modules.get(name)
    where = getattr(module, "__file__", None)
    if module is None or name in ("__main__", "offgrid") or name in sys.stdlib_module_names or not where:
        return None
    installed = [Path(sysconfig.get_path(place)) for place in ("purelib", "platlib")]
    return None if any(folder in Path(where).parents for folder in installed) else module
