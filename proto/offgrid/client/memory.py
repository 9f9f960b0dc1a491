"""memory: what the node remembers of events, also of those that are gone.

client.memory.seen("j-5x3…").at_least
client.memory.count("energy.update", since_us=monday)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.events import etype_of
from offgrid.client.paging import pages
from offgrid.kinds import KIND
from offgrid.v1 import state_pb2

TRIES = 3  # where the node joins summaries in the middle of an answer
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on: how many `events` were looked at one by one, for how many a summary stood in their place
    (`summarised`), and how many were `recorded` ever. `unreadable`: sessions whose keys the node does not have."""

    events: int
    summarised: int
    recorded: int
    unreadable: int

    @property
    def forgotten(self) -> int:
        """What the answer knows nothing of: it was dropped with its summaries, or cannot be read."""
        return max(0, self.recorded - self.events - self.summarised)


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a key was seen: that many events have it, at least and at most. Where the node may be wrong in saying that
    there is one, `false_positive` is the chance that it would have said so of a key that was never there."""

    key: str
    sightings: tuple[state_pb2.Sighting, ...]
    at_least: int
    at_most: int
    false_positive: float
    basis: Basis


@dataclass(frozen=True, slots=True)
class Count:
    """That many there were, at least and at most; `cut`: of so many windows a part was asked for, and their events are
    gone."""

    at_least: int
    at_most: int
    cut: int
    basis: Basis

    @property
    def exact(self) -> bool:
        return self.at_least == self.at_most


class Memory:
    """MemoryService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def seen(self, key: str, *, session: str = "", since_us: int = 0, until_us: int = 0) -> Seen:
        """Whether events had this key, a name or an id: in the journal and in all sessions, or in one of these; times
        are microseconds since 1970, both inclusive."""

        def ask(token: str) -> state_pb2.AskKeyResponse:
            scope = state_pb2.AskScope(session=session, since_us=since_us, until_us=until_us, page_token=token)
            request = state_pb2.AskKeyRequest(scope=scope, key=key)
            return self._calls.unary("MemoryService/AskKey", request, state_pb2.AskKeyResponse)

        def whole() -> Seen:
            answers, missed = [*_answers(ask)], 1.0
            for each in answers:
                missed *= 1 - each.false_positive
            found = tuple(sighting for each in answers for sighting in each.sightings)
            at_least, at_most = sum(each.at_least for each in found), sum(each.at_most for each in found)
            return Seen(key, found, at_least, at_most, 1 - missed, _basis(each.basis for each in answers))

        return _again(whole)

    def count(self, what: str | int, *, session: str = "", since_us: int = 0, until_us: int = 0) -> Count:
        """How many events of a type of the journal's there were (JOB_CREATED, 14), or of a kind of sessions'
        (energy.update). Raises ValueError for what is neither."""
        etype, kind = etype_or_kind(what)

        def ask(token: str) -> state_pb2.AskCountResponse:
            scope = state_pb2.AskScope(session=session, since_us=since_us, until_us=until_us, page_token=token)
            request = state_pb2.AskCountRequest(scope=scope, etype=etype, kind=kind)
            return self._calls.unary("MemoryService/AskCount", request, state_pb2.AskCountResponse)

        def whole() -> Count:
            answers = [*_answers(ask)]
            at_least, at_most = sum(each.at_least for each in answers), sum(each.at_most for each in answers)
            return Count(at_least, at_most, sum(each.cut for each in answers), _basis(each.basis for each in answers))

        return _again(whole)

    def windows(self, *, session: str = "", limit: int | None = None) -> Iterator[state_pb2.Summary]:
        """The summaries of the journal, or of a session, oldest first."""

        def fetch(size: int, token: str) -> tuple[list[state_pb2.Summary], str]:
            request = state_pb2.ListSummariesRequest(session=session, page_size=size, page_token=token)
            page = self._calls.unary("MemoryService/ListSummaries", request, state_pb2.ListSummariesResponse)
            return [*page.summaries], page.next_page_token

        return pages(fetch, limit)


def etype_or_kind(what: str | int) -> tuple[int, str]:
    """One of the two is empty. Raises ValueError."""
    try:
        return etype_of(what), ""
    except ValueError:
        if not KIND.match(str(what)):
            raise
        return 0, str(what)


Answer = TypeVar("Answer", state_pb2.AskKeyResponse, state_pb2.AskCountResponse)


def _answers(ask: Callable[[str], Answer]) -> Iterator[Answer]:
    token = ""
    while True:
        answer = ask(token)
        yield answer
        token = answer.next_page_token
        if not token:
            return


def _again(whole: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return whole()
        except OffgridError as error:
            if error.reason != "SummariesMoved":
                raise
    return whole()


def _basis(several: Iterator[state_pb2.AskBasis]) -> Basis:
    found = [*several]
    return Basis(
        sum(each.events for each in found),
        sum(each.summarised for each in found),
        sum(each.recorded for each in found),
        sum(each.unreadable for each in found),
    )
