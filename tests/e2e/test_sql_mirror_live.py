"""The journal's copy in MariaDB beside a real node: both come and go, each event is there once, and the node never
waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid_node
from maria import SQL, MariaDB

from offgrid_node.local_mesh import LocalNode

pytest.importorskip("pymysql")
pytestmark = SQL


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    made = MariaDB(tmp_path_factory.mktemp("sql"))
    yield made
    made.kill()


def record(node: LocalNode, name: str) -> str:
    """A session with one event; its id."""
    with node.client() as client, client.session(name) as session:
        session.record("energy.update", {"energy": 0.5, "accumulator": 1})
        assert session.flush()
        return session.session_id


def journal(node: LocalNode) -> dict[int, tuple[int, str, str]]:
    with node.client() as client:
        return {event.seq: (event.etype, event.type, event.subject) for event in client.events.list()}


def rows(server: MariaDB, node: LocalNode) -> dict[int, tuple[int, str, str]]:
    found = server.query(f"SELECT seq, etype, type, subject FROM offgrid_events WHERE node = '{node.node_id}'")  # noqa: S608
    assert len({row[0] for row in found}) == len(found)
    return {seq: (etype, name, subject) for seq, etype, name, subject in found}


def notices(node: LocalNode) -> list[str]:
    with node.client() as client:
        return [each for each in client.mesh.status().notices if "SQL mirror" in each]


def test_all_that_happens_is_there_once_however_node_and_server_come_and_go(server: MariaDB, tmp_path: Path) -> None:
    with mesh_of(tmp_path / "mesh", {"lone": ["core"]}, state__sql_mirror=server.url) as mesh:
        lone = mesh["lone"]
        before = record(lone, "before")
        eventually(lambda: before in {row[2] for row in rows(server, lone).values()}, "it is written")

        server.kill()
        away = record(lone, "while the server is away")
        eventually(lambda: notices(lone), "it is told of")
        lone.kill()
        lone.run("run")
        lone.wait_ready()
        without = record(lone, "a node that begins without it")
        server.start()
        eventually(lambda: not notices(lone), "it is told of no more")
        server.freeze()
        frozen = record(lone, "while the server takes everything and answers nothing")
        assert lone.stop() == 0
        lone.run("run")
        lone.wait_ready()
        after = record(lone, "after")
        server.thaw()

        told = journal(lone)
        eventually(lambda: max(told) in rows(server, lone), "all is written")
        there = rows(server, lone)
        assert {seq: there.get(seq) for seq in told} == told
        assert {before, away, without, frozen, after} <= {row[2] for row in there.values()}


def test_a_node_does_not_start_by_an_address_of_another_machine(tmp_path: Path) -> None:
    made = offgrid_node("init", "--mesh", "t", "--dir", tmp_path, "--set", "state.sql_mirror=mysql://u:hush@db.lan/d")
    assert (made.code, "hush" in made.said.replace(" ".join(made.argv), "")) == (2, False), made.said
