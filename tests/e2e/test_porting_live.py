"""An agent's run is recorded on one node, exported, imported on another, replayed, and comes to the same there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_run import FRAMES
from live import mesh_of, offgrid, run

from offgrid_node.local_mesh import LocalMesh, LocalNode

PROGRAM = Path(__file__).with_name("agent_run.py")
NO_NODE = Path(sys.executable).parent / "offgrid"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    folder = tmp_path_factory.mktemp("porting")
    with mesh_of(folder, {"here": ["core"], "there": ["core"]}, state__audit_mode=True) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def recorded(mesh: LocalMesh) -> str:
    done = run([sys.executable, PROGRAM, mesh["here"].folder, "agent"])
    assert done.code == 0, done.said
    return done.out.strip()


def asked(node: LocalNode, *words: str | Path) -> Any:
    done = offgrid(node, "state", *words, "--json")
    assert done.code == 0, done.said
    return json.loads(done.out)


def test_it_comes_to_the_same_on_another_node(mesh: LocalMesh, recorded: str, tmp_path: Path) -> None:
    here, there, file = mesh["here"], mesh["there"], tmp_path / "agent.jsonl"
    shown = asked(here, "show", recorded)
    assert {*shown["session"]["kinds"]} == {"energy.update", "user.prompt", "pattern.interference", "health.heartbeat"}
    assert shown["state"]["frame_state"]["frame_id"] == FRAMES - 6
    energies = [
        json.loads(line)["record"]["energy_delta"]
        for line in offgrid(here, "state", "records", recorded, "--limit", "0", "--json").out.splitlines()
    ]
    assert shown["state"]["energy_accumulator"] == pytest.approx(sum(filter(None, energies)))

    exported = asked(here, "export", recorded, file)
    assert exported["state"]["digest"] == shown["digest"]
    imported = asked(there, "import", file)
    session = imported["session"]
    assert not imported["known"]
    assert session["origin"]["session_id"] == recorded
    for name in ("name", "started_us", "ended_us", "recorded", "newest_us"):
        assert session[name] == shown["session"][name], name
    replayed = asked(there, "replay", session["session_id"])
    assert (replayed["digest"], replayed["equal"], replayed["state"]) == (shown["digest"], True, shown["state"])
    assert asked(there, "show", "agent")["digest"] == shown["digest"]

    again = asked(there, "import", file)
    assert (again["known"], again["session"]["session_id"]) == (True, session["session_id"])
    alone = run([NO_NODE, "state", "replay", "--from-export", file, "--json"])
    assert (json.loads(alone.out)["equal"], json.loads(alone.out)["digest"]) == (True, shown["digest"]), alone.said
    assert asked(there, "validate", session["session_id"])["wrong"] == 0
    assert run([NO_NODE, "state", "validate", file]).code == 0


def test_the_journal_tells_of_it(mesh: LocalMesh, recorded: str) -> None:
    with mesh["here"].client() as client:
        told = [event.session for event in client.events.list(subject=recorded) if event.HasField("session")]
    assert {each.outcome for each in told} == {"started", "ended", "shown", "read", "exported"}
    assert {each.by for each in told if each.outcome in ("shown", "read", "exported")} == {"admin"}
