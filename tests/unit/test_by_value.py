"""offgrid.by_value: functions, calls, results and failures survive the journey; what a host sends is never trusted."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid import by_value, pickle_check
from offgrid.by_value import (
    RemoteError,
    RemoteTraceback,
    TooLarge,
    Untrusted,
    decode_call,
    decode_failure,
    decode_function,
    decode_result,
    encode_call,
    encode_failure,
    encode_function,
    encode_result,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Evil:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /nonexistent/offgrid",)


class TwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raised(make: Callable[[], BaseException]) -> bytes:
    try:
        raise make()
    except BaseException as error:  # noqa: BLE001 - whatever the test makes
        return encode_failure(error)


def test_a_function_and_its_call_arrive() -> None:
    offset = 40

    def add(a: int, *, b: int = 0) -> int:
        return a + b + offset

    args, kwargs = decode_call(encode_call([1], {"b": 1}))
    assert decode_function(encode_function(add))(*args, **kwargs) == 42


def test_no_arguments_are_no_bytes() -> None:
    assert encode_call() == b""
    assert decode_call(b"") == ((), {})


def test_a_project_of_ones_own_goes_along(tmp_path: Path) -> None:
    """The host has not installed it, so a fresh interpreter must be able to call it."""
    (tmp_path / "ownproject").mkdir()
    (tmp_path / "ownproject" / "__init__.py").write_text("")
    (tmp_path / "ownproject" / "helpers.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "ownproject" / "work.py").write_text(
        "from ownproject.helpers import double\n\ndef run(x):\n    return double(x) + 1\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        code = encode_function(importlib.import_module("ownproject.work").run)
    finally:
        sys.path.remove(str(tmp_path))
    script = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())(20))"
    done = subprocess.run([sys.executable, "-c", script], input=code, capture_output=True, check=True, cwd="/")
    assert done.stdout.split() == [b"41"]


def test_an_installed_package_goes_by_name() -> None:
    assert len(encode_function(pytest.importorskip("click").echo)) < 200


def test_what_cannot_be_sent_says_why() -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="cannot be sent"):
        encode_function(lambda: lock)
    with pytest.raises(TypeError, match="cannot be called"):
        encode_function(42)  # type: ignore[arg-type]


def test_a_function_that_drags_data_along_is_too_large() -> None:
    data = os.urandom(by_value.FUNCTION_BYTES_MAX)
    with pytest.raises(TooLarge, match="give data as an argument"):
        encode_function(lambda: data)


@given(PLAIN)
def test_plain_results_come_back_as_they_were(value: Any) -> None:
    assert decode_result(encode_result(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset("ab"),
        bytearray(b"x"),
        1 + 2j,
        collections.OrderedDict(a=1),
        collections.deque([1], 4),
        datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        decimal.Decimal("1.50"),
    ],
)
def test_so_do_the_plain_types_that_have_names(value: Any) -> None:
    assert decode_result(encode_result(value)) == value


def test_bytes_are_their_own_result_whatever_is_in_them() -> None:
    assert encode_result(b"raw") == b"raw"
    tricky = pickle.dumps(Evil(), protocol=5)
    assert decode_result(encode_result(tricky)) == tricky


def test_a_result_that_is_more_than_plain_data_needs_trust() -> None:
    output = encode_result(Point(3))
    with pytest.raises(Untrusted, match="say that the host is trusted"):
        decode_result(output)
    assert decode_result(output, trusted=True).x == 3


@pytest.mark.parametrize(
    "output",
    [
        pickle.dumps(Evil(), protocol=5),
        b"\x80\x05cbuiltins\neval\n\x8c\x011\x85R.",
        b"\x80\x05cbuiltins\nexec\n\x8c\x011\x85R.",
        b"\x80\x05cbuiltins\ngetattr\n.",
        b"\x80\x05cbuiltins\nBaseException\n.",
        b"\x80\x05coffgrid.by_value\nReader\n.",
    ],
)
def test_nothing_that_a_host_sends_is_called(output: bytes) -> None:
    with pytest.raises(Untrusted):
        decode_result(output)
    assert decode_failure(output) is None


def test_no_named_type_can_be_changed() -> None:
    for module, names in by_value.PLAIN.items():
        for name in names:
            with pytest.raises(ValueError, match="cannot be read"):
                decode_result(b"\x80\x05c%s\n%s\nN}\x8c\x03fooK\x01s\x86b." % (module.encode(), name.encode()))
            assert not hasattr(getattr(importlib.import_module(module), name), "foo")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_result_or_refused(data: bytes) -> None:
    for output in (data, by_value.PICKLE_MARK + data):
        with contextlib.suppress(ValueError, Untrusted):
            decode_result(output)
        failure = decode_failure(output)
        assert failure is None or isinstance(failure, Exception)


def hostile(how: str) -> bytes:
    """Results that would cost an owner gigabytes of memory or the whole process; some are a few bytes."""
    head, deep = by_value.PICKLE_MARK, b")" + b"\x85" * 1_000_000
    return {
        "a memo of gigabytes": head + b"Nr\xff\xff\xff\x7f.",
        "a memo of gigabytes, as text": head + b"Np2147483647\n.",
        "a deep key": head + b"}" + deep + b"Ns.",
        "a deep key among several": head + b"}(" + deep + b"Nu.",
        "a deep member": head + b"\x8f(" + deep + b"\x90.",
        "a deep key in a call": head + b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93](" + deep + b"N\x86e\x85R.",
        "a deep key, by way of the memo": head + b")" + b"\x94h\x00\x85" * 10 + b"0}" + deep + b"Ns.",
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "a memo of gigabytes",
        "a memo of gigabytes, as text",
        "a deep key",
        "a deep key among several",
        "a deep member",
        "a deep key in a call",
        "a deep key, by way of the memo",
    ],
)
def test_no_result_takes_the_owners_process_with_it(how: str) -> None:
    """In a process of its own, which must be there afterwards, with little memory."""
    pytest.importorskip("resource")
    script = (  # sets its bound itself: between fork and exec gRPC, where it runs here, would have its say
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from offgrid import by_value\n"
        "data = sys.stdin.buffer.read()\n"
        "try:\n    by_value.decode_result(data)\n"
        "except ValueError as error:\n    print(error)\n"
        "print(by_value.decode_failure(data))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=hostile(how),
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-200:]
    assert ran.stdout.endswith(b"None\n")
    assert b"deep" in ran.stdout or b"operation" in ran.stdout


@given(PLAIN)
def test_whatever_pickle_writes_passes(value: Any) -> None:
    for data in (pickle.dumps(value, 5), encode_result([value, value, {value if hashable(value) else 1: value}])):
        if data.startswith(by_value.PICKLE_MARK):
            pickle_check.check(data)


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def test_a_failure_is_told_in_words() -> None:
    """Nothing is asked to tell itself: that could take as long as it likes."""
    told: object = ()
    for _ in range(900):
        told = (told, told)
    assert decode_failure(pickle.dumps((by_value.FAILURE, told, "", "", b""), 5)) is None


def test_an_exception_of_pythons_own_comes_back_as_it_was() -> None:
    error = decode_failure(raised(lambda: KeyError("nowhere")))
    assert type(error) is KeyError
    assert error.args == ("nowhere",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raised" in str(error.__cause__)


def test_the_owners_own_lines_are_in_a_traceback_that_came_without_them() -> None:
    here = pickle.dumps(
        (by_value.FAILURE, "KeyError", "x", f'  File "{__file__}", line 1, in f\nKeyError: x\n', b""), 5
    )
    assert '    """offgrid.by_value: functions, calls' in str(decode_failure(here).__cause__)  # type: ignore[union-attr]
    there = pickle.dumps(
        (by_value.FAILURE, "KeyError", "x", '  File "/etc/passwd", line 1, in f\nKeyError: x\n', b""), 5
    )
    assert "root" not in str(decode_failure(there).__cause__)  # type: ignore[union-attr]


def test_another_comes_by_name_unless_the_host_is_trusted() -> None:
    error = decode_failure(raised(lambda: pickle.PickleError("x")))
    assert isinstance(error, RemoteError)
    assert (error.kind, error.message) == ("PickleError", "x")
    assert type(decode_failure(raised(lambda: pickle.PickleError("x")), trusted=True)) is pickle.PickleError


def test_libraries_that_teach_pickle_other_ways_do_not_matter() -> None:
    """With tblib, which distributed brings, exceptions refer to it."""
    pickling_support = pytest.importorskip("tblib.pickling_support")
    with pytest.raises(KeyError) as caught:
        {}["nowhere"]
    pickling_support.install(caught.value)
    assert type(decode_failure(encode_failure(caught.value))) is KeyError


def test_one_that_cannot_be_made_anew_comes_by_name() -> None:
    error = decode_failure(raised(lambda: TwoArguments("a", "b")), trusted=True)
    assert isinstance(error, RemoteError)
    assert error.kind == "TwoArguments"


def test_a_result_is_no_failure() -> None:
    assert decode_failure(encode_result(("x", 1))) is None
    assert decode_failure(b"text") is None
    assert decode_failure(b"") is None
