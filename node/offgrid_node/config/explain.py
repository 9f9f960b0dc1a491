"""What pydantic found, told for people: the predicate, the rule in words, and what was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec
from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .fields import Allowed
from .problems import SHOWN_CHARS_MAX, nearest, shown
from .sections import Section, row_section_of, section_of
from .toml_scan import Path
from .tree import Config, Keys

Shape = Literal["integer", "boolean", "text", "list", "table"]

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_WANTED = {"integer": "an integer", "boolean": "true or false", "text": "a text", "list": "a list", "table": "a table"}
_TEXT_BOOLEANS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


class Explanation(msgspec.Struct, frozen=True):
    """One error: whether the key (and not its value) is to blame, and the parts of a `Problem`."""

    of_key: bool
    message: str
    allowed: str
    suggestion: str


def explain(error: ErrorDetails) -> Explanation:
    """Turns one error of `Config`'s validation into words. Secrets are never repeated."""
    kind = error["type"]
    path = error["loc"]
    owner, info = find(path)
    if kind == "extra_forbidden":
        return _unknown(path, owner)
    if kind == "missing":
        return Explanation(False, "is missing", allowed(info), "")
    if info is None or section_of(info):
        return Explanation(False, f"must be a table, is {_noun(error['input'])}", _names(owner, info), "")
    return Explanation(path[-1] == "[key]", _message(error, info, len(path)), allowed(info), _suggestion(error, info))


def find(path: Path) -> tuple[type[Section], FieldInfo | None]:
    """The section and field that `path` (or what stands above it) belongs to."""
    owner: type[Section] = Config
    info: FieldInfo | None = None
    for key in path:
        rows = row_section_of(info) if info is not None and isinstance(key, int) else None
        if rows:
            owner, info = rows, None
            continue
        info = owner.model_fields.get(str(key))
        inner = section_of(info) if info else None
        if inner:
            owner = inner
        elif info is None or row_section_of(info) is None:
            break
    return owner, info


def shape(info: FieldInfo) -> Shape:
    """What a field's value looks like in TOML."""
    origin = get_origin(info.annotation)
    if origin is tuple:
        return "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "table"
    if info.annotation is bool:
        return "boolean"
    return "integer" if info.annotation is int else "text"


def allowed(info: FieldInfo | None) -> str:
    """A field's rule in words."""
    if info is None:
        return ""
    for note in info.metadata:
        if isinstance(note, Allowed):
            return note.text
    if get_origin(info.annotation) is Literal:
        return ", ".join(get_args(info.annotation))
    if info.annotation is int:
        low = next(note.ge for note in info.metadata if isinstance(note, Ge))
        high = next(note.le for note in info.metadata if isinstance(note, Le))
        return f"{low} to {high}"
    return "true, false"


def dotted(path: Path) -> str:
    """`mesh.peers[1]`, `host.labels."two words"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.match(part) and len(part) <= SHOWN_CHARS_MAX else shown(part)
            text += f".{name}" if text else name
    return text


def _unknown(path: Path, owner: type[Section]) -> Explanation:
    word = str(path[-1])
    what = "key" if len(path) > 1 else "section"
    siblings = list(owner.model_fields)
    guess = nearest(word, siblings) or _elsewhere(word)
    return Explanation(True, f"is an unknown {what}", ", ".join(siblings), guess)


def _elsewhere(word: str, section: type[Section] = Config, above: Keys = ()) -> str:
    """A key of this very name in another section."""
    for name, info in section.model_fields.items():
        path = (*above, name)
        if above and name == word:
            return ".".join(path)
        if (inner := section_of(info)) and (found := _elsewhere(word, inner, path)):
            return found
    return ""


def _names(owner: type[Section], info: FieldInfo | None) -> str:
    inner = section_of(info) if info else owner
    return ", ".join(inner.model_fields) if inner else ""


def _message(error: ErrorDetails, info: FieldInfo, depth: int) -> str:
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "offgrid":
            return error["msg"]
        case "literal_error" if isinstance(value, str):
            return f"has no choice {shown(value)}"
        case "greater_than_equal":
            return f"is {_digits(value)}, too small"
        case "less_than_equal":
            return f"is {_digits(value)}, too large"
        case "too_long":
            return f"has {len(value)} entries, more than {context['max_length']}"
        case "string_unicode":
            return "is not valid Unicode"
    wanted = "a text" if isinstance(error["loc"][-1], int) or _in_table(error, info) else _WANTED[shape(info)]
    seen = f"the text {shown(value)}" if isinstance(value, str) and not _secret(info) else _noun(value)
    return f"must be {wanted}, is {seen}"


def _in_table(error: ErrorDetails, info: FieldInfo) -> bool:
    return shape(info) == "table" and error["type"] == "string_type"


def _suggestion(error: ErrorDetails, info: FieldInfo) -> str:
    value = error["input"]
    if error["type"] == "offgrid":
        return str(error.get("ctx", {}).get("suggestion", ""))
    if error["type"] == "literal_error" and isinstance(value, str):
        guess = nearest(value.lower(), _choices(info))
        return f'"{guess}"' if guess else ""
    if not isinstance(value, str) or _secret(info):
        if shape(info) == "text" and type(value) in (int, float) and not _secret(info):
            return f'"{value}"' if len(str(value)) <= 20 else ""
        return ""
    match shape(info):
        case "integer" if re.fullmatch(r"-?[0-9]{1,18}", value):
            return str(int(value))
        case "boolean":
            return _TEXT_BOOLEANS.get(value.lower(), "")
        case "list" if value.isprintable() and len(value) <= 80:
            return json.dumps([part.strip() for part in value.split(",")], ensure_ascii=False)
    return ""


def _choices(info: FieldInfo) -> list[str]:
    for part in (info.annotation, *get_args(info.annotation)):
        if get_origin(part) is Literal:
            return list(get_args(part))
    return []


def _secret(info: FieldInfo) -> bool:
    return info.annotation is SecretStr


def _digits(value: Any) -> str:
    return str(value) if isinstance(value, int) and abs(value) < 10**30 else "a number of many digits"


def _noun(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"
