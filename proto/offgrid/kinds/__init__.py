"""Kinds of events that applications record, each with a JSON Schema (draft 2020-12) that an event must keep to.

Four are known everywhere; more are registered at a node (`Sessions.register_kind`). What a schema leaves open is open:
it says `"additionalProperties": false` where nothing else is allowed. Three words of our own may stand in one:

    "x-expendable": true   of the whole: the oldest of this kind are dropped first where nothing more fits
    "x-content": true      of a property that is a string: what people or models said. Unless a node is told to store it
                           (state.store_raw_content), it is its hash that is recorded
    "x-key": true          of a property that is a string, or an array of strings: what events are asked for by, e.g. an
                           id; a node remembers which ones it saw (`offgrid memory ask --key`)

Bounds are better whole numbers than written as 1e15: they are checked in a fraction of the time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from jsonschema_rs import RegexOptions, ValidationError, Validator, validator_for

KNOWN = ("energy.update", "user.prompt", "pattern.interference", "health.heartbeat")
KIND = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*\Z")
KIND_CHARS_MAX = 64
KIND_RULE = f"words of a-z, 0-9 and _ with dots between, {KIND_CHARS_MAX} characters at most, as energy.update"
SCHEMA_BYTES_MAX = 64 * 1024
WORDS_MAX = 300  # of what was wrong
DATA_BYTES_MAX = 64 * 1024  # of one event, as JSON
TIME_MAX_US = FRAME_MAX = 1 << 53  # what JavaScript holds exactly
ENERGY_MAX = 1e15  # either way: sums of as many as there can be stay finite
HASH = re.compile(r"blake2b-256:[0-9a-f]{64}\Z")
HASHED = {"type": "string", "pattern": "^blake2b-256:[0-9a-f]{64}$"}
EXPENDABLE, CONTENT, KEY = "x-expendable", "x-content", "x-key"


class _Known(NamedTuple):
    """`hashed` is for an event whose content is hashed; the same where there is none."""

    schema: Any
    raw: Validator
    hashed: Validator
    content: tuple[str, ...]
    keys: tuple[str, ...]


class RejectedEvent(ValueError):
    """`path` is where in the event, as a JSON Pointer ("" is all of it); `rule` what it breaks."""

    def __init__(self, kind: str, path: str, rule: str) -> None:
        super().__init__(f"{kind}: {path or 'the event'}: {rule}")
        self.kind, self.path, self.rule = kind, path, rule


class Kinds:
    """Those that are known, each compiled once."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        for kind in KNOWN:
            self.register(kind, json.loads(files(__package__).joinpath(f"{kind}.json").read_text("utf-8")))

    def register(self, kind: str, schema: Mapping[str, Any] | bool) -> None:
        """In the place of another one of that name. Raises ValueError for a name or a schema that is none."""
        if len(kind) > KIND_CHARS_MAX or not KIND.match(kind):
            raise ValueError(f"{kind!r} is no name of a kind: {KIND_RULE}")
        if not isinstance(schema, dict | bool) or len(json.dumps(schema)) > SCHEMA_BYTES_MAX:
            raise ValueError(f"{kind}: a schema is a JSON object of up to {SCHEMA_BYTES_MAX} bytes")
        content, keys = _content_of(kind, schema), _keys_of(kind, schema)
        raw = hashed = _compiled(kind, schema)
        if content and isinstance(schema, dict):
            properties = schema["properties"] | dict.fromkeys(content, HASHED)
            hashed = _compiled(kind, schema | {"properties": properties})
        self._known[kind] = _Known(schema, raw, hashed, content, keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __contains__(self, kind: str) -> bool:
        return kind in self._known

    def schema(self, kind: str) -> Any:
        """Raises KeyError."""
        return self._known[kind].schema

    def keys(self, kind: str) -> tuple[str, ...]:
        """Its properties that events are asked for by; of a kind that is not known, none."""
        known = self._known.get(kind)
        return known.keys if known is not None else ()

    @property
    def expendable(self) -> frozenset[str]:
        return frozenset(
            kind for kind, known in self._known.items() if known.schema is not True and known.schema.get(EXPENDABLE)
        )

    def check(self, kind: str, data: object, *, hashed: bool = False) -> None:
        """`hashed`: what is content must be its hash. Raises RejectedEvent."""
        known = self._known.get(kind)
        if known is None:
            raise RejectedEvent(kind, "/kind", f"not known here: {', '.join(self._known)} are; register it")
        if type(data) is not dict:
            raise RejectedEvent(kind, "", f"{type(data).__name__}, and an object is needed")
        compiled = known.hashed if hashed else known.raw
        if not compiled.is_valid(data):
            error = next(compiled.iter_errors(data))
            raise RejectedEvent(kind, _pointer(error), error.message[:WORDS_MAX])

    def check_recorded(self, kind: str, data: object) -> None:
        """What was recorded once, here or elsewhere: its content may be as it was said, or hashed. Raises
        RejectedEvent."""
        try:
            self.check(kind, data)
        except RejectedEvent:
            if not self.content(kind):
                raise
            self.check(kind, data, hashed=True)

    def content(self, kind: str) -> tuple[str, ...]:
        """The properties that are content; none of a kind that is not known."""
        known = self._known.get(kind)
        return () if known is None else known.content

    def hash_content(self, kind: str, data: dict[str, Any]) -> None:
        """Puts hashes in the place of what is content; a hash stays as it is. What is no string, as it was recorded
        by another schema, is hashed as JSON."""
        for name in self._known[kind].content:
            value = data.get(name)
            if name in data and not (isinstance(value, str) and HASH.match(value)):
                text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                data[name] = "blake2b-256:" + hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _compiled(kind: str, schema: Any) -> Validator:
    try:
        return validator_for(schema, retriever=_refuse, pattern_options=RegexOptions())
    except ValidationError as error:
        raise ValueError(f"{kind}: {_pointer(error)}: {error.message[:WORDS_MAX]}") from error


def _content_of(kind: str, schema: Any) -> tuple[str, ...]:
    found = _marked(kind, schema, CONTENT)
    for name, each in found:
        if each.get("type") != "string":
            raise ValueError(f'{kind}: /properties/{name}: what is content must be of the type "string"')
    return tuple(name for name, _ in found)


def _keys_of(kind: str, schema: Any) -> tuple[str, ...]:
    found = _marked(kind, schema, KEY)
    for name, each in found:
        items = each.get("items")
        strings = each.get("type") == "array" and isinstance(items, dict) and items.get("type") == "string"
        if each.get("type") != "string" and not strings:
            raise ValueError(f'{kind}: /properties/{name}: a key must be of the type "string", or an array of such')
    return tuple(name for name, _ in found)


def _marked(kind: str, schema: Any, word: str) -> list[tuple[str, dict[str, Any]]]:
    """Properties of the event itself; deeper ones are refused."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    named = properties.items() if isinstance(properties, dict) else ()
    found = [(name, each) for name, each in named if isinstance(each, dict) and each.get(word) is True]
    if json.dumps(schema).count(f'"{word}"') != len(found):
        raise ValueError(f"{kind}: {word} may be said of the event's own properties alone, and be true")
    return found


def _refuse(uri: str) -> Any:
    """A schema stands alone; nothing is fetched for it."""
    raise ValueError(f"{uri} is not in this schema, and nothing else is looked at")


def _pointer(error: ValidationError) -> str:
    """RFC 6901."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
    return "".join(f"/{step}" for step in steps)
