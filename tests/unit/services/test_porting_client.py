"""Sessions to files and back as the client does it, and by the command, against a real node's handlers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.message import Message
from session_desk import START_US, Desk, event

from offgrid.client import porting, replaying
from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.replaying import replay_export
from offgrid.client.sessions import Sessions
from offgrid.exports.document import BadExport
from offgrid.exports.reading import Export
from offgrid.exports.writing import FORMS, ExportWriter
from offgrid.reducers import Recorded, SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS, SNAPSHOTS, block_key
from offgrid_node.services.router import snake
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.storage.store import Batch
from offgrid_tools.cli import run
from offgrid_tools.cli.settings import Settings

CHAT = {"type": "object", "properties": {"said": {"type": "string", "x-content": True}}, "required": ["said"]}
EVENTS = 10
real = replaying.recorded


class Killed(BaseException):
    """The process is gone."""


class DeskCalls:
    """Calls of the client that a desk answers. `left`: so many calls are carried out, then this process is killed,
    before the next one or, where it is `late`, behind it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.left, self.late, self.made = desk, -1, False, list[str]()

    def unary(self, method: str, request: Message, answer: type[Message], **more: Any) -> Any:
        if self.left == 0 and not self.late:
            raise Killed
        found = self._asked(method, request)
        assert isinstance(found, answer)
        if self.left == 0:
            raise Killed
        self.left -= 1
        return found

    def stream(self, method: str, request: Message, answer: type[Message], **more: Any) -> Iterator[Any]:
        yield from self._asked(method, request)

    def _asked(self, method: str, request: Message) -> Any:
        self.made.append(method.partition("/")[2])
        try:
            return self.desk.ask(snake(self.made[-1]), request)
        except Fault as fault:
            code = "INVALID_ARGUMENT" if isinstance(fault, InvalidRequest) else "FAILED_PRECONDITION"
            raise OffgridError(code, fault.reason, fault.message) from fault

    def sessions(self) -> Sessions:
        return Sessions(cast("Calls", self))


@pytest.fixture
def here() -> DeskCalls:
    """Raw content is stored here; a session of EVENTS events has ended."""
    desk = Desk()
    desk.privacy = Privacy(raw_content=True)
    desk.start()
    schema = json.dumps(CHAT).encode()
    desk.ask("register_kind", state_pb2.RegisterKindRequest(kind="chat.turn", schema=schema))
    desk.session()
    beats = [event(START_US + n, frame=n, uptime_s=n) for n in range(EVENTS - 1)]
    desk.record("run", *beats, event(START_US, kind="chat.turn", said="to be"), health_heartbeat=4)
    desk.ask("end_session", state_pb2.EndSessionRequest(session="run"))
    return DeskCalls(desk)


@pytest.fixture
def there() -> DeskCalls:
    return DeskCalls(Desk())


@pytest.fixture
def file(here: DeskCalls, tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    here.sessions().export("run", path)
    return path


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


def digest(calls: DeskCalls, session: str = "run") -> bytes:
    return calls.sessions().show(session).digest


def changed(file: Path, before: str, after: str) -> Path:
    """An export with its digest made anew, so that nothing but the change is wrong with it."""
    text = file.read_text()
    assert before in text
    lines = [json.loads(line) for line in text.replace(before, after).splitlines()]
    export = Export(io.BytesIO(json.dumps(lines[0]).encode()))
    with file.open("wb") as opened:
        writer = ExportWriter(opened, "json", export.head)
        for line in lines[1:-1]:
            writer.add(Recorded(**line))
        writer.end()
    return file


def shortened(calls: DeskCalls) -> str:
    """A session of six events, of which retention has dropped three; snapshots have two of them, four, and all."""
    desk, session = calls.desk, calls.desk.session("short")
    desk.record(session, *(event(START_US + n, uptime_s=n) for n in range(2)))
    desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    desk.record(session, event(START_US + 2, uptime_s=2), sent=2)
    desk.record(session, event(START_US + 3, uptime_s=3), sent=3)
    desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    desk.record(session, event(), event(), sent=4)
    desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    row = state_pb2.SessionRow.FromString(desk.store.get(SESSIONS, session.encode()) or b"")
    row.session.kept = 3
    gone: dict[tuple[str, bytes], bytes | None] = {(BLOCKS, block_key(session, first)): None for first in (1, 3)}
    gone[SESSIONS, session.encode()] = row.SerializeToString()
    desk.store.commit(Batch(writes=gone))
    return session


class TestAnImport:
    def test_comes_to_the_same_in_every_form(
        self, here: DeskCalls, there: DeskCalls, form: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "run"
        here.sessions().export("run", path, form=form)
        imported = there.sessions().import_export(path)
        there_is, here_is = imported.session, here.sessions().get("run")
        assert digest(there) == digest(here)
        for name in ("name", "started_us", "ended_us", "recorded", "newest_us", "kinds", "dropped", "lost"):
            assert getattr(there_is, name) == getattr(here_is, name), name
        times = [record.timestamp_us for record in here.sessions().records("run")]
        assert [record.timestamp_us for record in there.sessions().records("run")] == times
        assert there.sessions().replay("run").equal

    def test_of_an_empty_session_is_one(self, here: DeskCalls, there: DeskCalls, form: str, tmp_path: Path) -> None:
        here.desk.session("empty")
        here.sessions().export("empty", tmp_path / "empty", form=form)
        imported = there.sessions().import_export(tmp_path / "empty").session
        assert (imported.recorded, imported.origin.imported_us > 0) == (0, True)

    def test_of_any_form_is_the_same_session(self, here: DeskCalls, there: DeskCalls, tmp_path: Path) -> None:
        sessions = []
        for form in ("json", "yaml", "json"):
            here.sessions().export("run", tmp_path / form, form=form)
            sessions.append(there.sessions().import_export(tmp_path / form))
        assert [each.known for each in sessions] == [False, True, True]
        assert {each.session.session_id for each in sessions} == {sessions[0].session.session_id}

    def test_may_go_into_the_node_that_it_comes_from(self, here: DeskCalls, file: Path) -> None:
        first = here.sessions().get("run").session_id
        imported = here.sessions().import_export(file).session
        assert imported.session_id != first
        assert [r.timestamp_us for r in here.sessions().records(first)] == [
            r.timestamp_us for r in here.sessions().records(imported.session_id)
        ]

    def test_is_whole_after_a_kill_at_any_moment(
        self, here: DeskCalls, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of whoever imports, and of the node: what was cut off goes on, and comes once."""
        monkeypatch.setattr(porting, "BATCH_EVENTS", 3)
        wanted = digest(here)
        calls = DeskCalls(Desk())
        calls.sessions().import_export(file)
        moments = len(calls.made)
        assert calls.made == ["ListKinds", "RegisterKind", "BeginImport", *["ImportEvents"] * 4, "EndImport"]
        for moment in range(moments):
            for late in (False, True):
                calls = DeskCalls(Desk())
                calls.left, calls.late = moment, late
                with pytest.raises(Killed):
                    calls.sessions().import_export(file)
                for session in calls.desk.ask("list_sessions", state_pb2.ListSessionsRequest()).sessions:
                    whole = moment == moments - 1 and late
                    assert bool(session.origin.imported_us) == whole, "half is never taken for whole"
                calls.desk.start()
                calls.left = -1
                calls.sessions().import_export(file)
                listed = calls.desk.ask("list_sessions", state_pb2.ListSessionsRequest()).sessions
                assert [session.recorded for session in listed] == [EVENTS]
                assert digest(calls) == wanted

    def test_of_a_file_that_is_changed_meanwhile_is_no_session(
        self, there: DeskCalls, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Changing(Export):
            """Says at the end of the second reading that it was another file."""

            def events(self, *more: Any) -> Iterator[Recorded]:
                yield from super().events(*more)
                assert self.tail is not None
                if "BeginImport" in there.made:
                    self.tail = type(self.tail)(self.tail.events, self.tail.state, "another")

        monkeypatch.setattr(porting, "Export", Changing)
        with pytest.raises(BadExport, match="changed while it was read"):
            there.sessions().import_export(file)
        assert there.made[-1] == "ImportEvents"

    def test_tells_the_node_nothing_of_a_file_that_is_wrong(self, there: DeskCalls, file: Path) -> None:
        whole = file.read_bytes()
        file.write_bytes(whole[:-30])
        with pytest.raises(BadExport, match="cut off"):
            there.sessions().import_export(file)
        file.write_bytes(whole)
        changed(file, '"uptime_s":3', '"status":"fine"')
        with pytest.raises(BadExport, match=r"event 4: health\.heartbeat: /status: "):
            there.sessions().import_export(file)
        assert {*there.made} == {"ListKinds"}

    def test_takes_the_schemas_that_the_node_lacks(self, there: DeskCalls, file: Path) -> None:
        there.sessions().import_export(file)
        (known,) = [kind for kind in there.sessions().kinds().kinds if kind.kind == "chat.turn"]
        assert json.loads(known.schema) == CHAT

    def test_goes_by_the_schemas_that_the_node_has(self, there: DeskCalls, file: Path) -> None:
        there.sessions().register_kind("chat.turn", {"type": "object", "required": ["other"]})
        with pytest.raises(BadExport, match=f"event {EVENTS}: chat.turn: the event: "):
            there.sessions().import_export(file)

    def test_needs_a_schema_for_each_kind(self, there: DeskCalls, file: Path) -> None:
        changed(file, '"kind":"chat.turn"', '"kind":"no.schema"')
        with pytest.raises(BadExport, match=r"no\.schema: /kind: not known here"):
            there.sessions().import_export(file)

    def test_of_a_session_whose_first_events_are_gone_comes_to_the_same(
        self, here: DeskCalls, there: DeskCalls, form: str, tmp_path: Path
    ) -> None:
        session = shortened(here)
        path = tmp_path / "short"
        head, tail = here.sessions().export("short", path, form=form)
        assert (head.first, head.events, [base.number for base in head.bases]) == (4, 3, [4])
        assert bytes.fromhex(tail.state.digest) == digest(here, session)
        imported = there.sessions().import_export(path).session
        assert (imported.recorded, imported.kept, imported.lost) == (6, 3, 0)
        there.desk.start()
        assert digest(there, "short") == digest(here, session)
        assert [record.number for record in there.sessions().records("short")] == [4, 5, 6]
        assert "events before 4 are gone" in there.sessions().replay("short").why
        head, again = there.sessions().export("short", tmp_path / "again", form=form)
        assert (head.first, head.events, again.state) == (4, 3, tail.state)
        with path.open("rb") as opened:
            assert replay_export(opened, "", 0, 0, lambda event: None).equal
        with path.open("rb") as opened:
            some = replay_export(opened, "", 5, 0, lambda event: None)
        assert bytes.fromhex(some.digest) == here.sessions().show(session, number=5).digest
        with path.open("rb") as opened, pytest.raises(OffgridError, match="up to event 0 is not in the export"):
            replay_export(opened, "", 3, 0, lambda event: None)

    def test_that_does_not_say_what_came_before_its_first_event_is_refused(
        self, here: DeskCalls, there: DeskCalls, tmp_path: Path
    ) -> None:
        shortened(here)
        here.desk.store.commit(Batch(writes={(SNAPSHOTS, key): None for key, _ in here.desk.store.scan(SNAPSHOTS)}))
        here.sessions().export("short", tmp_path / "short")
        with pytest.raises(BadExport, match="begins at event 4, and does not say"):
            there.sessions().import_export(tmp_path / "short")

    def test_hashes_content_where_the_node_does(self, here: DeskCalls, there: DeskCalls, tmp_path: Path) -> None:
        here.sessions().export("run", tmp_path / "raw", content=True)
        assert "to be" in (tmp_path / "raw").read_text()
        imported = there.sessions().import_export(tmp_path / "raw").session
        (turn,) = there.sessions().records("run", kinds=["chat.turn"])
        assert (imported.origin.hashed, json.loads(turn.data)["said"][:12]) == (True, "blake2b-256:")
        there.desk.privacy = Privacy(raw_content=True)
        there.desk.start()
        here.sessions().export("run", tmp_path / "raw2", content=True)
        other = DeskCalls(Desk())
        other.desk.privacy = Privacy(raw_content=True)
        other.desk.start()
        assert not other.sessions().import_export(tmp_path / "raw2").session.origin.hashed
        (turn,) = other.sessions().records("run", kinds=["chat.turn"])
        assert json.loads(turn.data)["said"] == "to be"


class TestAnExport:
    def test_leaves_content_out_unless_it_is_asked_for(self, here: DeskCalls, file: Path) -> None:
        assert "to be" not in file.read_text()
        assert json.loads(file.read_text().splitlines()[0])["content"] == "hashed"

    def test_that_fails_leaves_nothing(self, here: DeskCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        streamed = DeskCalls.stream

        def shorter(self: DeskCalls, *asked: Any, **more: Any) -> Iterator[Any]:
            yield from [*streamed(self, *asked, **more)][:-1]

        monkeypatch.setattr(DeskCalls, "stream", shorter)
        with pytest.raises(OffgridError, match="came no further than 0"):
            here.sessions().export("run", tmp_path / "run")
        assert [*tmp_path.iterdir()] == []

    def test_takes_no_events_in_another_order(
        self, here: DeskCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = here.desk.session("two")
        here.desk.record(session, event())
        here.desk.record(session, event(), sent=1)
        streamed = DeskCalls.stream

        def turned(self: DeskCalls, *asked: Any, **more: Any) -> Iterator[Any]:
            head, *parts = streamed(self, *asked, **more)
            yield from (head, *reversed(parts))

        monkeypatch.setattr(DeskCalls, "stream", turned)
        with pytest.raises(OffgridError, match="came no further than 0"):
            here.sessions().export("two", tmp_path / "two")

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
    def test_is_its_owners_alone(self, file: Path) -> None:
        assert file.stat().st_mode & 0o777 == 0o600

    def test_knows_its_forms_before_anything_is_asked(self, here: DeskCalls, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="'xml' is no form of an export; there are json, yaml, parquet"):
            here.sessions().export("run", tmp_path / "run", form="xml")
        assert here.made == []


class TestAReplay:
    def test_of_some_events_is_what_the_node_shows_of_them(self, here: DeskCalls) -> None:
        replayed = here.sessions().replay("run", number=4)
        assert (replayed.number, replayed.equal) == (4, True)
        assert json.loads(replayed.state)["events"] == 4
        at_us = here.desk.clock.now_us
        assert here.sessions().replay("run", at_us=at_us).equal
        nothing = here.sessions().replay("run", at_us=START_US - 1)
        assert (nothing.number, nothing.equal) == (0, True)

    def test_says_where_the_node_keeps_something_else(self, here: DeskCalls) -> None:
        here.sessions().show("run")
        (live,) = here.desk.handlers._folding._live.values()
        live.state["events"] += 1
        assert here.sessions().replay("run").equal is False

    def test_of_what_is_left_is_compared_with_nothing(self, here: DeskCalls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replaying, "recorded", lambda *asked: (r for r in real(*asked) if r.number > 3))
        replayed = here.sessions().replay("run")
        assert (replayed.number, replayed.equal) == (EVENTS, None)
        assert "events before 4 are gone" in replayed.why

    def test_by_another_version_of_the_reducer_is_compared_with_nothing(
        self, here: DeskCalls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Newer(SessionReducer):
            version = 2

        monkeypatch.setattr(replaying, "load_reducers", lambda: ({"session": Newer()}, []))
        replayed = here.sessions().replay("run")
        assert (replayed.equal, "here is version 2" in replayed.why) == (None, True)

    def test_names_the_event_at_which_a_reducer_fails(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing(SessionReducer):
            def apply(self, state: dict[str, Any], event: Recorded) -> dict[str, Any]:
                raise ZeroDivisionError

        monkeypatch.setattr(replaying, "load_reducers", lambda: ({"session": Failing()}, []))
        with file.open("rb") as opened, pytest.raises(OffgridError, match=r"\(version 1\) fails at event 1: ZeroDiv"):
            replay_export(opened, "", 0, 0, lambda event: None)

    def test_of_an_export_needs_no_node(self, here: DeskCalls, file: Path) -> None:
        with file.open("rb") as opened:
            whole = replay_export(opened, "", 0, 0, lambda event: None)
        assert (bytes.fromhex(whole.digest), whole.equal) == (digest(here), True)
        with file.open("rb") as opened:
            some = replay_export(opened, "", 0, START_US + 2, lambda event: None)
        assert (some.number, some.equal, "some of them" in some.why) == (3, None, True)

    def test_of_an_export_that_says_something_else_is_not_equal(self, file: Path) -> None:
        export = Export(io.BytesIO(file.read_bytes()))
        events = [*export.events()]
        with file.open("wb") as opened:
            writer = ExportWriter(opened, "json", export.head)
            for each in events:
                writer.add(each)
            writer._fold._state["events"] += 1
            writer.end()
        with file.open("rb") as opened:
            assert replay_export(opened, "", 0, 0, lambda event: None).equal is False

    def test_names_the_reducers_that_there_are(self, file: Path) -> None:
        with file.open("rb") as opened, pytest.raises(OffgridError, match=r"'other' is not .*there are session"):
            replay_export(opened, "other", 0, 0, lambda event: None)


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def _connected(self, here: DeskCalls, monkeypatch: pytest.MonkeyPatch) -> None:
        class Client:
            sessions = here.sessions()

        monkeypatch.setattr(Settings, "connect", lambda self: Client())

    def said(self, capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[Any]]:
        code = run(["--json", "state", *map(str, words)])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def test_validates_sessions_by_the_schemas_of_a_folder(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert self.said(capsys, "validate")[0] == 0
        rule = {"type": "object", "properties": {"uptime_s": {"maximum": 7}}}
        (tmp_path / "health.heartbeat.json").write_text(json.dumps(rule))
        code, (wrong, summary) = self.said(capsys, "validate", "run", "--schema-path", tmp_path)
        assert (code, summary["wrong"], summary["events"]) == (1, 1, EVENTS)
        assert (wrong["rejected"]["number"], wrong["rejected"]["path"]) == (9, "/uptime_s")
        assert "maximum of 7" in wrong["rejected"]["rule"]

    def test_validates_an_export(self, capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
        assert self.said(capsys, "validate", file)[0] == 0
        folder = tmp_path / "schemas"
        folder.mkdir()
        assert run(["state", "validate", str(file), "--schema-path", str(folder)]) == 2
        assert "no file KIND.json" in capsys.readouterr().err
        (folder / "chat.turn.json").write_text('{"type": "nothing"}')
        assert run(["state", "validate", str(file), "--schema-path", str(folder)]) == 2
        assert "chat.turn" in capsys.readouterr().err
        file.write_bytes(file.read_bytes()[:-9])
        assert run(["state", "validate", str(file)]) == 2
        assert "cut off" in capsys.readouterr().err

    def test_goes_on_with_the_next_session_where_one_cannot_be_read(
        self, here: DeskCalls, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lost = here.desk.session("lost")
        here.desk.keys.drop([lost])
        code, (unreadable, other) = self.said(capsys, "validate")
        assert (code, unreadable["session_id"], other["wrong"]) == (1, lost, 0)

    def test_replays_and_says_by_its_code_whether_it_is_the_same(
        self, here: DeskCalls, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, (*records, replayed) = self.said(capsys, "replay", "run", "--verbose")
        assert (code, len(records), replayed["equal"]) == (0, EVENTS, True)
        code, (replayed,) = self.said(capsys, "replay", "--from-export", file, "--until", "3")
        assert (code, replayed["number"], replayed["equal"]) == (0, 3, None)
        here.sessions().show("run")
        (live,) = here.desk.handlers._folding._live.values()
        live.state["events"] += 1
        assert self.said(capsys, "replay", "run")[0] == 1
        assert run(["state", "replay"]) == 2
        assert run(["state", "replay", "run", "--until", "soon"]) == 2
        assert "no number and no time" in capsys.readouterr().err

    def test_exports_into_a_pipe(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert run(["state", "export", "run", "-"]) == 0
        assert [*Export(io.BytesIO(capfdbinary.readouterr().out)).events()][-1].number == EVENTS

    def test_says_how_parquet_is_installed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        assert run(["state", "export", "run", str(tmp_path / "x"), "--format", "parquet"]) == 2
        assert "pip install 'offgrid-node[parquet]'" in capsys.readouterr().err
