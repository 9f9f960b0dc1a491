"""Sessions on a real node: recorded through its death, listed, folded, shown as they were, and shredded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid

from offgrid_node.local_mesh import LocalMesh

EVENTS = 2_000


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    with mesh_of(tmp_path_factory.mktemp("sessions"), {"lone": ["core"]}) as mesh:
        yield mesh


def energy(number: int) -> dict[str, float]:
    return {"energy": 0.5, "accumulator": number / 2}


def test_what_is_accepted_outlives_the_nodes_death_and_is_recorded_once(mesh: LocalMesh) -> None:
    lone = mesh["lone"]
    with lone.client() as client:
        with client.session("run") as run:
            for number in range(EVENTS):
                run.record("energy.update", energy(number), frame=number, energy_delta=0.5)
                if number == EVENTS // 2:
                    lone.kill()
                    lone.run("run")
                if number % 100 == 0:
                    run.flush(20)
            run.record("user.prompt", {"prompt_id": "p", "hash": "0" * 32, "length": 7})
            lone.wait_ready()
            assert run.flush(20)
            figures = run.figures
            kept = EVENTS + 1 - sum(figures.dropped.values())
            assert (figures.accepted, figures.durable) == (EVENTS + 1, kept)
        records = [*client.sessions.records(run.session_id)]
    assert [record.number for record in records] == [*range(1, kept + 1)]
    frames = [record.frame_id for record in records if record.HasField("frame_id")]
    assert frames == sorted(set(frames)), "none is there twice, and they are in order"


def test_the_command_lists_them_and_shows_what_they_came_to(mesh: LocalMesh) -> None:
    lone = mesh["lone"]
    with lone.client() as client, client.session("flight 7") as flight:
        for number in range(50):
            flight.record("energy.update", energy(number), frame=number, energy_delta=0.5)
    listed = json.loads(offgrid(lone, "state", "sessions", "--name", "flight 7", "--json").out)["sessions"]
    assert [(each["name"], each["recorded"]) for each in listed] == [("flight 7", 50)]
    shown = offgrid(lone, "state", "show", flight.session_id, "--json")
    document = json.loads(shown.out)
    assert document["state"]["energy_accumulator"] == 25.0
    assert document["state"]["frame_state"]["frame_id"] == 49
    then = json.loads(offgrid(lone, "state", "show", flight.session_id, "--number", "10", "--json").out)
    assert (then["number"], then["state"]["energy_accumulator"]) == (10, 5.0)
    assert "energy_accumulator" in offgrid(lone, "state", "show", flight.session_id).out
    newest = offgrid(lone, "state", "records", flight.session_id, "--limit", "2", "--json")
    assert [json.loads(line)["record"]["number"] for line in newest.out.splitlines()] == [49, 50]
    assert "kept, with 50 events" in offgrid(lone, "state", "snapshot", flight.session_id).out
    unknown = offgrid(lone, "state", "show", "no such")
    assert (unknown.code, "offgrid state sessions" in unknown.err) == (3, True)


def test_a_kind_of_ones_own_has_its_content_hashed(mesh: LocalMesh, tmp_path: Path) -> None:
    lone, file = mesh["lone"], tmp_path / "turn.json"
    chat = {"type": "object", "properties": {"said": {"type": "string", "x-content": True}}, "required": ["said"]}
    file.write_text(json.dumps(chat))
    registered = offgrid(lone, "state", "register-kind", "chat.turn", file)
    assert registered.code == 0, registered.said
    assert json.loads(offgrid(lone, "state", "kinds", "chat.turn").out) == chat
    with lone.client() as client:
        with client.session("chat") as session:
            session.record("chat.turn", {"said": "to be or not to be"})
        (record,) = client.sessions.records(session.session_id)
    assert json.loads(record.data)["said"].startswith("blake2b-256:")
    wrong = offgrid(lone, "state", "register-kind", "chat.turn", __file__)
    assert (wrong.code, "no JSON" in wrong.err) == (2, True), wrong.said


def test_what_is_purged_is_in_no_file_of_the_node(mesh: LocalMesh) -> None:
    lone = mesh["lone"]
    key_file = lone.folder / "data" / "sessions.keys"
    with lone.client() as client:
        with client.session("secret") as secret:
            for number in range(20):
                secret.record("health.heartbeat", {"marker": f"PLANTED-{number}"})
        assert [json.loads(each.data)["marker"] for each in client.sessions.records(secret.session_id)]
        before = key_file.read_bytes()
        asked = offgrid(lone, "state", "purge", "--session", secret.session_id)
        assert asked.code != 0, "it asks, and there is nobody"
        purged = offgrid(lone, "state", "purge", "--session", secret.session_id, "--yes")
        assert (purged.code, "shredded: 20 events of 1 session" in purged.out) == (0, True), purged.said
        assert len(key_file.read_bytes()) < len(before)
        key = before[before.index(secret.session_id.encode()) + len(secret.session_id) :][:32]
        for file in _files(lone.folder):
            content = file.read_bytes()
            assert b"PLANTED" not in content, file
            assert key not in content, file
        eventually(lambda: client.sessions.get(secret.session_id).kept == 0, "it says so")
    assert offgrid(lone, "state", "records", secret.session_id).code == 4


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_socket()]
