"""The two questions that memory is asked: was this key seen, and how many of these were there?"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.summaries.keyset import count, counted, false_positive
from offgrid_node.protocol.state.summaries.summary import Summary
from offgrid_node.protocol.state.summaries.tables import JOURNAL
from offgrid_node.protocol.state.summaries.windows import window_id
from offgrid_node.services.memory.asking import Seen


class KeyQuestion:
    """A summary that has not seen the key says so for sure. One that may have is believed where it has counted it."""

    journal = sessions = True

    def __init__(self, key: str) -> None:
        self._key, self._counted = key, counted(key)
        self.answer = state_pb2.AskKeyResponse()
        self._missed = 1.0  # the chance that no summary would be taken for one of the key's

    def of_summary(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> bool:
        if summary.hitters.error:  # else it has counted every key
            self._missed *= 1 - false_positive(count(summary.keys))
        return summary.bounds(self._key) == (0, 0)

    def of_events(self, scope: str, row: state_pb2.SummaryRow | None, events: Iterable[Seen]) -> None:
        found = [each for each in events if any(counted(key) == self._counted for key in each.facts.keys)]
        if not found:
            return
        times = [each.timestamp_us for each in found]
        self.answer.sightings.add(
            session_id=_session(scope),
            window_id=window_id(row.start_us) if row is not None else "",
            oldest_us=min(times),
            newest_us=max(times),
            first=found[0].number,
            last=found[-1].number,
            at_least=len(found),
            at_most=len(found),
            exact=True,
        )

    def without(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> None:
        at_least, at_most = summary.bounds(self._key)
        self.answer.sightings.add(
            session_id=_session(scope),
            window_id=window_id(row.start_us),
            oldest_us=row.oldest_us,
            newest_us=row.newest_us,
            first=row.first,
            last=row.last,
            at_least=at_least,
            at_most=at_most,
        )

    def done(self) -> state_pb2.AskKeyResponse:
        self.answer.false_positive = 1 - self._missed
        return self.answer


class CountQuestion:
    """A summary counts each type in full; only one of which a part is asked for is uncertain, if that type is in it."""

    def __init__(self, type_name: str, since_us: int, until_us: int, *, journal: bool) -> None:
        self._type, self._since_us, self._until_us = type_name, since_us, until_us
        self.journal, self.sessions = journal, not journal
        self.answer = state_pb2.AskCountResponse()

    def of_summary(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> bool:
        number = summary.types.get(self._type, 0)
        if number and not self._since_us <= row.oldest_us <= row.newest_us <= self._until_us:
            return False
        self._add(number, number)
        return True

    def of_events(self, scope: str, row: state_pb2.SummaryRow | None, events: Iterable[Seen]) -> None:
        number = sum(each.facts.type == self._type for each in events)
        self._add(number, number)

    def without(self, scope: str, row: state_pb2.SummaryRow, summary: Summary) -> None:
        self._add(0, summary.types[self._type])
        self.answer.cut += 1

    def done(self) -> state_pb2.AskCountResponse:
        return self.answer

    def _add(self, at_least: int, at_most: int) -> None:
        self.answer.at_least += at_least
        self.answer.at_most += at_most


def _session(scope: str) -> str:
    return "" if scope == JOURNAL else scope
