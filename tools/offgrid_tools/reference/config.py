"""docs/reference/config.md: every key of offgrid.toml, from the tree that loads it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from offgrid_node.config.env import SHORT_NAMES, long_name
from offgrid_node.config.explain import allowed, shape
from offgrid_node.config.init_file import default_text
from offgrid_node.config.sections import Section, row_section_of, section_of
from offgrid_node.config.tree import Config, Keys, is_reserved

HEAD = """# Configuration

Every key of `offgrid.toml`, as `offgrid-node init` writes it, commented, for a node. `offgrid-node config check FILE`
says every problem of a file at once, with line and column.

Stronger than the file are a file named `.env` beside it and, above both, the environment: the name beside each key sets
it. Integers are written as such, booleans as `true` or `false` (also 1/0, yes/no, on/off), lists with commas between,
tables as `name=value,name=value`. A name `OFFGRID_…` that sets nothing is refused. Relative paths start at the folder
of `offgrid.toml`. Keys that are marked as reserved are checked, and nothing in this version reads them.
"""


def text() -> str:
    return "\n".join([HEAD, *_section(Config, ())]) + "\n"


def _section(section: type[Section], path: Keys) -> Iterator[str]:
    inner: list[tuple[str, type[Section]]] = []
    for name, info in section.model_fields.items():
        if below := section_of(info):
            inner.append((name, below))
        else:
            yield from _key((*path, name), info)
    for name, below in inner:
        yield from (f"## [{'.'.join((*path, name))}]", "", " ".join((below.__doc__ or "").split()), "")
        yield from _section(below, (*path, name))


def _key(path: Keys, info: FieldInfo) -> Iterator[str]:
    name = ".".join(path)
    reserved = " Reserved." if is_reserved(info) else ""
    variables = [long_name(path), *(short for short, of in SHORT_NAMES.items() if of == path)]
    yield from (f"### {name}", "", f"{_sentence(info.description or '')}{reserved}", "")
    yield f"- {shape(info)}; default {_default(path, info)}; allowed: {allowed(info)}"
    yield f"- {', '.join(f'`{variable}`' for variable in variables)}"
    yield ""
    if rows := row_section_of(info):
        yield from (f"Each row of `[[{name}]]`:", "", "| key | default | allowed | what it is |", "|---|---|---|---|")
        for key, of in rows.model_fields.items():
            yield f"| `{key}` | {_default((key,), of)} | {_cell(allowed(of))} | {_cell(of.description or '')} |"
        yield ""


def _default(path: Keys, info: FieldInfo) -> str:
    told = default_text(path, info)
    return told.text if told.computed else f"`{told.text}`"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
