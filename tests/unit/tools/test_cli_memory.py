"""`offgrid memory`, and the client beneath it: answers of several pages, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli_run import Run
from small_node import SmallNode

import offgrid
from offgrid.command_line import exits
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import FailedPrecondition

AT_US = 1_790_000_000_000_000
SESSION = "s-234567abcdefghijklmnopqr"


class MemoryNode(SmallNode):
    """Its answers come in two pages."""

    def __init__(self) -> None:
        super().__init__()
        self.sightings = [
            state_pb2.Sighting(
                session_id=session, window_id="window_1790000000", oldest_us=AT_US, newest_us=AT_US + 5, first=1,
                last=9, at_least=at_least, at_most=3, exact=not session,
            )
            for session, at_least in (("", 3), (SESSION, 0))
        ]  # fmt: skip
        self.counts = [state_pb2.AskCountResponse(at_least=n, at_most=n + n % 2, cut=n % 2) for n in (40, 1)]

    def on_AskKey(self, request: state_pb2.AskKeyRequest) -> state_pb2.AskKeyResponse:  # noqa: N802 - as on the wire
        place = int(request.scope.page_token or 0)
        answer = state_pb2.AskKeyResponse(false_positive=0.5, next_page_token="1" if place == 0 else "")
        answer.sightings.extend(self.sightings[place : place + 1])
        answer.basis.CopyFrom(_basis(place))
        return answer

    def on_AskCount(self, request: state_pb2.AskCountRequest) -> state_pb2.AskCountResponse:  # noqa: N802 - likewise
        place = int(request.scope.page_token or 0)
        answer = self.counts[place]
        answer.next_page_token = "1" if place == 0 else ""
        answer.basis.CopyFrom(_basis(place))
        return answer

    def on_ListSummaries(self, request: state_pb2.ListSummariesRequest) -> state_pb2.ListSummariesResponse:  # noqa: N802
        summary = state_pb2.Summary(
            window_id="window_1790000000", first=1, last=9, count=9, oldest_us=AT_US, newest_us=AT_US + 5, keys=2,
            hitters={"j-1": 4, "j-\x1b[2J": 5}, types={"JOB_CREATED": 9}, bytes=1_200,
        )  # fmt: skip
        return state_pb2.ListSummariesResponse(summaries=[] if request.session else [summary])


def _basis(place: int) -> state_pb2.AskBasis:
    return state_pb2.AskBasis(events=10, summarised=20, recorded=31 + place, unreadable=place)


@pytest.fixture
def node() -> Iterator[MemoryNode]:
    running = MemoryNode()
    yield running
    running.close()


def test_a_key_that_was_seen(og: Run, node: MemoryNode) -> None:
    code, out, _ = og("memory", "ask", "--key", "j-1")
    assert code == exits.OK
    lines = out.splitlines()
    assert lines[0] == (
        "yes: 3 to 6 events have j-1, of 63 events, 20 looked at and 40 as summaries have them; "
        "3 are forgotten or cannot be read; of 1 session there is no key here"
    )
    assert lines[2].split()[:2] == ["journal", "window_1790000000"]
    assert lines[3].split()[-3:] == ["0", "to", "3"]


def test_a_key_that_may_have_been_seen_and_one_that_was_not(og: Run, node: MemoryNode) -> None:
    node.sightings = node.sightings[1:]
    code, out, _ = og("memory", "ask", "--key", "j-1")
    assert code == exits.OK
    assert out.startswith("very likely: up to 3 events have j-1")
    assert "of keys that never were, one of 1 would be taken" in out
    node.sightings = []
    assert og("memory", "ask", "--key", "j-\x1b[2J")[1].startswith("no: of 63 events")


def test_how_many_there_were(og: Run, node: MemoryNode) -> None:
    code, out, _ = og("memory", "ask", "--count", "JOB_CREATED", "--since", "2026-11-20", "--until", "2026-11-21")
    assert code == exits.OK
    assert out.startswith("41 to 42 of JOB_CREATED, of 63 events")
    assert "of 1 windows only a part was asked for" in out
    asked = node.calls["AskCount"][0]
    assert (asked.etype, asked.kind, asked.scope.until_us - asked.scope.since_us) == (14, "", 86_400_000_000)
    og("memory", "ask", "--count", "job_created")
    assert node.calls["AskCount"][-1].etype == 14
    og("memory", "ask", "--count", "energy.update", "--session", "run")
    assert (node.calls["AskCount"][-1].kind, node.calls["AskCount"][-1].scope.session) == ("energy.update", "run")


def test_for_scripts(og: Run, node: MemoryNode) -> None:
    seen = og.json("memory", "ask", "--key", "j-1")
    assert isinstance(seen, dict)
    assert (seen["at_least"], seen["at_most"], seen["false_positive"], len(seen["sightings"])) == (3, 6, 0.75, 2)
    assert seen["basis"] == {"events": 20, "summarised": 40, "recorded": 63, "forgotten": 3, "unreadable": 1}
    count = og.json("memory", "ask", "--count", "JOB_CREATED")
    assert isinstance(count, dict)
    assert (count["type"], count["at_least"], count["at_most"], count["cut"]) == ("JOB_CREATED", 41, 42, 1)
    windows = og.json("memory", "windows")
    assert isinstance(windows, dict)
    assert windows["windows"][0]["types"] == {"JOB_CREATED": 9}


def test_windows(og: Run, node: MemoryNode) -> None:
    code, out, _ = og("memory", "windows")
    assert code == exits.OK
    assert out.splitlines()[1].endswith("j-�[2J 5, j-1 4")
    assert og("memory", "windows", "--session", "run")[1] == "nothing is summarised yet\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "give --key or --count"),
        (("--key", "x", "--count", "JOB_CREATED"), "give --key or --count"),
        (("--count", "JOB_CRATED"), "is no event type, and no kind"),
        (("--count", "No kind"), "is no event type, and no kind"),
        (("--key", "x", "--since", "tomorrow"), "is no time"),
    ],
)
def test_what_is_no_question(og: Run, argv: tuple[str, ...], said: str) -> None:
    code, _, err = og("memory", "ask", *argv)
    assert code == exits.USAGE
    assert said in err


def test_an_answer_is_begun_anew_where_summaries_were_joined(node: MemoryNode) -> None:
    moved = FailedPrecondition("summaries were joined meanwhile: ask again", reason="SummariesMoved")
    with offgrid.connect(node.address) as client:
        node.stumble("AskCount", moved)
        assert client.memory.count("JOB_CREATED").at_least == 41
        assert not client.memory.count("JOB_CREATED").exact
        node.stumble("AskKey", moved, moved, moved)
        with pytest.raises(offgrid.OffgridError, match="ask again"):
            client.memory.seen("j-1")
