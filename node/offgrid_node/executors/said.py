"""What a program says on standard error while it runs: a log, and lines that tell how far it has come.

`::progress 0.42 text` on a line of its own is 42 percent, with the text as message; `::progress text` a message alone.
Such lines stay in the log as well.
"""

from __future__ import annotations

from offgrid_node.executors.executor import Progress
from offgrid_node.protocol.jobs.bounds import MESSAGE_CHARS_MAX

MARK = b"::progress "
OTHER = b"."  # stands for the beginning of a line that is none of ours
LINE_BYTES_MAX = 512  # what is longer is no such line


class ProgressLines:
    """Finds them in a stream that comes in pieces."""

    def __init__(self) -> None:
        self._begun = b""  # of the line that has not ended yet

    def feed(self, data: bytes) -> Progress | None:
        """The news of these bytes: the last of each kind."""
        whole = self._begun + data
        rest = whole[whole.rfind(b"\n") + 1 :]
        self._begun = rest if _may_be_ours(rest) else OTHER
        lines = whole.split(b"\n")[:-1] if MARK in whole else ()  # most of what is written has none
        fraction, message = None, ""
        for line in lines:
            found = parse(line) if line.startswith(MARK) else None
            if found is not None:
                fraction = found.fraction if found.fraction is not None else fraction
                message = found.message or message
        return Progress(fraction, message) if fraction is not None or message else None


def _may_be_ours(begun: bytes) -> bool:
    return (begun.startswith(MARK) or MARK.startswith(begun)) and len(begun) <= LINE_BYTES_MAX


def parse(line: bytes) -> Progress | None:
    """One line, without its end; None for what is none of ours."""
    if not line.startswith(MARK) or len(line) > LINE_BYTES_MAX:
        return None
    text = line[len(MARK) :].decode(errors="replace").strip()
    first, _, rest = text.partition(" ")
    try:
        fraction = float(first)
    except ValueError:
        return Progress(None, text[:MESSAGE_CHARS_MAX]) if text else None
    if not 0 <= fraction <= 1:  # and NaN
        return Progress(None, text[:MESSAGE_CHARS_MAX])
    return Progress(fraction, rest.strip()[:MESSAGE_CHARS_MAX])
