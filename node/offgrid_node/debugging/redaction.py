"""Takes out of a text what must not leave the machine: secrets that are known, and what looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SECRET_CHARS_MIN = 4  # a shorter one would take half of the text with it
NAME_CHARS_MIN = 4
HIDDEN = "[hidden]"

_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\bog1:[^\s\"']+"), f"og1:{HIDDEN}"),
    (re.compile(r"\boffgrid-(?:key|secret)\b[^\n\"]*"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(\w+://)[^\s/@\"']+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(#code=)[^\s\"']+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)([\w.-]*(?:secret|passw(?:or)?d|passphrase|token(?!s\b|_level)|api[_-]?key|auth[_-]?key|private[_-]?key|credential)"
            r"[\w-]*[\"']?\s*[=:]\s*)(?:([\"'])[^\"'\n]+\2|[^\s,;}\"']+)"
        ),
        rf"\1\2{HIDDEN}\2",
    ),
)


class Redaction:
    """`secrets` are texts that must not appear at all; `names` have a word each that stands in their place."""

    def __init__(self, secrets: Iterable[str], names: Mapping[str, str]) -> None:
        told = {secret: HIDDEN for secret in secrets if len(secret) >= SECRET_CHARS_MIN}
        told |= {name: word for name, word in names.items() if len(name) >= NAME_CHARS_MIN and name not in told}
        self._told = told
        longest_first = sorted(told, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if told else None

    def of(self, text: str) -> str:
        """The text, fit to be sent."""
        if self._known is not None:
            text = self._known.sub(lambda found: self._told[found[0]], text)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        return text
