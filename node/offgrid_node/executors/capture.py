"""Bounded standard output and standard error, and outcomes of work that did not run to its end."""

from __future__ import annotations

from offgrid_node.executors.executor import LOG_BYTES_MAX, OUTPUT_BYTES_MAX, Outcome

LOG_MARK = b"\n[log cut here]\n"
# The exit code of work that has none of its own.
NO_EXIT_CODE = -1


class Capture:
    """What a piece of work writes. Output beyond its bound ends the work; a log beyond its bound is cut and marked."""

    def __init__(self) -> None:
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
        if self._log_cut:
            return
        self._log += data
        if len(self._log) > LOG_BYTES_MAX:
            del self._log[LOG_BYTES_MAX - len(LOG_MARK) :]
            self._log += LOG_MARK
            self._log_cut = True

    def ended(self, exit_code: int, executor: str) -> Outcome:
        """The work ran to its own end. To be said once: a large output is held but once from here on."""
        output = bytes(self._output)
        self._output.clear()
        return Outcome(output, bytes(self._log), exit_code, "", "", executor)

    def failed(self, error: str, detail: str, executor: str) -> Outcome:
        """It did not: half an output is no output, the log is kept."""
        return Outcome(b"", bytes(self._log), NO_EXIT_CODE, error, detail, executor)


def failed(error: str, detail: str, executor: str) -> Outcome:
    """The outcome of work that never started."""
    return Capture().failed(error, detail, executor)


def timeout_detail(timeout_ms: int) -> str:
    return f"it was stopped after its {timeout_ms} ms"


OUTPUT_DETAIL = f"it wrote more than {OUTPUT_BYTES_MAX} bytes to standard output"
