"""A node with something to lose, as its own code leaves it on the disk, three times of one life; and every right answer
of it, which is what those who damage it compare with.

stopped   in order, all in the store's own file
direct    likewise, and what it did last went past the redo log, since it made a table
killed    a moment later, with what came last in the redo log alone

Beside them lie a backup of the first, the keys of its sessions wrapped for a recovery key, the store's file as it was
long before, and what the backup gives where all else is lost.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.message import Message

from offgrid.backup.recovery import Secret, public_of
from offgrid.backup.wrapped import WRAPPED_KEYS, wrap_keys
from offgrid.pieces import Piece
from offgrid.v1 import jobs_pb2, ledger_pb2, objects_pb2, state_pb2
from offgrid_node.backups.taking import Facts, take_backup
from offgrid_node.founding import found
from offgrid_node.protocol.errors import Fault
from offgrid_node.restoring_backup import restore_backup
from offgrid_node.storage.copying import copy_store
from offgrid_node.storage.store import Store
from offgrid_tools.soak.standing import BEGAN_US, StandingNode

STOPPED, DIRECT, KILLED = "stopped", "direct", "killed"
STATES = (STOPPED, DIRECT, KILLED)
BACKUP, EARLIER, KEY = "backup.zip", "earlier.mdb", "node.key"
SECRET = Secret(key=b"recovery secret of a damaged one")
ROLES = ("core", "host")
SESSIONS, PORTIONS, EVENTS = 3, 4, 25  # events in each portion
HOUR_MS = 3_600_000
WRITER = b"writer-1"
SCHEMA = b'{"type": "object", "properties": {"lux": {"type": "number"}}}'

Answers = dict[str, str]
"""By question; as text, so that two can be compared and shown."""
Rows = dict[str, list[tuple[bytes, bytes]]]


class Known(msgspec.Struct, frozen=True):
    """The right answers, those once it has gone on (`go_on`), each row of each table, and each event."""

    answers: Answers
    later: Answers
    rows: Rows
    events: list[bytes]


class Sample(msgspec.Struct, frozen=True):
    """`states`: what a node in that state is to say; `restored`: what one does that came back from the backup, and its
    keys, which were `whole`."""

    home: Path
    states: Mapping[str, Known]
    restored: Answers
    whole: list[bytes]

    def folder(self, state: str) -> Path:
        return self.home / state

    def copies(self) -> list[bytes]:
        """What a node comes back from, as it is now."""
        return _copies(self.home)


def make_sample(home: Path) -> Sample:
    """In an empty folder; a second or two."""
    life = home / "life"
    found(life, "home", "attic", ROLES, {})
    node = StandingNode(life)
    data = node.config.storage.memory_db
    _live(node)
    node.stop()
    shutil.copy(data / "data.mdb", home / EARLIER)
    node = StandingNode(life, BEGAN_US + 48 * HOUR_MS * 1_000)
    _live_on(node)
    keys, (backup, wrapped) = node.keys.all(), (home / BACKUP, home / WRAPPED_KEYS)
    node.stop()
    _copy(life, home / STOPPED)
    node = StandingNode(life, BEGAN_US + 49 * HOUR_MS * 1_000)
    schedule(node)
    node.stop()
    _copy(life, home / DIRECT)
    node = StandingNode(life, BEGAN_US + 50 * HOUR_MS * 1_000)
    record(node, "run 2", PORTIONS + 1)
    put(node, "last", 400)
    _copy(life, home / KILLED)
    node.stop()
    shutil.copy(life / "keys" / KEY, home / KEY)

    config = node.config
    copy = copy_store(_store_of(home / STOPPED))
    facts = Facts(node.node.node_id, config.node.name, config.mesh.name, BEGAN_US, "soak")
    take_backup(copy, backup, facts, None, lambda doing, done, total: None)
    shutil.rmtree(copy)
    wrapped.write_bytes(wrap_keys(keys, public_of(SECRET.key)))
    shutil.rmtree(life)

    states = {state: _known(home / state, home / "look") for state in STATES}
    came_back = restored_in(home, home / "look")
    shutil.rmtree(home / "look")
    return Sample(home, states, came_back, _copies(home))


def _copies(home: Path) -> list[bytes]:
    return [(home / name).read_bytes() for name in (BACKUP, WRAPPED_KEYS, KEY)]


def restored_in(home: Path, place: Path) -> Answers:
    """What a node says that comes back from the backup, in a folder of its own. Raises Fault."""
    from offgrid_node.keys import NodeKey

    key = NodeKey.read(home / KEY)
    shutil.rmtree(place, ignore_errors=True)
    restore_backup(place, home / BACKUP, key, ROLES, {}, secret=SECRET)
    node = StandingNode(place, BEGAN_US + 60 * HOUR_MS * 1_000)
    try:
        return answers_of(node)
    finally:
        node.stop()


def _store_of(folder: Path) -> Path:
    return folder / "data" / "memory.db"


def _copy(life: Path, target: Path) -> None:
    shutil.copytree(life, target, ignore=shutil.ignore_patterns("lock.mdb", "owner.*"))


def _known(folder: Path, look: Path) -> Known:
    shutil.rmtree(look, ignore_errors=True)
    shutil.copytree(folder, look)
    node = begin(look)
    try:
        rows, events = rows_of(node.store), [event for _, event in node.store.events()]
        first, second = answers_of(node), answers_of(node)
    finally:
        node.stop()
    changing = [question for question in first if first[question] != second[question]]
    refused = [answer for answer in first.values() if answer.startswith("!") and not answer.startswith("!NotFound")]
    if changing or refused:
        raise AssertionError(f"the sample is of no use: {changing or refused}")
    return Known(first, later_of(look), rows, events)


def later_of(folder: Path) -> Answers:
    """What it says once it has gone on and has begun again. Raises Fault."""
    node = begin(folder)
    try:
        go_on(node)
    finally:
        node.stop()
    node = begin(folder)
    try:
        return {question: answer for question, answer in answers_of(node).items() if question not in CHANCY}
    finally:
        node.stop()


def begin(folder: Path) -> StandingNode:
    """Whenever it is begun, it is the same moment. Raises Fault."""
    return StandingNode(folder, BEGAN_US + 60 * HOUR_MS * 1_000)


def rows_of(store: Store) -> Rows:
    return {table: list(store.scan(table)) for table in sorted(store.tables)}


# ---- its life


def _live(node: StandingNode) -> None:
    node.wait(5_000)
    node.ask("SessionService/RegisterKind", state_pb2.RegisterKindRequest(kind="light.seen", schema=SCHEMA))
    mission = node.ask("JobService/CreateMission", jobs_pb2.CreateMissionRequest(title="look after the house"))
    task = jobs_pb2.CreateTaskRequest(mission_id=mission.mission.mission_id, name="attic", kind="compute")
    node.ask("JobService/CreateTask", task)
    for number in range(SESSIONS):
        node.ask("SessionService/StartSession", state_pb2.StartSessionRequest(name=f"run {number}"))
        for portion in range(PORTIONS):
            record(node, f"run {number}", portion)
            node.wait(HOUR_MS // 10)
    put(node, "small", 500)
    put(node, "middling", 50_000)
    node.ask("LedgerService/OpenLedger", ledger_pb2.OpenLedgerRequest())
    pay(node, 1)


def _live_on(node: StandingNode) -> None:
    for number in range(SESSIONS):
        request = state_pb2.TakeSnapshotRequest(session=f"run {number}")
        node.ask("SessionService/TakeSnapshot", request)
    node.ask("SessionService/EndSession", state_pb2.EndSessionRequest(session="run 0"))
    node.ask("SessionService/PinSession", state_pb2.PinSessionRequest(session="run 1", pinned=True))
    node.node.memory.compacting.compact_now()
    node.wait(HOUR_MS)
    node.ask("SessionService/StartSession", state_pb2.StartSessionRequest(name="shredded"))
    record(node, "shredded", 0)
    node.ask("SessionService/PurgeSessions", state_pb2.PurgeSessionsRequest(sessions=["shredded"]))
    record(node, "run 2", PORTIONS)
    pay(node, 2)


def record(node: StandingNode, session: str, portion: int) -> None:
    """The same events of that portion each time, of all kinds. Raises Fault."""
    events = [_event(session, number) for number in range(portion * EVENTS, (portion + 1) * EVENTS)]
    sent = portion * EVENTS
    request = state_pb2.RecordEventsRequest(
        session=session, writer=WRITER, sent=sent, events=msgspec.msgpack.encode(events)
    )
    node.ask("SessionService/RecordEvents", request)


def schedule(node: StandingNode) -> None:
    (task,) = node.ask("JobService/ListTasks", jobs_pb2.ListTasksRequest()).tasks
    spec = jobs_pb2.JobSpec(payload=jobs_pb2.JobPayload(builtin=jobs_pb2.BuiltinTask(name="echo")))
    made = jobs_pb2.Schedule(task_id=task.task_id, name="nightly", cron="0 3 * * *", timezone="UTC", job=spec)
    node.ask("JobService/CreateSchedule", jobs_pb2.CreateScheduleRequest(schedule=made))


def go_on(node: StandingNode) -> None:
    """It works, as it would go on working beside what nobody has noticed. Raises Fault."""
    for portion in range(PORTIONS + 2, PORTIONS + 4):
        record(node, "run 1", portion)
    put(node, "later", 400)
    pay(node, 3)


def _event(session: str, number: int) -> list[Any]:
    at_us = BEGAN_US + number * 16_667
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("energy.update", {"energy": number / 4, "accumulator": float(number), "model_id": f"m-{number % 3}"}),
        (
            "user.prompt",
            {
                "prompt_id": f"{session}/{number}", "interface": "cli", "length": 5, "truncated": False,
                "hash": f"{number:064x}", "language": "en", "intent": "ask",
            },
        ),
        (
            "pattern.interference",
            {"models_involved": ["a", "b"], "interference_type": "constructive", "strength": 0.5},
        ),
        ("health.heartbeat", {"status": "ok", "uptime_s": number, "frame_ms": 16.5, "queue_depth": 0}),
        ("light.seen", {"lux": number * 1.5}),
    )  # fmt: skip
    kind, data = kinds[number % len(kinds)]
    delta = 0.5 if kind == "energy.update" else None
    return [at_us, kind, number, delta, json.dumps(data).encode()]


def put(node: StandingNode, name: str, size: int) -> None:
    """Raises Fault."""
    request = objects_pb2.PutObjectRequest(name=name, data=content_of(name, size), request_id=name)
    node.ask("ObjectService/PutObject", request)


def content_of(name: str, size: int) -> bytes:
    return (name.encode() * size)[:size]


def pay(node: StandingNode, lane: int) -> None:
    """Raises Fault."""
    request = ledger_pb2.CreateTransferRequest(dst=f"attic/{lane}", amount_micro=5_000, request_id=f"t-{lane}")
    node.ask("LedgerService/CreateTransfer", request)
    node.wait(10_000)


# ---- what it is asked

OBJECTS = ("small", "middling", "last", "later")
CHANCY = ("objects",)  # ids of those that it makes once more are others


def answers_of(node: StandingNode) -> Answers:
    """What a user would read of it; a refusal begins with "!", and says its kind and reason."""
    return dict(_answers(node))


def _answers(node: StandingNode) -> Iterator[tuple[str, str]]:
    ask = state_pb2
    yield "sessions", _asked(node, "SessionService/ListSessions", ask.ListSessionsRequest(), "sessions")
    yield "kinds", _asked(node, "SessionService/ListKinds", ask.ListKindsRequest())
    for number in range(SESSIONS):
        name = f"run {number}"
        yield (
            f"records {name}",
            _asked(node, "SessionService/ListRecords", ask.ListRecordsRequest(session=name), "records"),
        )
        yield f"state {name}", _asked(node, "SessionService/ShowState", ask.ShowStateRequest(session=name))
        then = ask.ShowStateRequest(session=name, number=EVENTS + 3)
        yield f"state then {name}", _asked(node, "SessionService/ShowState", then)
        export = ask.ExportSessionRequest(session=name, content=True)
        yield f"export {name}", _asked(node, "SessionService/ExportSession", export)
        summaries = ask.ListSummariesRequest(session=name)
        yield f"summaries {name}", _asked(node, "MemoryService/ListSummaries", summaries, "summaries")
    until_us = BEGAN_US + 55 * HOUR_MS * 1_000  # what is asked here is noted in the journal behind it
    journal, scope = ask.ListEventsRequest(until_us=until_us), ask.AskScope(until_us=until_us)
    yield "journal", _asked(node, "StateService/ListEvents", journal, "events")
    yield "summaries", _asked(node, "MemoryService/ListSummaries", ask.ListSummariesRequest(), "summaries")
    for key in ("run 1/6", "nobody's"):
        yield f"key {key}", _remembered(node, "AskKey", ask.AskKeyRequest(scope=scope, key=key))
    yield "count", _remembered(node, "AskCount", ask.AskCountRequest(scope=scope, kind="energy.update"))
    yield "objects", _asked(node, "ObjectService/ListObjects", objects_pb2.ListObjectsRequest(), "objects")
    for name in OBJECTS:
        yield f"object {name}", _asked(node, "ObjectService/ReadObject", objects_pb2.ReadObjectRequest(object=name))
    paid = ledger_pb2.ListTransactionsRequest()
    yield "transactions", _asked(node, "LedgerService/ListTransactions", paid, "transactions")
    yield "balances", _asked(node, "LedgerService/ListBalances", ledger_pb2.ListBalancesRequest(), "balances")
    yield "schedules", _asked(node, "JobService/ListSchedules", jobs_pb2.ListSchedulesRequest(), "schedules")
    yield "missions", _asked(node, "JobService/ListMissions", jobs_pb2.ListMissionsRequest(), "missions")
    yield "tasks", _asked(node, "JobService/ListTasks", jobs_pb2.ListTasksRequest(), "tasks")


def _asked(node: StandingNode, method: str, request: Any, listed: str = "") -> str:
    """`listed`: all pages of that field."""
    found: list[Message] = []
    try:
        while True:
            answer = node.ask(method, request)
            if getattr(answer, "damaged", ()):
                return f"!Corrupt Damaged: {answer.damaged} cannot be read"
            if not listed:
                return "\n".join(map(_shown, answer)) if isinstance(answer, list) else _shown(answer)
            found += getattr(answer, listed)
            if not answer.next_page_token:
                return "\n".join(map(_shown, found))
            request.page_token = answer.next_page_token
    except Fault as fault:
        return f"!{type(fault).__name__} {fault.reason}: {fault.message}"


def _shown(answer: Any) -> str:
    """Bulk comes beside its message."""
    if isinstance(answer, objects_pb2.Object):
        answer.ClearField("trouble")  # why it is not yet where it is to be
    return f"{answer.head}{bytes(answer.data)!r}" if isinstance(answer, Piece) else str(answer)


def _remembered(node: StandingNode, method: str, request: Any) -> str:
    """Where a summary is damaged its events are asked, or the other way about: what an answer rests on is no part of
    it. One that does not rest on all that was recorded says so, which is a refusal here."""
    rests_on = recorded = at_least = at_most = 0
    seen: list[state_pb2.Sighting] = []
    try:
        while True:
            answer = node.ask(f"MemoryService/{method}", request)
            rests_on += answer.basis.events + answer.basis.summarised
            recorded += answer.basis.recorded + answer.basis.unreadable
            if method == "AskKey":
                seen += answer.sightings
            else:
                at_least, at_most = at_least + answer.at_least, at_most + answer.at_most
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
    except Fault as fault:
        return f"!{type(fault).__name__} {fault.reason}: {fault.message}"
    if rests_on < recorded:
        return f"!Corrupt Incomplete: it rests on {rests_on} of {recorded} events"
    return " ".join(each.session_id for each in seen if each.at_most) or f"{at_least} to {at_most}"
