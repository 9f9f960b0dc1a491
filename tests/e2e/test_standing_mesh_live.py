"""A whole mesh by one command: it stands, is tried, mends what died, and goes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, eventually, offgrid_node, promised, run
from terminal_run import at_terminal

from offgrid.client import connect
from offgrid.command_line import exits
from offgrid_node.own_processes import TERMINATED, birth_of
from offgrid_tools.cli.fitting import width_of

pytestmark = pytest.mark.xdist_group("standing")  # one mesh for all, and nobody else chooses ports meanwhile
NAMES = ("core", "host-a")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("up") / "mesh"
    made = offgrid_node("up", "--nodes", "2", "--dir", folder, "--set", "mesh.probe_interval_ms=300")
    try:
        assert made.code == 0, made.said
        yield folder
    finally:
        gone = offgrid_node("down", "--purge", "--yes", "--dir", folder)
        assert gone.code == 0, gone.said
        assert not folder.exists()


def pid_of(folder: Path, name: str) -> int:
    return int(json.loads((folder / name / "node.pid").read_text())["pid"])


def port_of(folder: Path, name: str) -> int:
    nodes = json.loads((folder / "mesh.json").read_text())["nodes"]
    return int(next(node["port"] for node in nodes if node["name"] == name))


def smoke(folder: Path, node: str, *arguments: str) -> tuple[int, dict[str, dict[str, object]]]:
    """Its exit code and its lines by what they are of."""
    done = run([BIN / "offgrid", "--json", "--node-dir", folder / node, "smoke", *arguments])
    document = json.loads(done.out)
    assert document["ok"] == (done.code == exits.OK)
    return done.code, {f"{line['check']} {line['about']}".strip(): line for line in document["checks"]}


def outcomes(lines: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: line["outcome"] for name, line in lines.items() if not name.startswith("gateway")}


def test_a_mesh_that_has_come_up_passes_the_smoke_test(place: Path) -> None:
    code, lines = eventually(lambda: (made := smoke(place, "core"))[0] == 0 and made, "the host offers")
    assert code == exits.OK
    assert outcomes(lines) == {
        "node core": "ok", "peers": "ok", "road host-a": "ok", "job host-a": "ok",
        "object weight": "skipped",
        "object put": "ok", "object read": "ok", "object rm": "ok", "quorum": "ok", "events": "ok", "session": "ok",
        "ledger": "skipped",
    }  # fmt: skip
    assert sum(float(str(line["took_ms"])) for line in lines.values()) < promised(15.0) * 1000


def test_many_runs_leave_one_mission_that_is_completed_and_one_quorum_behind(place: Path) -> None:
    def listed(what: str, *words: str) -> list[dict[str, object]]:
        found = json.loads(run([BIN / "offgrid", "--json", "--node-dir", place / "core", *words]).out)[what]
        assert isinstance(found, list)
        return found

    for _ in range(2):
        assert smoke(place, "core")[0] == exits.OK
    assert listed("objects", "ls") == []
    assert listed("sessions", "state", "sessions") == []
    missions = listed("missions", "mission", "list")
    assert [(mission["title"], mission["status"]) for mission in missions] == [("smoke", "completed")]
    assert [task["name"] for task in listed("tasks", "task", "list")] == ["smoke"]
    assert [quorum["quorum_id"] for quorum in listed("quorums", "quorum", "list")] == ["offgrid-smoke"]


SEEN = """
status; peers; peers --roads; link list; link airtime; mesh members; mission list; mission show MISSION; task list
task show TASK; job list; job show JOB; job why JOB; job logs JOB; schedule list; market; ledger open --yes
ledger status; balance; balance --all; wallet create-lane --count 2; wallet list; wallet credit; history; bookings
tx list; ledger dag; ledger witnesses; ledger epochs; ledger verify; ping host-a --count 1; trace host-a
put NOTES --name a/rather/long/name/of/some/notes.txt --copies 1 --required 1.0; ls; ls -l
info a/rather/long/name/of/some/notes.txt; audit a/rather/long/name/of/some/notes.txt
placement explain a/rather/long/name/of/some/notes.txt; placement explain --size 10000000 --code 4/7; outbox
quorum list; quorum status --id offgrid-smoke; mail send host-a --text hello; mail sent; mail inbox; mail held
events --limit 30; state sessions; state show flight; state kinds; state retention; state backup
state backups; memory windows; memory ask --count health.heartbeat; keys show; context ls; job top --count 1; smoke
rm --yes a/rather/long/name/of/some/notes.txt; ls --deleted
"""
COLUMNS = 80


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX")
def test_what_people_see_is_no_wider_than_a_narrow_terminal_and_counts_as_people_do(
    place: Path, tmp_path: Path
) -> None:
    """Ids, digests and paths stay whole, to be copied, and may be wider by themselves; so does what was recorded."""

    def first(what: str, *words: str) -> str:
        found = json.loads(run([BIN / "offgrid", "--json", "--node-dir", place / "core", *words]).out)
        return str(found[what][0][f"{words[0]}_id"])

    (tmp_path / "notes.txt").write_text("hello\n")
    with connect(str(place / "core")) as client, client.session("flight") as flight:
        flight.record("health.heartbeat", {"queue_depth": 1})
    stand_for = {"NOTES": str(tmp_path / "notes.txt"), **{
        word: first(what, word.lower(), "list")
        for word, what in (("MISSION", "missions"), ("TASK", "tasks"), ("JOB", "jobs"))
    }}  # fmt: skip
    wrong = []
    for line in SEEN.replace(";", "\n").strip().splitlines():
        words = [stand_for.get(word, word) for word in line.split()]
        code, shown = at_terminal(["--node-dir", str(place / "core"), *words], COLUMNS)
        assert code == exits.OK, (line, shown)
        wide = [each for each in shown if width_of(each) > COLUMNS and max(map(len, each.split())) < COLUMNS // 2]
        ones = [each for each in shown if re.search(r"(?<![\d.])1 (?!ms\b)[a-z]+s\b", each)]
        wrong += [(line, each) for each in (*wide, *ones)]
    assert not wrong, "\n".join(map(repr, wrong))


def test_each_node_has_a_page_of_its_own(place: Path) -> None:
    said = offgrid_node("up", "--dir", place).out
    pages = [line.split()[-1] for line in said.splitlines() if line.split()[:1] and line.split()[0] in NAMES]
    pages = [page for page in pages if page.startswith("http")]
    assert len(set(pages)) == len(NAMES)
    kept = json.loads((place / "mesh.json").read_text())["nodes"]  # a page that is open finds its node again
    assert pages == [f"http://127.0.0.1:{each['page_port']}" for each in kept]
    for page in pages:
        with urllib.request.urlopen(f"{page}/v1/about", timeout=10) as answer:  # noqa: S310 - of our own
            assert answer.status == 200


def test_a_node_is_driven_through_its_gateway_as_from_another_machine(place: Path, tmp_path: Path) -> None:
    config = {"XDG_CONFIG_HOME": str(tmp_path)}
    (tmp_path / "notes.txt").write_text("hello\n")
    status = json.loads(run([BIN / "offgrid", "--json", "--node-dir", place / "core", "status"]).out)
    added = run([BIN / "offgrid", "context", "add", "far", "--url", status["gateway"]], env=config)
    assert added.code == 0, added.said
    for words in (["job", "run", tmp_path / "notes.txt", "--builtin", "echo"], ["put", tmp_path / "notes.txt",
                  "--copies", "1", "--required", "1.0"], ["rm", "--yes", "notes.txt"],
                  ["events", "--limit", "1"]):  # fmt: skip
        done = run([BIN / "offgrid", "--context", "far", *words], env=config)
        assert done.code == 0, done.said


def test_a_node_that_was_killed_is_missed_and_all_are_what_they_were_after_a_restart(place: Path) -> None:
    before, members = {name: pid_of(place, name) for name in NAMES}, members_of(place)
    os.kill(before["host-a"], signal.SIGKILL)

    def missed() -> bool:
        code, lines = smoke(place, "core")
        return code == exits.FAILED and lines["peers"]["detail"] == "none of 1 is alive"

    eventually(missed, "the core sees that the host is dead")
    lost = port_of(place, "host-a")
    with socket.socket() as other:  # another program takes its port
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", lost))
        other.listen()
        again = offgrid_node("restart", "--dir", place)  # all at once: each finds the others where they were
    assert again.code == 0, again.said
    assert f"another program has port {lost}: host-a takes {port_of(place, 'host-a')}" in again.out
    assert not set(before.values()) & {pid_of(place, name) for name in NAMES}
    assert members_of(place) == members
    eventually(lambda: smoke(place, "core")[0] == 0, "all is well again")
    assert offgrid_node("up", "--dir", place).out.count("runs already") == len(NAMES)


def members_of(place: Path) -> dict[str, str]:
    told = run([BIN / "offgrid", "--json", "--node-dir", place / "core", "mesh", "members"])
    return {each["node_id"]: each["name"] for each in json.loads(told.out)["members"]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, TERMINATED)])
def test_an_up_that_is_broken_off_leaves_nothing_running(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """And what it had made is gone on with, or goes."""
    folder = tmp_path / "mesh"
    words = [str(BIN / "offgrid-node"), "up", "--nodes", "2", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        eventually((folder / "core" / "node.pid").exists, "the first node is started")
        pid = pid_of(folder, "core")
        busy = offgrid_node("down", "--dir", folder)
        assert (busy.code, "is at work in" in busy.err) == (exits.REFUSED, True), busy.said
        process.send_signal(number)
        assert process.wait(60) == code
        assert "broken off: stopping core" in process.stdout.read()
    assert birth_of(pid) == ""
    assert not (folder / "core" / "node.pid").exists()
    assert offgrid_node("down", "--purge", "--yes", "--dir", folder).code == exits.OK


def test_an_unknown_name_and_a_purge_unasked_are_refused(place: Path) -> None:
    assert offgrid_node("down", "attic", "--dir", place).code == exits.NOT_FOUND
    unasked = offgrid_node("down", "--purge", "--dir", place)
    assert unasked.code == exits.USAGE
    assert "--yes" in unasked.err
    assert all(pid_of(place, name) for name in NAMES)
