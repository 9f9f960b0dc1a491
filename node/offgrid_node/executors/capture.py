"""Bounded standard output and standard error, and outcomes of work that did not run to its end."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.executors.executor import (
    LOG_BYTES_MAX,
    OUTPUT_BYTES_MAX,
    Outcome,
    OutputFile,
    Progress,
    Usage,
    say_nothing,
)
from offgrid_node.executors.said import ProgressLines

LOG_MARK = b"\n[log cut here]\n"
# The exit code of work that has none of its own.
NO_EXIT_CODE = -1
NOTHING_USED = Usage()


class Capture:
    """What a piece of work writes. Output beyond its bound ends the work; a log beyond its bound is cut and marked.

    `say` is told the log as it comes, up to its bound, and what its progress lines mean.
    """

    def __init__(self, say: Callable[[Progress], None] = say_nothing) -> None:
        self._say, self._lines = say, ProgressLines()
        self._output = bytearray()
        self._log = bytearray()
        self._log_cut = False

    def write_output(self, data: bytes) -> bool:
        """False when it no longer fits: the work must be stopped with OutputTooLarge."""
        if len(self._output) + len(data) > OUTPUT_BYTES_MAX:
            return False
        self._output += data
        return True

    def write_log(self, data: bytes) -> None:
        news = self._lines.feed(data) or Progress()
        said = self._add_to_log(data)
        if said or news.message or news.fraction is not None:
            self._say(Progress(news.fraction, news.message, said))

    def _add_to_log(self, data: bytes) -> bytes:
        """What of it is part of the log for good; so the mark at a cut is part of what is said."""
        if self._log_cut:
            return b""
        before = len(self._log)
        self._log += data
        if len(self._log) > LOG_BYTES_MAX:
            del self._log[max(before, LOG_BYTES_MAX - len(LOG_MARK)) :]
            self._log = self._log[: LOG_BYTES_MAX - len(LOG_MARK)] + LOG_MARK
            self._log_cut = True
        return bytes(self._log[before:])

    def ended(
        self, exit_code: int, executor: str, usage: Usage = NOTHING_USED, files: tuple[OutputFile, ...] = ()
    ) -> Outcome:
        """The work ran to its own end. To be said once: a large output is held but once from here on."""
        output = bytes(self._output)
        self._output.clear()
        return Outcome(output, bytes(self._log), exit_code, "", "", executor, usage, files)

    def failed(self, error: str, detail: str, executor: str, usage: Usage = NOTHING_USED) -> Outcome:
        """It did not: half an output is no output, the log is kept."""
        return Outcome(b"", bytes(self._log), NO_EXIT_CODE, error, detail, executor, usage)


def failed(error: str, detail: str, executor: str) -> Outcome:
    """The outcome of work that never started."""
    return Capture().failed(error, detail, executor)


def timeout_detail(timeout_ms: int) -> str:
    return f"it was stopped after its {timeout_ms} ms"


OUTPUT_DETAIL = f"it wrote more than {OUTPUT_BYTES_MAX} bytes to standard output"
