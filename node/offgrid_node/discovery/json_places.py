"""JSON (RFC 8259) with the place of every value, so that a mistake can be shown where it was made.

Strict where `json` is lenient: no NaN or Infinity, no key twice, bounded nesting.
"""

from __future__ import annotations

import json
import re

import msgspec

NESTING_MAX = 16

_BLANK = re.compile(r"[ \t\r\n]*")


class JsonFault(Exception):
    """Not JSON: where (an offset into the text) and why."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class Place(msgspec.Struct, frozen=True):
    """A value and where it begins. Arrays hold Places; objects map a key to its own offset and its value's Place."""

    offset: int
    value: str | int | float | bool | list[Place] | dict[str, tuple[int, Place]] | None


def parse_places(text: str) -> Place:
    """The one value that `text` holds; raises JsonFault."""
    place, end = _value(text, _skip(text, 0), 0)
    end = _skip(text, end)
    if end != len(text):
        raise JsonFault(end, "something stands after the end")
    return place


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _value(text: str, at: int, depth: int) -> tuple[Place, int]:
    if depth > NESTING_MAX:
        raise JsonFault(at, f"nested deeper than {NESTING_MAX}")
    if text.startswith("[", at):
        return _array(text, at, depth)
    if text.startswith("{", at):
        return _object(text, at, depth)
    scalar, end = _scalar(text, at)
    return Place(at, scalar), end


def _array(text: str, start: int, depth: int) -> tuple[Place, int]:
    items: list[Place] = []
    at = _skip(text, start + 1)
    while not text.startswith("]", at):
        item, at = _value(text, at, depth + 1)
        items.append(item)
        at = _comma(text, at, "]")
    return Place(start, items), at + 1


def _object(text: str, start: int, depth: int) -> tuple[Place, int]:
    members: dict[str, tuple[int, Place]] = {}
    at = _skip(text, start + 1)
    while not text.startswith("}", at):
        key_at = at
        if not text.startswith('"', at):
            raise JsonFault(at, "a key in double quotes is expected here")
        key, at = _scalar(text, at)
        assert isinstance(key, str)
        if key in members:
            raise JsonFault(key_at, f"the key '{key[:64]}' stands here a second time")
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise JsonFault(at, "':' is expected here")
        value, at = _value(text, _skip(text, at + 1), depth + 1)
        members[key] = (key_at, value)
        at = _comma(text, at, "}")
    return Place(start, members), at + 1


def _comma(text: str, at: int, closing: str) -> int:
    at = _skip(text, at)
    if text.startswith(",", at):
        after = _skip(text, at + 1)
        if text.startswith(closing, after):
            raise JsonFault(at, f"a ',' stands before '{closing}'")
        return after
    if not text.startswith(closing, at):
        raise JsonFault(at, f"',' or '{closing}' is expected here")
    return at


def _scalar(text: str, at: int) -> tuple[str | int | float | bool | None, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        said = "a value is expected here" if error.msg == "Expecting value" else error.msg
        raise JsonFault(error.pos, said) from error
    except ValueError as error:
        raise JsonFault(at, str(error)) from error
    assert value is None or isinstance(value, str | int | float | bool)
    return value, end


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None
    return blank.end()
