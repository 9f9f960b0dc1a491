"""docs/reference/log.md: every event that a node's log may have, from the calls that log it.

Each is `_log.LEVEL("a sentence that is always the same", extra=fields("event", fact=…))`, or its `fields` stand in the
name just before; whatever has another form is refused here, so that a line without an event cannot come in.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import offgrid_node
import offgrid_transports
from offgrid.event_types import EventType
from offgrid_node.event_log import LEVELS

HEAD = """# The log

The events of a node's log ([how it is written](../operations.md#the-log)), the worst first. With `node.log_format` =
`json` each is the field `event`, and facts are fields beside it; as text both stand behind the sentence. `why` says in
words what was wrong; `peer` is another node's id, `object`, `job` and `session` are ids, too. Events keep their names.

| event | level | what happened | facts |
|---|---|---|---|"""
JOURNAL = """
## Events of the journal

They are logged by their type ([events](events.md)), with `seq`, `subject` and what belongs to them: those below at
these levels, all others at `debug`. An alert is as bad as what it has become (critical `error`, warn `warning`, ok
`info`); a job that ended by its own fault (JobTimeout, ExecutionFailed, OutputTooLarge) is `info`.

| event | level | what happened |
|---|---|---|"""
_LOGGERS = frozenset({"_log", "logger"})
_CALLS = {"exception": "error"} | {name: name for name in ("error", "warning", "info", "debug")}
_ORDER = ("error", "warning", "info", "debug")
_BY_TYPE = "event_log.py"  # logs events of the journal by their type


class Logged(NamedTuple):
    """One event, as its calls have it."""

    event: str
    level: str
    sentence: str
    facts: tuple[str, ...]


def text() -> str:
    rows = sorted(logged(), key=lambda each: (_ORDER.index(each.level), each.event))
    return "\n".join([HEAD, *map(_line, rows), JOURNAL, *_journal()]) + "\n"


def logged() -> set[Logged]:
    """Raises ValueError, with the place, for a call of another form, and for an event that is logged in two ways."""
    found: dict[str, Logged] = {}
    for package in (offgrid_node, offgrid_transports):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            for each in logged_in(path.read_text("utf-8"), path.name):
                known = found.setdefault(each.event, each)
                if (known.level, known.sentence) != (each.level, each.sentence):
                    raise ValueError(f"{path}: {each.event} is logged as {each}, and elsewhere as {known}")
                found[each.event] = known._replace(facts=tuple(dict.fromkeys((*known.facts, *each.facts))))
    return set(found.values())


def logged_in(source: str, name: str) -> Iterator[Logged]:
    """Those of one file."""
    tree = ast.parse(source)
    named = {
        (node.targets[0].id, node.lineno): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
    }
    for call in ast.walk(tree):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=logger), attr=method)) if logger in _LOGGERS:
                if method in _CALLS:
                    yield _logged(call, _CALLS[method], named, f"{name}:{call.lineno}")
                elif method == "log" and name != _BY_TYPE:
                    raise ValueError(f"{name}:{call.lineno}: a level has to stand in the call")


def _logged(call: ast.Call, level: str, named: dict[tuple[str, int], ast.Call], where: str) -> Logged:
    extra = next((each.value for each in call.keywords if each.arg == "extra"), None)
    if isinstance(extra, ast.Name):
        before = max((line for name, line in named if name == extra.id and line < call.lineno), default=0)
        extra = named.get((extra.id, before))
    match call.args, extra:
        case [ast.Constant(value=str(sentence))], ast.Call(
            func=ast.Name(id="fields"), args=[ast.Constant(value=str(event))], keywords=facts
        ):
            return Logged(event, level, sentence, tuple(each.arg or "" for each in facts))
    raise ValueError(f'{where}: allowed is ("a constant sentence", extra=fields("event", fact=…))')


def _line(row: Logged) -> str:
    facts = ", ".join(f"`{fact}`" for fact in row.facts)
    return f"| `{row.event}` | {row.level} | {row.sentence} | {facts} |"


def _journal() -> Iterator[str]:
    for number, levels in sorted(LEVELS.items(), key=lambda each: (-each[1][0], each[0])):
        etype, names = EventType(number), ", ".join(logging.getLevelName(level).lower() for level in levels)
        yield f"| `{etype.name}` | {names} | {etype.meaning} |"
