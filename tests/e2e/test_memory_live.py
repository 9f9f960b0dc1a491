"""What a real node remembers: summarised as windows end, through its death, and shredded with the session."""

from __future__ import annotations

import json
from pathlib import Path

from live import eventually, mesh_of, offgrid

from offgrid_node.local_mesh import LocalNode

EVENTS = 60
MARK = "prompt-of-a-secret-5x3"


def windows(node: LocalNode, session: str) -> list[dict]:
    return json.loads(offgrid(node, "memory", "windows", "--session", session, "--json").out)["windows"]


def summarised(node: LocalNode, session: str) -> int:
    return sum(int(each["count"]) for each in windows(node, session))


def test_a_node_remembers_what_happened_through_its_death(tmp_path: Path) -> None:
    with mesh_of(tmp_path, {"lone": ["core"]}, storage__compaction_interval=1) as mesh:
        lone = mesh["lone"]
        with lone.client() as client, client.session("run") as run:
            for number in range(EVENTS // 2):
                run.record("energy.update", {"energy": number, "accumulator": 0, "model_id": f"m{number % 3}"})
            run.record("user.prompt", {"prompt_id": MARK, "hash": "0" * 32, "length": 7})
            assert run.flush(20)
            lone.kill()
            lone.run("run")
            lone.wait_ready()
            for number in range(EVENTS // 2):
                run.record("energy.update", {"energy": number, "accumulator": 0})
            assert run.flush(20)
        eventually(lambda: summarised(lone, "run") == EVENTS + 1, "all of it is summarised, and nothing twice")
        seen = json.loads(offgrid(lone, "memory", "ask", "--key", MARK, "--json").out)
        assert (seen["at_least"], seen["at_most"], len(seen["sightings"])) == (1, 1, 1)
        assert offgrid(lone, "memory", "ask", "--key", "m1", "--session", "run").out.startswith("yes: 10 events")
        counted = offgrid(lone, "memory", "ask", "--count", "energy.update")
        assert counted.out.startswith(f"{EVENTS} of energy.update"), counted.said
        assert offgrid(lone, "memory", "ask", "--count", "NODE_STARTED").out.startswith("2 of NODE_STARTED")
        assert MARK not in offgrid(lone, "memory", "windows", "--json").out
        assert offgrid(lone, "state", "purge", "--session", "run", "--yes").code == 0
        assert offgrid(lone, "memory", "ask", "--key", MARK).out.startswith("no: ")
        assert offgrid(lone, "memory", "windows", "--session", "run").code != 0
        for file in lone.folder.rglob("*"):
            assert not file.is_file() or MARK.encode() not in file.read_bytes(), file
