"""PURE: the blocks of a Markdown page, and what the words of a fence mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from markdown_it import MarkdownIt

RUN = ("sh", "console", "python")
CHECKED = ("toml", "link", "requirements")
"""Held against what reads them: lines of a configuration, descriptions of links, requirements of jobs."""
SHOWN = ("text", "json", "ini", "sql", "yaml")
"""Not for a shell: output, files and what other programs are told."""
FLAGS = ("stream", "later", "soak")
WHY, DIES, STOPS, ENDS = "not-run=", "dies=", "stops=", "ends="


class BadBlock(Exception):
    """A block that is neither run nor declared; says where and why."""


class Block(msgspec.Struct, frozen=True):
    """One fence. `line` is that of its opening, from 1."""

    language: str
    text: str
    line: int
    machine: str = ""
    stream: bool = False
    later: bool = False
    dies: str = ""
    stops: str = ""
    soak: bool = False
    ends: int = 0
    not_run: str = ""

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.not_run


def blocks_of(page: Path, machines: frozenset[str] = frozenset()) -> list[Block]:
    """The page's fences in their order. Raises BadBlock for one that says nothing of what it is."""
    return list(_parsed(page.read_text("utf-8"), page.name, machines))


def _parsed(text: str, name: str, machines: frozenset[str]) -> Iterator[Block]:
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "code_block":
            line = (token.map or [0])[0] + 1
            raise BadBlock(f"{name}:{line}: an indented block; commands stand in a fence that says what it is")
        if token.type == "fence":
            yield _block(token.info, token.content, (token.map or [0])[0] + 1, name, machines)


def _block(info: str, text: str, line: int, name: str, machines: frozenset[str]) -> Block:
    language, *words = info.split() or [""]
    if language not in (*RUN, *CHECKED, *SHOWN):
        known = ", ".join((*RUN, *CHECKED, *SHOWN))
        raise BadBlock(f"{name}:{line}: a block of {language or 'nothing'}; known are {known}")
    said: dict[str, str] = {}
    machine, flags = "", set()
    for word in words:
        begin, _, rest = word.partition("=")
        if f"{begin}=" == WHY or (f"{begin}=" in (DIES, STOPS) and rest in machines):
            said[f"{begin}="] = rest
        elif f"{begin}=" == ENDS and rest.isdecimal():
            said[ENDS] = rest
        elif word in FLAGS:
            flags.add(word)
        elif word in machines:
            machine = word
        else:
            raise BadBlock(f"{name}:{line}: {word!r} is no machine of this walk, nor {', '.join(FLAGS)}, {WHY}WHY")
    return Block(
        language,
        text,
        line,
        machine,
        dies=said.get(DIES, ""),
        stops=said.get(STOPS, ""),
        ends=int(said.get(ENDS, "0")),
        not_run=said.get(WHY, ""),
        **{flag: flag in flags for flag in FLAGS},
    )
