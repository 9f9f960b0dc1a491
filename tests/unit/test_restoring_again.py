"""A restore that is interrupted anywhere, made twice, or made at two places at once."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from msgspec.structs import replace
from segment_hosts import BEFORE, GENESIS, KEY, SALT, Hosts, Sealed

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node import restoring
from offgrid_node.folder import Folder
from offgrid_node.journal_search import Mesh
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, Unavailable
from offgrid_node.protocol.mesh.held import GENESIS_KEY
from offgrid_node.protocol.objects.lives import BeginLife, Life, last_life, note_life, sign_life, verify_life
from offgrid_node.protocol.state.fence import LIVES_APART
from offgrid_node.protocol.state.tables import JOURNAL, LEFT_OUT, NEWER_KEY, SEGMENTS, STATE_KEY, Newer, number_key
from offgrid_node.restoring import Restored, restore
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROWS = {"mesh": {GENESIS_KEY: GENESIS.SerializeToString()}, "jobs": {b"j": b"row" * 50}}
FIRST = Sealed(
    state_pb2.Segment(
        tables=[
            state_pb2.SegmentTable(name=name, rows=[{"key": key, "value": value} for key, value in rows.items()])
            for name, rows in ROWS.items()
        ],
        events=[state_pb2.SegmentEvents(first_seq=1, events=[b"one", b"two"])],
    ),
    events=2,
)
SECOND = Sealed(
    state_pb2.Segment(
        tables=[state_pb2.SegmentTable(name="jobs", rows=[{"key": b"k", "value": b"later"}])],
        events=[state_pb2.SegmentEvents(first_seq=3, events=[b"three"])],
    ),
    number=2,
    events=3,
    previous=FIRST.object_id,
)


class Host:
    """Keeps both segments, and the node's newest life as a host does."""

    def __init__(self, *kept: Sealed) -> None:
        self.rows, self.up = MemoryStore(), True
        self.kept = kept or (FIRST, SECOND)

    def __call__(self, request: Message) -> Message:
        if not self.up:
            raise Unavailable("nobody is there", reason="NoRoute")
        match request:
            case objects_pb2.ListSegmentsRequest():
                kept = [sealed.manifest(sealed.wrap()) for sealed in self.kept]
                return objects_pb2.ListSegmentsResponse(segments=kept, life=self._noted())
            case objects_pb2.ReadReplicaRequest(object_id=name):
                (data,) = [sealed.data for sealed in self.kept if sealed.object_id == name]
                return objects_pb2.ReadReplicaResponse(data=data)
            case objects_pb2.BeginLifeRequest():
                self._note(request)
                return objects_pb2.BeginLifeResponse()
        raise AssertionError(f"nobody asks a host for {request}")

    def _noted(self) -> Any:
        row = self.rows.get("lives", KEY.node_id.encode())
        return type(GENESIS).FromString(row) if row is not None else None

    def _note(self, request: objects_pb2.BeginLifeRequest) -> None:
        life, draft = verify_life(request.life, KEY.node_id, KEY.public_key, 0, verify, SALT), Draft()
        draft.load(self.rows)
        note_life(draft, BeginLife(request.life, life))
        puts = (effect for effect in draft.take() if isinstance(effect, Put))
        self.rows.commit(Batch(writes={(put.table, put.key): put.value for put in puts}))

    @property
    def life(self) -> int:
        signed = self._noted()
        return Life.decode(signed.body).life if signed is not None else 1


class Liar(Host):
    """Says that another life has begun, and shows none but what it was given."""

    shows: Any = None

    def _noted(self) -> Any:
        return self.shows

    def _note(self, request: objects_pb2.BeginLifeRequest) -> None:
        raise FailedPrecondition("life 9 has begun elsewhere", reason="LifeTaken")


class Killed(BaseException):
    """The process is gone."""


class Home:
    """Restores into folders of its own, from these hosts."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.hosts = path, {"one": Host(), "two": Host()}
        monkeypatch.setattr(restoring, "Mesh", lambda key, address: Hosts({**self.hosts}))

    def restore(self, name: str = "node") -> None:
        restore(self.path / name, KEY, "there:7500", ["core"], {})

    def restore_saying(self) -> tuple[Restored, list[str]]:
        said = list[str]()
        return restore(self.path / "node", KEY, "there:7500", ["core"], {}, say=said.append), said

    def state(self, name: str = "node") -> state_pb2.JournalRow:
        return state_pb2.JournalRow.FromString(self.row(JOURNAL, STATE_KEY, name))

    def row(self, table: str, key: bytes, name: str = "node") -> bytes:
        store = self._store(name)
        try:
            return store.get(table, key) or b""
        finally:
            store.close()

    def check(self, name: str = "node") -> None:
        """It is all there, and a node lives in the folder."""
        store = self._store(name)
        try:
            held = {(table, key): value for table in store.tables - LEFT_OUT for key, value in store.scan(table)}
            assert [event for _, event in store.events()] == [b"one", b"two", b"three"]
        finally:
            store.close()
        assert held["jobs", b"j"] == b"row" * 50
        assert held["jobs", b"k"] == b"later"
        assert Folder(self.path / name).config_path.exists()
        assert NodeKey.load(Folder(self.path / name).keys_path).node_id == KEY.node_id

    def _store(self, name: str) -> LoggedStore:
        return LoggedStore.open(Folder(self.path / name).config({}).storage.memory_db, limit_bytes=1 << 30)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


STEPS: list[tuple[object, str, int]] = [
    (Mesh, "fetch", 2),
    (LoggedStore, "commit", 3),
    (Mesh, "begin", 1),
    (NodeKey, "keep", 1),
    (Path, "rename", 1),
    (restoring, "sync_folder", 1),
    (Folder, "keep", 1),
]


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize(
    ("place", "name", "time"), [(place, name, time) for place, name, times in STEPS for time in range(1, times + 1)]
)
def test_killed_at_any_step_it_comes_to_the_same_end_when_it_is_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, place: object, name: str, time: int, late: bool
) -> None:
    real, calls = getattr(place, name), itertools.count(1)

    def struck(*arguments: Any, **options: Any) -> Any:
        last = next(calls) == time
        if last and not late:
            raise Killed
        made = real(*arguments, **options)
        if last:
            raise Killed
        return made

    async def struck_later(*arguments: Any, **options: Any) -> Any:
        last = next(calls) == time
        if last and not late:
            raise Killed
        made = await real(*arguments, **options)
        if last:
            raise Killed
        return made

    later = asyncio.iscoroutinefunction(real)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, struck_later if later else struck)
        with pytest.raises(Killed):
            home.restore()
    if (name, late) == ("keep", True) and place is Folder:
        with pytest.raises(AlreadyExists, match="a node lives in this folder"):
            home.restore()
    else:
        home.restore()
    home.check()
    assert {host.life for host in home.hosts.values()} == {home.state().life}


def test_a_store_that_is_not_of_the_newest_life_is_never_overwritten_nor_taken(home: Home) -> None:
    home.restore()
    Folder(home.path / "node").config_path.unlink()
    home.restore("elsewhere")
    before = home.path / "node" / "data" / "memory.db" / "data.mdb"
    size = before.stat().st_size
    with pytest.raises(AlreadyExists, match="never overwritten, and no member that answers tells of it"):
        home.restore()
    assert before.stat().st_size == size


class TestTwoRestores:
    def test_of_which_the_first_left_no_segment_share_no_life(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever chance draws."""
        monkeypatch.setattr(restoring, "secrets", Chance())
        for name in ("a", "b", "c"):
            home.restore(name)
        assert [home.state(name).life for name in ("a", "b", "c")] == [2, 3, 4]

    def test_are_some_chance_number_apart_where_a_member_is_silent(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(restoring, "secrets", Chance(7))
        home.restore("a")
        home.hosts["one"].up = False
        home.restore("b")
        assert [home.state(name).life for name in ("a", "b")] == [2, 2 + 1 + 7]

    def test_share_none_though_only_one_member_answers_both_times(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(restoring, "secrets", Chance())
        home.restore("a")
        home.hosts["one"].up = False
        home.restore("b")
        assert (home.state("a").life, home.state("b").life) == (2, 3)
        assert home.hosts["one"].life == 2

    def test_at_once_are_one_and_the_other_is_told_so(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both look before either begins, and draw the same number."""
        monkeypatch.setattr(restoring, "secrets", Chance())
        real = Mesh.begin

        async def while_another_begins(self: Mesh, life: Life) -> None:
            other = Life(life.owner, life.life, life.number, b"another".ljust(16, b"\0"))
            await real(self, other)
            await real(self, life)

        with monkeypatch.context() as patch:
            patch.setattr(Mesh, "begin", while_another_begins)
            with pytest.raises(FailedPrecondition, match="another restore of this node came first") as refused:
                home.restore()
        assert refused.value.reason == "LifeTaken"
        assert not Folder(home.path / "node").config_path.exists()
        home.restore()
        home.check()
        assert home.state().life == 3

    def test_with_nobody_to_note_it_there_is_none(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Mesh.begin

        async def all_gone(self: Mesh, life: Life) -> None:
            for host in home.hosts.values():
                host.up = False
            await real(self, life)

        monkeypatch.setattr(Mesh, "begin", all_gone)
        with pytest.raises(Unavailable, match="try again"):
            home.restore()
        assert not Folder(home.path / "node").config_path.exists()


class TestALiar:
    def test_that_says_another_life_has_begun_and_shows_none_keeps_nobody_out(self, home: Home) -> None:
        home.hosts["two"] = Liar()
        home.restore()
        home.check()
        assert home.hosts["one"].life == home.state().life

    def test_with_none_but_liars_there_is_no_restore(self, home: Home) -> None:
        home.hosts = {"two": Liar()}
        with pytest.raises(Unavailable, match="no member could note down"):
            home.restore()

    def test_with_a_key_of_before_does_not_say_that_the_last_life_has_begun(self, home: Home) -> None:
        home.hosts["two"] = liar = Liar()
        liar.shows = sign_life(Life(KEY.node_id, last_life(0), 9, bytes(16)), BEFORE, SALT)
        home.restore()
        assert home.state().life == 2


def test_a_node_whose_present_key_has_no_life_left_comes_back_as_an_old_store(home: Home) -> None:
    """A thief has said the last one: its owner rotates the key, and goes on behind that."""
    home.hosts["two"] = liar = Liar()
    liar.shows = sign_life(Life(KEY.node_id, last_life(0), 9, bytes(16)), KEY, SALT)
    home.restore()
    home.check()
    assert Newer.decode(home.row(JOURNAL, NEWER_KEY)) == Newer(last_life(0), 2)
    assert (home.state().life, home.state().number, home.hosts["one"].life) == (1, 2, 1)


def test_of_two_segments_of_one_number_that_of_the_later_life_is_its_own(home: Home) -> None:
    events = [state_pb2.SegmentEvents(first_seq=3, events=[b"four"])]
    later, stray = Sealed(state_pb2.Segment(events=events), 2, 3, FIRST.object_id), SECOND
    later.head = replace(later.head, life=2)
    home.hosts = {"one": Host(FIRST, later, stray)}
    home.restore()
    assert home.state().life == 3
    row = state_pb2.SegmentRow.FromString(home.row(SEGMENTS, number_key(2)))
    assert row.object_id == later.object_id


class Chance:
    """Draws the same number each time, and tokens in a row."""

    def __init__(self, number: int = 0) -> None:
        self._number, self._tokens = number, 0

    def randbelow(self, below: int) -> int:
        assert below == LIVES_APART
        return self._number

    def token_bytes(self, count: int) -> bytes:
        self._tokens += 1
        return self._tokens.to_bytes(count, "big")


THIRD = Sealed(
    state_pb2.Segment(events=[state_pb2.SegmentEvents(first_seq=4, events=[b"four"])]),
    number=3,
    events=4,
    previous=SECOND.object_id,
)


class Rotten(Host):
    """Has other bytes of the newest segment than it took; `away` when it is to give them."""

    away = False

    def __call__(self, request: Message) -> Message:
        if isinstance(request, objects_pb2.ReadReplicaRequest) and request.object_id == THIRD.object_id:
            if self.away:
                raise Unavailable("nobody is there", reason="NoRoute")
            return objects_pb2.ReadReplicaResponse(data=b"rot" * 9)
        return super().__call__(request)


def test_a_segment_that_nobody_has_whole_costs_what_it_said_and_no_more(home: Home) -> None:
    home.hosts = {"one": Rotten(FIRST, SECOND, THIRD), "two": Host()}
    made, said = home.restore_saying()
    home.check()
    assert made.chain.newest == SECOND.head
    assert made.chain.beyond == (THIRD.head,)
    assert any("segment 3 of the journal" in sentence for sentence in said)


def test_a_segment_whose_host_went_away_meanwhile_is_waited_for(home: Home) -> None:
    home.hosts = {"one": Rotten(FIRST, SECOND, THIRD), "two": Rotten(FIRST, SECOND, THIRD)}
    home.hosts["two"].away = True  # type: ignore[attr-defined]
    with pytest.raises(Corrupt, match="nobody is there"):
        home.restore()
    assert not Folder(home.path / "node").config_path.exists()
