"""JSON and query parameters into request messages (proto3 JSON), with all that is wrong with them at once. Pure.

Fields go by their name in the .proto or its lowerCamelCase, integers may be strings, enums are names or numbers, bytes
are base64 in either alphabet, null is a field that is not set. What protobuf's own parser lets pass or finds one by one
is refused here with its path: unknown fields (with those that there are), duplicate keys, numbers that are none.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from offgrid.api import Entry, entry_of
from offgrid_node.config.problems import nearest, printable
from offgrid_node.protocol.errors import Exhausted, FieldViolation, InvalidRequest

if TYPE_CHECKING:
    from offgrid.api import Descriptor, FieldDescriptor

PROBLEMS_MAX = 20  # told at once
KEYS_MAX = 100_000  # and objects, of one document
SHOWN_CHARS_MAX = 60

INTEGERS: Mapping[int, tuple[int, int]] = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_INTEGER = re.compile(r"-?[0-9]{1,20}\Z")
_FORM = re.compile(r"\s*[A-Za-z0-9_.\[\]%+-]+=")


class _Enough(Exception):
    """There are PROBLEMS_MAX."""


class Problems:
    """What is wrong with one request. Raises _Enough when one more is added than are told."""

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        self.found.append(FieldViolation(field, description))
        if len(self.found) > PROBLEMS_MAX:
            raise _Enough


class _Wrong(ValueError):
    """One value that its field cannot have; the text says what it can."""


def read_request(
    kind: type[Message], body: bytes | None, path: Mapping[str, str], query: Iterable[tuple[str, str]] = ()
) -> Message:
    """The message that a request means: a JSON document (empty: no fields), the fields in its path, those in its query.

    `body` is None for a method whose fields are in its query; otherwise that may say nothing. In a query nested fields
    are written with dots, repeated ones once for each value. Raises InvalidRequest with what is wrong,
    of that PROBLEMS_MAX at most, and Exhausted beyond KEYS_MAX.
    """
    request, problems = kind(), Problems()
    with contextlib.suppress(_Enough):
        _read(request, body, path, query, problems)
    if problems.found:
        shown = problems.found[:PROBLEMS_MAX]
        text = "; ".join(f"{each.field}: {each.description}" for each in shown)
        more = "; and more" if len(problems.found) > len(shown) else ""
        raise InvalidRequest(f"{text}{more}", violations=shown)
    return request


def _read(
    request: Message,
    body: bytes | None,
    path: Mapping[str, str],
    query: Iterable[tuple[str, str]],
    problems: Problems,
) -> None:
    if body is not None and body.strip():
        document = _document(body, problems)
        for name in sorted(path.keys() & document.keys()):
            problems.add(name, "is in the path already")
            del document[name]
        _fill(request, document, "", problems)
    for name, text in path.items():
        _set_text(request, name, name, [text], problems)
    values: dict[str, list[str]] = {}
    for name, text in query:
        values.setdefault(name, []).append(text)
    for name, texts in values.items():
        if body is not None:
            problems.add(_shown(name), "is no query parameter here: fields are JSON in the body")
        elif name in path:
            problems.add(name, "is in the path already")
        else:
            _set_text(request, name, name, texts, problems)


# ---- documents


def _document(body: bytes, problems: Problems) -> dict[str, Any]:
    left = KEYS_MAX

    def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal left
        left -= 1 + len(found)
        if left < 0:
            text = f"the body has more than {KEYS_MAX} keys and objects; send it in several requests"
            raise Exhausted(text, reason="RequestTooLarge")
        made = dict(found)
        if len(made) < len(found):
            times = Counter(name for name, _ in found)
            for name in sorted(name for name in times if times[name] > 1):
                problems.add(_shown(name), "is there twice")
        return made

    def constant(name: str) -> None:
        problems.add("(body)", f"{name} is no number of JSON")

    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is no UTF-8: byte {error.start}", reason="MalformedJson") from error
    except RecursionError as error:
        raise InvalidRequest("the body nests too deep", reason="MalformedJson") from error
    except ValueError as error:
        where = "a number has too many digits"  # the only other thing that can be wrong with a text
        if isinstance(error, _JsonError):
            where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        hint = ""
        if _FORM.match(text):
            hint = '; this looks like a form: send JSON, for example -d \'{"name": "…"}\''
        raise InvalidRequest(f"the body is no JSON: {where}{hint}", reason="MalformedJson") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {_kind(document)}; send an object, {{…}}", reason="MalformedJson")
    return document


_JsonError = json.JSONDecodeError


def _fill(message: Message, document: Mapping[str, Any], path: str, problems: Problems) -> None:
    taken: dict[str, str] = {}
    for key, value in document.items():
        field = _field(message.DESCRIPTOR, key)
        here = f"{path}.{_shown(key)}" if path else _shown(key)
        if field is None:
            problems.add(here, _unknown(message.DESCRIPTOR, key))
        elif field.name in taken:
            problems.add(here, f"is there twice, as {taken[field.name]} too")
        elif value is not None:
            taken[field.name] = key
            oneof = field.containing_oneof
            if oneof is not None and (other := message.WhichOneof(oneof.name)):
                problems.add(here, f"is there beside {other}; only one of them may be")
            else:
                _set(message, field, value, here, problems)


def _set(message: Message, field: FieldDescriptor, value: Any, path: str, problems: Problems) -> None:
    if not field.is_repeated:
        _set_one(message, field, value, path, problems)
    elif entry := entry_of(field):
        _set_map(getattr(message, field.name), entry, value, path, problems)
    elif not isinstance(value, list):
        problems.add(path, f"{_kind(value)}; a list is allowed, […]")
    else:
        target = getattr(message, field.name)
        for index, item in enumerate(value):
            _append(target, field, item, f"{path}[{index}]", problems)


def _set_one(message: Message, field: FieldDescriptor, value: Any, path: str, problems: Problems) -> None:
    if field.message_type is None:
        try:
            setattr(message, field.name, _scalar(field, value))
        except _Wrong as wrong:
            problems.add(path, str(wrong))
    elif isinstance(value, dict):
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, value, path, problems)
    else:
        problems.add(path, f"{_kind(value)}; an object is allowed, {{…}}")


def _append(target: Any, field: FieldDescriptor, item: Any, path: str, problems: Problems) -> None:
    if field.message_type is None:
        try:
            target.append(_scalar(field, item))
        except _Wrong as wrong:
            problems.add(path, str(wrong))
    elif isinstance(item, dict):
        _fill(target.add(), item, path, problems)
    else:
        problems.add(path, f"{_kind(item)}; an object is allowed, {{…}}")


def _set_map(target: Any, entry: Entry, value: Any, path: str, problems: Problems) -> None:
    if not isinstance(value, dict):
        problems.add(path, f"{_kind(value)}; an object is allowed, {{…}}")
        return
    for key, item in value.items():
        try:
            target[_scalar(entry.key, key)] = _scalar(entry.value, item)
        except _Wrong as wrong:
            problems.add(f"{path}.{_shown(key)}", str(wrong))


# ---- texts of path and query


def _set_text(message: Message, name: str, path: str, texts: Sequence[str], problems: Problems) -> None:
    head, _, rest = path.partition(".")
    field = _field(message.DESCRIPTOR, head)
    if field is None:
        problems.add(_shown(name), _unknown(message.DESCRIPTOR, head))
    elif rest and field.message_type is not None and not field.is_repeated:
        _set_text(getattr(message, field.name), name, rest, texts, problems)
    elif rest or field.message_type is not None:
        problems.add(_shown(name), "is no field that a query parameter can say")
    elif len(texts) > 1 and not field.is_repeated:
        problems.add(_shown(name), f"is there {len(texts)} times; once is allowed")
    else:
        for text in texts:
            value = {"true": True, "false": False}.get(text, text) if field.type == F.TYPE_BOOL else text
            if field.is_repeated:
                _append(getattr(message, field.name), field, value, _shown(name), problems)
            else:
                _set_one(message, field, value, _shown(name), problems)


# ---- values


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.cpp_type in INTEGERS:
        return _integer(value, *INTEGERS[field.cpp_type])
    if field.enum_type is not None:
        return _enum(field, value)
    match field.type:
        case F.TYPE_STRING:
            return _text(value)
        case F.TYPE_BYTES:
            return _bytes(value)
        case F.TYPE_BOOL:
            if isinstance(value, bool):
                return value
            raise _Wrong(f"{_kind(value)}; true or false is allowed")
        case F.TYPE_DOUBLE | F.TYPE_FLOAT:
            return _real(value)
    raise TypeError(f"{field.full_name} has a type that no request of ours has")


def _integer(value: Any, least: int, most: int) -> int:
    if isinstance(value, str) and _INTEGER.match(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3 is a whole number in JSON
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise _Wrong(f"{_kind(value)}; a whole number from {least} to {most} is allowed")


def _real(value: Any) -> float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308 and math.isfinite(value):
        return float(value)
    raise _Wrong(f"{_kind(value)}; a number is allowed")


def _enum(field: FieldDescriptor, value: Any) -> int:
    assert field.enum_type is not None
    names, numbers = field.enum_type.values_by_name, field.enum_type.values_by_number
    if isinstance(value, str) and not _INTEGER.match(value):
        if value.isascii() and value in names:
            number: int = names[value].number
            return number
        guess = nearest(value.upper(), names)
        meant = f"; did you mean {guess}?" if guess else ""
        raise _Wrong(f"{_kind(value)}; one of {', '.join(names)} is allowed{meant}")
    number = _integer(value, *INTEGERS[F.CPPTYPE_INT32])
    if number not in numbers:
        raise _Wrong(f"{number}; one of {', '.join(names)} is allowed")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{_kind(value)}; a text is allowed")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _Wrong("holds half of a surrogate pair, which is no character") from error
    return value


def _bytes(value: Any) -> bytes:
    text = _text(value).rstrip("=").replace("-", "+").replace("_", "/").replace(" ", "+")  # a query's + is a space
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Wrong("is no base64") from error


# ---- words


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    if not name.isascii():
        return None  # what is no Unicode breaks protobuf's maps
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
    return found


def _unknown(descriptor: Descriptor, name: str) -> str:
    names = [field.name for field in descriptor.fields]
    guess = nearest(name, names)
    meant = f"; did you mean {guess}?" if guess else ""
    return f"is no field; allowed: {', '.join(names) or 'none'}{meant}"


def _kind(value: Any) -> str:
    """What it is, for an error: short, and printable."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {_shown(value)!r}"
        case list():
            return "a list"
        case dict():
            return "an object"
    return _shown(repr(value))


def _shown(text: str) -> str:
    text = printable(text[: SHOWN_CHARS_MAX + 1])
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"
