"""A backup is not brought back over what hosts have from after it, unless the operator says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from offgrid.v1 import state_pb2
from offgrid_node import newer_at_hosts
from offgrid_node.newer_at_hosts import check_newest
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.state.tables import SEGMENTS

LIFE, UPTO = 3, 100


class Members:
    """What a `Mesh` has found: heads as (life, number, events), each at one host."""

    def __init__(self, *heads: tuple[int, int, int], silent: tuple[str, ...] = (), noted: int = 0) -> None:
        self.heads, self.found = dict[str, Any](), dict[str, Any]()
        for life, number, events in heads:
            name = f"o-{life}-{number}"
            self.heads[name] = SimpleNamespace(
                object_id=name, life=life, number=number, events=events, order=(life, number)
            )
            self.found[name] = SimpleNamespace(hosts={f"n-{number}": b""})
        self.silent, self.noted = [*silent], SimpleNamespace(life=noted) if noted else None
        self.closed = False

    def called(self, node: str) -> str:
        return f"host {node}"

    async def meet(self) -> None: ...

    async def look(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


def backup(*durable: bool) -> Any:
    rows = [{"key": bytes([at]), "value": row(each)} for at, each in enumerate(durable)]
    segment = state_pb2.Segment(tables=[state_pb2.SegmentTable(name=SEGMENTS, rows=rows)])
    manifest = SimpleNamespace(life=LIFE, journal_seq=UPTO, rows={SEGMENTS: len(durable)} if durable else {})
    return SimpleNamespace(manifest=manifest, segments=lambda: iter([segment]))


def row(durable: bool) -> bytes:
    return state_pb2.SegmentRow(object_id="o", durable=durable).SerializeToString()


def checked(monkeypatch: pytest.MonkeyPatch, members: Members, *, gives_up: bool = False) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(newer_at_hosts, "Mesh", lambda key, address: members)
    try:
        check_newest(backup(True), SimpleNamespace(), "here:1", said.append, gives_up=gives_up)  # type: ignore[arg-type]
    finally:
        assert members.closed
    return said


@pytest.mark.parametrize(
    "members",
    [Members(), Members((LIFE, 7, UPTO)), Members((LIFE, 7, 60), (LIFE - 1, 9, UPTO + 50)), Members(noted=LIFE)],
)
def test_where_nothing_is_newer_nothing_is_said(monkeypatch: pytest.MonkeyPatch, members: Members) -> None:
    assert checked(monkeypatch, members) == []


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (
            Members((LIFE, 7, UPTO), (LIFE, 8, UPTO + 5), (LIFE, 9, UPTO + 30)),
            "the journal at host n-8, host n-9 is 30 events newer than the backup, up to event 130: bring it back",
        ),
        (Members((LIFE + 1, 2, 40)), "the journal at host n-2 is of a later life than that, up to event 40"),
        (Members((LIFE, 7, UPTO), noted=LIFE + 1), "the node began anew after this backup"),
    ],
)
def test_what_is_newer_is_refused_with_how_much_and_where(
    monkeypatch: pytest.MonkeyPatch, members: Members, why: str
) -> None:
    with pytest.raises(FailedPrecondition, match="--give-up-newer") as caught:
        checked(monkeypatch, members)
    assert caught.value.reason == "BackupOutdated"
    assert why in caught.value.message
    members.closed = False
    (said,) = checked(monkeypatch, members, gives_up=True)
    assert said.startswith(f"given up: {why.partition(':')[0]}")


def test_members_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = checked(monkeypatch, Members((LIFE, 7, UPTO), silent=("attic", "barn")))
    assert said == ["silent: attic, barn: they may keep what is newer"]


def unasked(reader: Any, *, gives_up: bool = False) -> None:
    check_newest(reader, SimpleNamespace(), None, print, gives_up=gives_up)  # type: ignore[arg-type]


def test_nobody_asked_is_enough_where_no_host_ever_had_it_and_where_the_operator_says_so() -> None:
    unasked(backup())
    unasked(backup(False, False))
    unasked(backup(False, True), gives_up=True)


def test_nobody_asked_is_not_enough_where_hosts_had_it() -> None:
    with pytest.raises(FailedPrecondition, match="have them asked, by --via HOST:PORT") as caught:
        unasked(backup(False, True))
    assert caught.value.reason == "NewerUnknown"
