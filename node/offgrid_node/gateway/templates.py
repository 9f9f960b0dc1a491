"""Path templates of `google.api.http`, and finding the one that a path fits. Pure.

    Template = "/" Segments [ ":" verb ]      Segments = Segment { "/" Segment }
    Segment  = "*" | "**" | literal | "{" field [ "=" Segments ] "}"

`*` is one segment, `**` the rest of the path, and stands last. A path is split before it is decoded, so a segment may
hold any character, percent-encoded; a colon before a verb is a verb's only as it stands: our ids hold colons too
("mission:abc123"), and where no template has such a verb the colon belongs to the id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

ONE, REST = "*", "**"
NEAREST_CHARS_MAX = 256

_PIECE = re.compile(r"\{(?P<field>[a-z][a-z0-9_.]*)(=(?P<inner>[^{}]+))?\}|(?P<plain>[^/{}]+)")

T = TypeVar("T")


class BadPath(ValueError):
    """What is percent-encoded is no UTF-8."""


class Variable(msgspec.Struct, frozen=True):
    """A field of the request, and which of the template's segments it is: `first` to before `last`."""

    field: str
    first: int
    last: int


class Template(msgspec.Struct, frozen=True):
    """`segments` are literals, ONE or REST."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str = ""

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ValueError for one that is none."""
        body, verb = _without_verb(text)
        if not body.startswith("/"):
            raise ValueError(f"{text}: a template begins with /")
        segments, variables, at = list[str](), list[Variable](), 1
        while at <= len(body):
            piece = _PIECE.match(body, at)
            if piece is None or body[piece.end() : piece.end() + 1] not in ("", "/"):
                raise ValueError(f"{text}: not a segment at {at}")
            first, name = len(segments), piece["field"]
            segments += (piece["inner"] or ONE).split("/") if name else [piece["plain"]]
            if name:
                variables.append(Variable(name, first, len(segments)))
            at = piece.end() + 1
        if "" in segments or REST in segments[:-1]:
            raise ValueError(f"{text}: an empty segment, or ** before the last one")
        if len({variable.field for variable in variables}) < len(variables):
            raise ValueError(f"{text}: a field twice")
        return cls(text, tuple(segments), tuple(variables), verb)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """The less, the earlier it is tried: a verb before none, one segment before the rest, more literals first."""
        return (not self.verb, REST in self.segments, -sum(each not in (ONE, REST) for each in self.segments))

    @property
    def plain(self) -> str:
        """With the names of variables only, as OpenAPI has it: "/v1/objects/{object}:share"."""
        return re.sub(r"\{([a-z0-9_.]+)=[^{}]+\}", r"{\1}", self.text)

    def match(self, path: str) -> Mapping[str, str] | None:
        """The decoded fields of a path as it came, without its query. Raises BadPath."""
        if self.verb:
            if not path.endswith(f":{self.verb}"):
                return None
            path = path[: -len(self.verb) - 1]
        raw = path.split("/")[1:]
        if len(raw) < len(self.segments) or (len(raw) > len(self.segments) and self.segments[-1] != REST):
            return None
        found = [_decoded(each) for each in raw]
        if any(not fits(each, segment) for each, segment in zip(self.segments, found, strict=False)):
            return None
        taken = [found[v.first : None if self.segments[v.last - 1] == REST else v.last] for v in self.variables]
        if not all(any(each) for each in taken):
            return None
        return {v.field: "/".join(part) for v, part in zip(self.variables, taken, strict=True)}


def fits(template: str, segment: str) -> bool:
    """Whether one decoded segment is what the template has there."""
    return template == REST or (bool(segment) if template == ONE else segment == template)


class Table(Generic[T]):
    """What is bound to verbs of HTTP and templates."""

    def __init__(self, rows: Iterable[tuple[str, Template, T]]) -> None:
        """Each row: verb ("GET"), template, and what is bound there. Raises ValueError for two in one place."""
        self.rows = sorted(rows, key=lambda row: (row[1].rank, row[1].text))
        places = [(verb, template.plain) for verb, template, _ in self.rows]
        if len(set(places)) < len(places):
            raise ValueError("two rows for one verb and path")
        self._by_room: dict[str, list[tuple[str, Template, T]]] = {}
        for row in self.rows:
            self._by_room.setdefault(_room(f"/{'/'.join(row[1].segments)}"), []).append(row)

    def find(self, path: str) -> dict[str, tuple[T, Mapping[str, str]]]:
        """By verb, all that is bound to a path (as it came, without its query), with the path's fields; {}: nothing.

        Only the templates that fit best count: "/v1/a:run" is the verb `run`, never the id "a:run". Raises BadPath.
        """
        found: dict[str, tuple[T, Mapping[str, str]]] = {}
        best: tuple[bool, bool, int] | None = None
        for verb, template, bound in self._by_room.get(_room(path), ()):
            if best is not None and template.rank != best:
                break
            fields = template.match(path)
            if fields is not None:
                best = template.rank
                found[verb] = (bound, fields)
        return found

    def nearest(self, path: str) -> str:
        """Another path, that was most likely meant, or ""."""
        return _nearest(path, (template for _, template, _ in self.rows))

    def nearest_verb(self, path: str, method: str) -> str:
        """The same, of a path that only has a colon more than one that fits: "/v1/jobs/j-1:dispath" may be an id's, or
        meant as a verb that HTTP's `method` goes with."""
        _, colon, verb = path.rpartition(":")
        if not colon or "/" in verb or any(template.verb == verb for _, template, _ in self.rows):
            return ""
        return _nearest(path, (template for bound, template, _ in self.rows if bound == method and template.verb))


def _nearest(path: str, templates: Iterable[Template]) -> str:
    path, known = path[:NEAREST_CHARS_MAX], dict[str, str]()
    words = path.split("/")
    for template in templates:
        segments = template.plain.split("/")
        named = [_filled(each, mine) for mine, each in zip(words, segments, strict=False)]
        known["/".join([*named, *segments[len(words) :]])] = template.plain
    known.pop(path, None)
    close = get_close_matches(path, known, n=1, cutoff=0.75)
    return known[close[0]] if close else ""


def _room(path: str) -> str:
    """The second segment, without a verb: whatever fits a template has it in common with that."""
    segments = path.split("/", 3)
    return _decoded(segments[2].partition(":")[0]) if len(segments) > 2 else ""


def _filled(segment: str, mine: str) -> str:
    """A template's segment with a path's in the place of its field."""
    verb = segment.rpartition("}")[2]
    return f"{mine.rpartition(':')[0] or mine if verb else mine}{verb}" if "{" in segment else segment


def _without_verb(text: str) -> tuple[str, str]:
    body, colon, verb = text.rpartition(":")
    return (body, verb) if colon and "/" not in verb and "}" not in verb else (text, "")


def _decoded(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode("utf-8") if "%" in segment else segment
    except UnicodeDecodeError as error:
        raise BadPath(f"{segment[:80]}: what is percent-encoded is no UTF-8") from error
