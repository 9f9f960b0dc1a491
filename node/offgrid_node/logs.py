"""How a node's log looks: one line a record, as text or as JSON lines, on standard error; nothing is rotated here.

Levels mean: ERROR, a defect or damage, somebody must act; WARNING, the node goes on without something, look at it;
INFO, a change that an operator would want to read tomorrow; DEBUG, each step of each job and connection.

A record is a sentence that is always the same, and beside it an event, which programs go by, and facts:
`_log.warning("a coder is not used", extra=fields("coder_refused", why=sentence))`. docs/reference/log.md has them all,
made from these calls. journald gets each line's priority in front (sd-daemon(3)) and tells the time itself. What is
said again and again is let through so many times a minute, and then counted. Facts are bounded, and never secrets.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

Fields = Mapping[str, str | int | float]

BURST, WINDOW_S = 30, 60.0  # lines of one kind, of one logger, in so many seconds
KINDS_MAX = 512  # that are counted at a time; the one that was silent for longest goes
FACT_CHARS_MAX = 300  # of one text, whatever a peer wrote
PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


def fields(event: str, /, **facts: object) -> dict[str, Fields]:
    """What goes with a record beside its sentence: the `extra` of a logging call. Empty texts are left out; what is
    neither text nor a number, an error say, becomes text."""
    found = {name: fact if isinstance(fact, int | float) else str(fact) for name, fact in facts.items()}
    return {"fields": {"event": event, **{name: fact for name, fact in found.items() if fact != ""}}}


def set_up(
    level: str,
    form: str,
    stream: TextIO = sys.stderr,
    environ: Mapping[str, str] = os.environ,
    beside: Sequence[logging.Handler] = (),
) -> None:
    """The process's log from now on: `form` is "auto" (text, for journald where that reads), "text" or "json". What is
    `beside` gets the same as text, unless journald keeps it."""
    handler = logging.StreamHandler(stream)
    journal = form == "auto" and _is_journal(stream, environ.get("JOURNAL_STREAM", ""))
    handler.setFormatter(JsonLines() if form == "json" else JournalLines() if journal else TextLines())
    handler.addFilter(Repeats(time.monotonic))
    for other in beside:
        other.setFormatter(TextLines())
        other.addFilter(Repeats(time.monotonic))
    logging.basicConfig(level=level.upper(), handlers=[handler, *(() if journal else beside)])


def _is_journal(stream: TextIO, named: str) -> bool:
    """Whether the stream is the one that journald says it reads, by device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class TextLines(logging.Formatter):
    """`2026-11-23 03:20:01,123 WARNING offgrid_node.daemon: a coder is not used event=coder_refused why=…`; an event of
    the journal is its own sentence: `PEER_DEAD seq=7 subject=…`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        facts = {name: fact for name, fact in _facts(record).items() if name != "event" or fact != record.msg}
        return super().formatMessage(record) + _shown(facts)


class JournalLines(TextLines):
    """As text, with the priority in front of each line of it and no time."""

    def __init__(self) -> None:
        logging.Formatter.__init__(self, "%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class JsonLines(logging.Formatter):
    """One object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`; beside it `event` and the facts, which
    never take the place of these; a traceback is `exception`. What libraries say has no event."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, fact in _facts(record).items():
            line.setdefault(name, fact)
        if record.exc_info:
            line.setdefault("exception", self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class Repeats(logging.Filter):
    """Lets BURST records of a kind through in WINDOW_S, a kind being a logger, a level and a sentence without what was
    put into it; the next one after that says how many were left out."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, record.levelno, str(record.msg)[:FACT_CHARS_MAX]), self._clock()
        kind = self._kinds.setdefault(key, _Kind(now))
        self._kinds.move_to_end(key)
        if len(self._kinds) > KINDS_MAX:
            self._kinds.popitem(last=False)
        if not kind.let(now):
            return False
        if kind.left_out:
            record.fields = {**_facts(record), "left_out": kind.take_left_out()}
        return True


class _Kind:
    """How often one kind was said since `began`."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._said = self.left_out = 0

    def let(self, now: float) -> bool:
        if now - self._began >= WINDOW_S:
            self._began, self._said = now, 0
        self._said += 1
        if self._said > BURST:
            self.left_out += 1
            return False
        return True

    def take_left_out(self) -> int:
        found, self.left_out = self.left_out, 0
        return found


def _facts(record: logging.LogRecord) -> Fields:
    found = getattr(record, "fields", None)
    return {name: _bounded(fact) for name, fact in found.items()} if isinstance(found, Mapping) else {}


def _bounded(fact: str | float) -> str | float:
    return f"{fact[:FACT_CHARS_MAX]}…" if isinstance(fact, str) and len(fact) > FACT_CHARS_MAX else fact


def _shown(facts: Fields) -> str:
    """key=value pairs; a text that would break the line, or look like two, is quoted."""
    return "".join(f" {name}={_value(fact)}" for name, fact in facts.items())


def _value(fact: str | float) -> str:
    text = str(fact)
    return repr(text) if not text.isprintable() or " " in text else text
