"""What the exit codes mean, and which error ends in which. New codes may be added; these stay."""

from __future__ import annotations

OK, FAILED, USAGE, NOT_FOUND, REFUSED, UNAVAILABLE, EXHAUSTED, PENDING, INTERNAL = 0, 1, 2, 3, 4, 5, 6, 7, 10
INTERRUPTED = 130  # as a shell says of a process that SIGINT ended
PIPE_CLOSED = 141  # likewise SIGPIPE: whoever read our output has gone

MEANINGS = {
    OK: "done",
    FAILED: "the job or operation itself failed",
    USAGE: "the command line or a value in it is wrong",
    NOT_FOUND: "there is no such thing",
    REFUSED: "refused: not allowed, or not at this moment",
    UNAVAILABLE: "no node answers, or what it needs is away; try again",
    EXHAUSTED: "a limit was reached; try again later or send less",
    PENDING: "signed and on its way, but not final yet; do not send it again",
    INTERNAL: "a defect, of this command or of the node",
    INTERRUPTED: "interrupted (Ctrl-C)",
}

BY_CODE = {
    "INVALID_ARGUMENT": USAGE,
    "OUT_OF_RANGE": USAGE,
    "NOT_FOUND": NOT_FOUND,
    "PERMISSION_DENIED": REFUSED,
    "UNAUTHENTICATED": REFUSED,
    "FAILED_PRECONDITION": REFUSED,
    "ALREADY_EXISTS": REFUSED,
    "ABORTED": REFUSED,
    "UNAVAILABLE": UNAVAILABLE,
    "CANCELLED": UNAVAILABLE,
    "DEADLINE_EXCEEDED": UNAVAILABLE,
    "UNKNOWN": UNAVAILABLE,
    "RESOURCE_EXHAUSTED": EXHAUSTED,
    "INTERNAL": INTERNAL,
    "DATA_LOSS": INTERNAL,
    "UNIMPLEMENTED": INTERNAL,
}


def epilogue() -> str:
    """The table as `offgrid --help` shows it; \\b keeps click from filling the lines."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items())
