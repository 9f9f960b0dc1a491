"""Takes out of a text what must not leave the machine: secrets that are known, and what looks like one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from offgrid_node.debugging.shapes import HIDDEN, NAME, OPTION, PASSWORD_OPTION, PORT, SHAPES, USER_OPTION

SECRET_CHARS_MIN = 4  # a shorter one would take half of the text with it
NAME_CHARS_MIN = 4
_HEAD_CHARS = min(SECRET_CHARS_MIN, NAME_CHARS_MIN)


class Redaction:
    """`secrets` are texts that must not appear at all; `names` have a word each that stands in their place."""

    def __init__(self, secrets: Iterable[str], names: Mapping[str, str]) -> None:
        told = {secret: HIDDEN for secret in secrets if len(secret) >= SECRET_CHARS_MIN}
        told |= {name: word for name, word in names.items() if len(name) >= NAME_CHARS_MIN and name not in told}
        self._told = {form: word for text, word in told.items() for form in _forms(text)}
        lengths: dict[str, set[int]] = {}
        for text in self._told:
            lengths.setdefault(text[:_HEAD_CHARS], set()).add(len(text))
        self._lengths = {head: sorted(found, reverse=True) for head, found in lengths.items()}

    def of(self, text: str) -> str:
        """The text, fit to be sent. Values that become JSON go through `of_value` before they do."""
        text = self._without_known(text)
        for shape, instead in SHAPES:
            text = shape.sub(instead, text)
        return text

    def of_value(self, value: Any) -> Any:
        """The same of what JSON can say, in its shape; what else there is becomes text."""
        if isinstance(value, Mapping):
            fields = ((str(key), within) for key, within in value.items())
            return {key if key.isidentifier() else self.of(key): self._of_field(key, at) for key, at in fields}
        if isinstance(value, (list, tuple)):
            before = ("", *value)
            return [
                HIDDEN if isinstance(word, str) and _gives_away(str(option), word) else self.of_value(word)
                for option, word in zip(before, value, strict=False)
            ]
        return value if value is None or isinstance(value, (bool, int, float)) else self.of(str(value))

    def _of_field(self, key: str, value: Any) -> Any:
        return HIDDEN if value and isinstance(value, str) and NAME.search(key) else self.of_value(value)

    def _without_known(self, text: str) -> str:
        """The longer first. By their beginnings: one pattern of ten thousand names would try each at each place."""
        kept, done, at = list[str](), 0, 0
        while at < len(text):
            ends = (at + length for length in self._lengths.get(text[at : at + _HEAD_CHARS], ()))
            end = next((end for end in ends if text[at:end] in self._told), 0)
            if end:
                kept += text[done:at], self._told[text[at:end]]
                done = at = end
            else:
                at += 1
        return "".join((*kept, text[done:]))


def _gives_away(option: str, word: str) -> bool:
    """Whether `word`, which follows `option` among what a program was given, is a password or has one."""
    if PASSWORD_OPTION.fullmatch(option):
        return not PORT.fullmatch(word)
    return bool(OPTION.fullmatch(option)) or (":" in word and bool(USER_OPTION.fullmatch(option)))


def _forms(text: str) -> tuple[str, ...]:
    """How programs write it: as it is, and between quotes, as JSON and Python do."""
    return text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]
