"""Takes out of a text what must not leave the machine: secrets that are known, and what looks like one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

SECRET_CHARS_MIN = 4  # a shorter one would take half of the text with it
NAME_CHARS_MIN = 4
HIDDEN = "[hidden]"

_NAMES = (
    r"(?:secret|passw(?:or)?d|passphrase|token(?!s\b|_level)|api[_-]?key|auth[_-]?key|private[_-]?key|credential)[\w-]*"
)
_NAME = re.compile(rf"(?i){_NAMES}")
_OPTION = re.compile(rf"(?i)--?[\w-]*{_NAMES}")  # what comes after it is its value
_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"(?m)(?:^[A-Za-z0-9+/=]+\n){0,200}+-----END [A-Z ]+-----"), HIDDEN),  # where a log begins in one
    (re.compile(r"\bog1:[^\s\"']+"), f"og1:{HIDDEN}"),
    (re.compile(r"\boffgrid-(?:key|secret)\b[^\n\"]*"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(\w+://)[^\s/@\"']+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(#code=)[^\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:key|sig|signature|auth|code)=)[^\s&#\"']+"), rf"\1{HIDDEN}"),
    (
        re.compile(rf"(?i)([\w.-]*{_NAMES}[\"']?\s*[=:]\s*)(?:([\"'])[^\"'\n]+\2|[^\s,;}}\"']+)"),
        rf"\1\2{HIDDEN}\2",
    ),
    (
        re.compile(rf"(?i)((?<![\w-])--?[\w-]*{_NAMES}(?:[\"']\s*,\s*|[ \t]+))(?:([\"'])[^\"'\n]+\2|(?!-)[^\s\"',;]+)"),
        rf"\1\2{HIDDEN}\2",
    ),
    (
        re.compile(r"(?<![\w-])-p(?!\d{1,5}(?![^\s\"',]))[^\s\"',=-][^\s\"',]*"),
        f"-p{HIDDEN}",
    ),  # mysql's; a port is none
)


class Redaction:
    """`secrets` are texts that must not appear at all; `names` have a word each that stands in their place."""

    def __init__(self, secrets: Iterable[str], names: Mapping[str, str]) -> None:
        told = {secret: HIDDEN for secret in secrets if len(secret) >= SECRET_CHARS_MIN}
        told |= {name: word for name, word in names.items() if len(name) >= NAME_CHARS_MIN and name not in told}
        told = {form: word for text, word in told.items() for form in _forms(text)}
        self._told = told
        longest_first = sorted(told, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if told else None

    def of(self, text: str) -> str:
        """The text, fit to be sent. Values that become JSON go through `of_value` before they do."""
        if self._known is not None:
            text = self._known.sub(lambda found: self._told[found[0]], text)
        for shape, instead in _SHAPES:
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
                HIDDEN if isinstance(word, str) and _OPTION.fullmatch(str(option)) else self.of_value(word)
                for option, word in zip(before, value, strict=False)
            ]
        return value if value is None or isinstance(value, (bool, int, float)) else self.of(str(value))

    def _of_field(self, key: str, value: Any) -> Any:
        return HIDDEN if value and isinstance(value, str) and _NAME.search(key) else self.of_value(value)


def _forms(text: str) -> tuple[str, ...]:
    """How programs write it: as it is, and between quotes, as JSON and Python do."""
    return text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]
