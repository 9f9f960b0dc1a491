"""PURE: the blocks of a Markdown page, and what the words of a fence mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from markdown_it import MarkdownIt

RUN = ("sh", "console", "python")
CHECKED = ("toml",)
SHOWN = ("text", "json", "ini", "sql", "yaml")
"""Not for a shell: output, files and what other programs are told."""
WHY, DIES = "not-run=", "dies="


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
    soak: bool = False
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
    machine, not_run, dies, flags = "", "", "", set()
    for word in words:
        if word.startswith(WHY):
            not_run = word.removeprefix(WHY)
        elif word.startswith(DIES) and word.removeprefix(DIES) in machines:
            dies = word.removeprefix(DIES)
        elif word in ("stream", "later", "soak"):
            flags.add(word)
        elif word in machines:
            machine = word
        else:
            raise BadBlock(f"{name}:{line}: {word!r} is no machine of this walk, nor stream, later, soak, {WHY}WHY")
    return Block(language, text, line, machine, "stream" in flags, "later" in flags, dies, "soak" in flags, not_run)
