"""What the executions of one redundant job say together: which result enough of them agree on, and who said otherwise.

Pure counting over job messages; `redundant.py` acts on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.table import ENDED

# How the work itself may end without a result; others may find the same.
VERDICTS = frozenset({"JobTimeout", "ExecutionFailed", "OutputTooLarge"})
DIGEST_SHOWN = 16  # hexadecimal digits


def vote_of(execution: jobs_pb2.Job) -> bytes:
    """What this execution says came of the work: its result's digest, or the name of a failure that is the work's own;
    empty while it is under way, and when it brought neither."""
    if execution.state not in ENDED:
        return b""
    if execution.result.HasField("receipt"):
        return ReceiptBody.decode(execution.result.receipt.body).result_digest
    return execution.error.encode() if execution.error in VERDICTS else b""


def has_result(execution: jobs_pb2.Job) -> bool:
    return execution.state in ENDED and execution.result.HasField("receipt")


def leading(executions: Iterable[jobs_pb2.Job]) -> tuple[bytes, int]:
    """The vote that most agree on, the earliest of equals, and how many they are; (b"", 0) without any."""
    votes = Counter(vote for each in executions if (vote := vote_of(each)))
    return votes.most_common(1)[0] if votes else (b"", 0)


def digest_of(execution: jobs_pb2.Job) -> bytes:
    """Of its result; empty while there is none."""
    return vote_of(execution) if has_result(execution) else b""


def shown(vote: bytes) -> str:
    """A vote for people."""
    return vote.decode() if vote.isalpha() and len(vote) < DIGEST_SHOWN else vote.hex()[:DIGEST_SHOWN]


def told(executions: Sequence[jobs_pb2.Job]) -> str:
    """Who said what, for people: one entry for each execution."""
    parts = []
    for each in executions:
        vote = vote_of(each)
        parts.append(f"{each.host or 'no host'}: {shown(vote) if vote else each.error or 'nothing'}")
    return "; ".join(parts)[:DETAIL_CHARS_MAX]
