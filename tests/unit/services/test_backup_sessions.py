"""Sessions of a backup come into a running node by their keys: those that it does not have, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from session_desk import START_US, Desk, event
from test_porting_client import DeskCalls, Killed

from offgrid.backup.container import BackupReader, BackupWriter
from offgrid.client.restoring import Told, restore_sessions
from offgrid.v1 import state_pb2
from offgrid_node.backups.taking import Contents
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS, block_key
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.storage.store import Batch

READING = {"type": "object", "properties": {"celsius": {"type": "number"}}, "required": ["celsius"]}
EVENTS = 5


class Other:
    """A node with sessions `run` and `empty`, its backups, and the keys of its sessions."""

    def __init__(self, folder: Path) -> None:
        self.desk, self._folder = Desk(), folder
        self.desk.privacy = Privacy(raw_content=True)
        self.desk.start()
        schema = json.dumps(READING).encode()
        self.desk.ask("register_kind", state_pb2.RegisterKindRequest(kind="sensor.reading", schema=schema))
        self.run, self.empty = self.desk.session("run"), self.desk.session("empty")
        readings = [event(START_US + n, "sensor.reading", n, celsius=n / 2) for n in range(EVENTS)]
        self.desk.record(self.run, *readings[:2])
        self.desk.record(self.run, *readings[2:], sent=2)

    @property
    def keys(self) -> dict[str, bytes]:
        return {name: self.desk.keys.get(name) or b"" for name in self.desk.keys}

    def backup(self) -> BackupReader:
        contents = Contents(self.desk.store)
        path = self._folder / "backup"
        with path.open("wb") as file, BackupWriter(file) as writer:
            for segment in contents.segments():
                writer.add(segment)
            writer.finish(
                node_id="node-0", node="attic", mesh="home", life=0, made_us=1, made_by="0.1", rows=contents.rows,
                journal_floor=self.desk.store.journal_floor, journal_seq=self.desk.store.journal_seq,
            )  # fmt: skip
        reader = BackupReader.open(path)
        reader.check()
        return reader


@pytest.fixture
def other(tmp_path: Path) -> Other:
    return Other(tmp_path)


@pytest.fixture
def here() -> DeskCalls:
    """Another node, which runs; its ids are others'."""
    desk = Desk()
    desk.clock.now_us += 1_000_000_000
    return DeskCalls(desk)


def restored(
    here: DeskCalls, other: Other, keys: Mapping[str, bytes] | None = None, **asked: object
) -> dict[str, Told]:
    with other.backup() as reader:
        told = [*restore_sessions(here.sessions(), reader, other.keys if keys is None else keys, **asked)]  # type: ignore[arg-type]
    assert len({each.session.session_id for each in told}) == len(told)
    return {each.session.name: each for each in told}


def outcomes(told: Mapping[str, Told]) -> dict[str, str]:
    return {name: each.outcome for name, each in told.items()}


def test_what_the_node_does_not_have_comes_whole(here: DeskCalls, other: Other) -> None:
    told = restored(here, other)
    assert outcomes(told) == {"run": "restored", "empty": "empty"}
    records = here.desk.records(told["run"].made)
    assert [json.loads(record.data)["celsius"] for record in records] == [n / 2 for n in range(EVENTS)]
    assert [record.timestamp_us for record in records] == [START_US + n for n in range(EVENTS)]
    session = here.desk.ask("get_session", state_pb2.GetSessionRequest(session=told["run"].made)).session
    assert (session.name, session.origin.session_id, session.origin.node_id) == ("run", other.run, "node-0")


def test_what_came_before_the_first_event_that_is_kept_comes_as_its_state(here: DeskCalls, other: Other) -> None:
    other.desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=other.run))
    other.desk.runtime.ask("sessions", "test", DropOldest(4, 1_000_000))
    other.desk.runtime.turn()
    shown = other.desk.ask("show_state", state_pb2.ShowStateRequest(session=other.run))

    told = restored(here, other)["run"]

    assert (told.outcome, told.why) == ("restored", "")
    assert [record.number for record in here.desk.records(told.made)] == [3, 4, 5]
    assert here.desk.ask("show_state", state_pb2.ShowStateRequest(session=told.made)).digest == shown.digest


def test_a_snapshot_behind_which_events_are_missing_is_not_what_came_before(here: DeskCalls, other: Other) -> None:
    session = other.desk.session("long")
    for sent in range(4):
        other.desk.record(session, event(START_US + sent), sent=sent)
        other.desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    other.desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=other.run))
    other.desk.runtime.ask("sessions", "test", DropOldest(other.desk.store.journal_seq - 1, 1_000_000))
    other.desk.runtime.turn()
    shown = other.desk.ask("show_state", state_pb2.ShowStateRequest(session=session))

    told = restored(here, other)["long"]

    assert (told.outcome, told.why) == ("restored", "")
    assert [record.number for record in here.desk.records(told.made)] == [4]
    assert here.desk.ask("show_state", state_pb2.ShowStateRequest(session=told.made)).digest == shown.digest


def test_again_nothing_comes_twice(here: DeskCalls, other: Other) -> None:
    restored(here, other)
    assert outcomes(restored(here, other))["run"] == "here"


def test_the_node_of_the_backup_has_them(other: Other) -> None:
    assert outcomes(restored(DeskCalls(other.desk), other)) == {"run": "here", "empty": "here"}


def test_what_was_shredded_stays_so(here: DeskCalls, other: Other) -> None:
    made = restored(here, other)["run"].made
    here.desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[made]))
    assert outcomes(restored(here, other))["run"] == "purged"
    other.desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(all=True))
    assert set(outcomes(restored(DeskCalls(Desk()), other)).values()) == {"purged"}


def test_without_its_key_nobody_reads_it(here: DeskCalls, other: Other) -> None:
    assert outcomes(restored(here, other, keys={}))["run"] == "keyless"
    told = restored(here, other, keys={other.run: b"?" * 32})["run"]
    assert (told.outcome, "does not open" in told.why) == ("refused", True)


def test_a_dry_run_and_a_choice(here: DeskCalls, other: Other) -> None:
    assert outcomes(restored(here, other, dry_run=True))["run"] == "restored"
    assert outcomes(restored(here, other, only=[other.empty])) == {"empty": "empty"}
    assert outcomes(restored(here, other, only=["empty"])) == {"empty": "empty"}, "its name does as well"
    assert not [*here.sessions().list()]


def without_first(other: Other) -> None:
    other.desk.store.commit(Batch(writes={(BLOCKS, block_key(other.run, 1)): None}))


def without_last(other: Other) -> None:
    other.desk.store.commit(Batch(writes={(BLOCKS, block_key(other.run, 3)): None}))


def without_any(other: Other) -> None:
    without_first(other)
    without_last(other)


def of_more_events(other: Other) -> None:
    row = state_pb2.SessionRow.FromString(other.desk.store.get(SESSIONS, other.run.encode()) or b"")
    row.session.recorded, row.session.kept = 6, 6
    other.desk.store.commit(Batch(writes={(SESSIONS, other.run.encode()): row.SerializeToString()}))


@pytest.mark.parametrize("damage", [without_first, without_last, without_any, of_more_events])
def test_one_that_is_not_whole_in_the_backup_does_not_come(
    here: DeskCalls, other: Other, damage: Callable[[Other], None]
) -> None:
    damage(other)
    assert outcomes(restored(here, other))["run"] == "refused"
    assert not [each for each in here.sessions().list() if each.origin.imported_us]


@pytest.mark.parametrize("calls", range(6))
def test_whoever_is_killed_ends_it_by_the_same_command(here: DeskCalls, other: Other, calls: int) -> None:
    here.left = calls
    with pytest.raises(Killed):
        restored(here, other)
    here.left = -1
    told = restored(here, other)
    made = told["run"].made or next(each.session_id for each in here.sessions().list())
    assert [record.number for record in here.desk.records(made)] == [*range(1, EVENTS + 1)]
    assert len([*here.sessions().list()]) == 1
