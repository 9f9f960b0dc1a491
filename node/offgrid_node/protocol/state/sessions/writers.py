"""Who has written how much into a session, so that what is sent again is recorded once, and what was dropped known."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.sessions.commands import AddBlock

WRITERS_MAX = 64  # of one session that are remembered; what others send again is recorded twice
COUNT_MAX = 1 << 53


def writer_for(row: state_pb2.SessionRow, command: AddBlock) -> state_pb2.WriterRow:
    """The newest is the last. One that is not known, but has sent before, was forgotten: it is taken at its word."""
    found = state_pb2.WriterRow(writer=command.writer)
    for place, known in enumerate(row.writers):
        if known.writer == command.writer:
            found.CopyFrom(known)
            del row.writers[place]
            break
    else:
        if len(row.writers) == WRITERS_MAX:
            del row.writers[0]
            row.forgot = True
        if command.sent and row.forgot:
            found.sent = command.sent
            for kind, number in command.dropped.items():
                found.dropped[kind] = number
    row.writers.append(found)
    return row.writers[-1]


def count(counts: MutableMapping[str, int], more: Mapping[str, int]) -> None:
    for kind, number in more.items():
        if number > 0:
            counts[kind] = min(counts[kind] + number, COUNT_MAX)
