"""The bundle of a node: secrets planted wherever a node may have some, none of which is in it."""

from __future__ import annotations

import json
import logging
import os
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node_command import typed

from offgrid.json_form import json_of
from offgrid.v1 import mesh_pb2, objects_pb2
from offgrid_node.debugging.collecting import LOG_BYTES_MAX, _names_of_objects, _of_status
from offgrid_node.folder import Folder
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.recent_log import RecentLog

PLANTED = {
    "config": "planted-auth-key-1",
    "gateway": "planted-token-000000000000000000000002",
    "dotenv": "planted-dotenv-3",
    "environment": "planted-environment-4",
    "invite": "og1:PLANTEDINVITE5",
    "log": "planted-in-the-log-6",
    "llm": 'planted"with\\signs-7',
    "webhook": "plantedInAPath8",
    "topic": "/my-alerts",
    "user": "ann:hunter2",
    "argument": "planted-argument-9",
    "header": "planted-header-10",
    "endpoint": "plantedInAPath11",
    "broker": "plantedInAPath13",
    "label": "planted in a label",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "attic"
    settings = {
        "gateway.auth_key": PLANTED["config"],
        "gateway.token": PLANTED["gateway"],
        "mesh.listen": "127.0.0.1:0",
        "host.llm.api_key": PLANTED["llm"],
        "host.llm.endpoint": f"http://127.0.0.1:11434/{PLANTED['endpoint']}/v1",
        "jobs.broker_url": f"http://127.0.0.1:9/{PLANTED['broker']}",
        "host.labels": {"room": PLANTED["label"]},
        "health.webhook": f"http://127.0.0.1:9093/{PLANTED['webhook']}{PLANTED['topic']}",
        "health.command": [
            "/usr/bin/curl",
            "-u",
            PLANTED["user"],
            f"-H Authorization: Token {PLANTED['header']}",
            PLANTED["argument"],
        ],
    }
    found(where, "home", "attic", ["core"], settings)
    (where / ".env").write_text(f"OFFGRID_HOST__LLM__API_KEY={PLANTED['dotenv']}\n")
    (where / ".env").chmod(0o600)
    monkeypatch.setenv("OFFGRID_AUTH_KEY", PLANTED["environment"])
    key = NodeKey.load(Folder(where).keys_path)
    seed = (where / "keys" / "node.key").read_text().split()[2]
    log = [
        "2026-11-23 WARNING offgrid: PEER_DEAD seq=7 subject=n-1",
        f"joined by {PLANTED['invite']}",
        f"password={PLANTED['log']} {PLANTED['config']} {seed}",
        key.recovery_words(),
        f"curl -u {PLANTED['user']} -H 'x: {PLANTED['header']}' {PLANTED['argument']}",
        f"health.webhook: http://127.0.0.1:9093/{PLANTED['webhook']}{PLANTED['topic']} answered 500",
        f"http://127.0.0.1:11434/{PLANTED['endpoint']}/v1: refused; at 127.0.0.1:9/{PLANTED['broker']}/v1/about too",
        f"path /{PLANTED['broker']} of room {PLANTED['label']}",
        f"a file of {Path.home()}/deep",
        json.dumps({"said": PLANTED["llm"]}),
    ]
    (where / "node.log").write_text("\n".join(log) + "\n")
    return where


def bundle(folder: Path, target: Path, *words: str, stdin: str | None = None) -> dict[str, str]:
    done = typed("debug", "bundle", "--dir", folder, "-o", target, *words, stdin=stdin)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(target) as made:
        return {name: made.read(name).decode() for name in made.namelist()}


def test_nothing_secret_is_in_it_and_what_helps_is(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle.zip"
    made = bundle(folder, target)
    everything = "\n".join(made.values())
    for where, secret in PLANTED.items():
        assert secret not in everything, where
        assert json.dumps(secret)[1:-1] not in everything, where
    line = (folder / "keys" / "node.key").read_text().split()
    assert line[2] not in everything
    assert NodeKey.load(Folder(folder).keys_path).recovery_words() not in everything
    assert (folder / "keys" / "mesh_root.key").read_text().split()[2] not in everything

    assert {"README.txt", "about.json", "config.json", "doctor.json", "log.txt", "status.json"} <= {*made}
    assert json.loads(made["about.json"])["set"] == ["OFFGRID_AUTH_KEY"]
    config = json.loads(made["config.json"])
    assert config["mesh"]["name"] == "home"
    assert config["health"]["command"] == ["/usr/bin/curl", *["[hidden]"] * 4]
    assert config["health"]["webhook"] == "http://127.0.0.1:9093/[hidden]"
    assert config["host"]["llm"]["endpoint"] == "http://127.0.0.1:11434/[hidden]"
    assert config["host"]["labels"] == {"room": "[hidden]"}
    assert "http://127.0.0.1:11434/[hidden]: refused; at 127.0.0.1:9/[hidden]/v1/about too" in made["log.txt"]
    assert json.loads(made["status.json"]) == {"missing": "the node does not run, or cannot be asked"}
    assert any(each["check"] == "process" for each in json.loads(made["doctor.json"]))
    assert made["metrics.txt"] == "missing: the node does not run, or cannot be asked\n"
    assert "PEER_DEAD seq=7 subject=n-1" in made["log.txt"]
    if os.name == "posix":
        assert "a file of ~/deep" in made["log.txt"]
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_the_ends_of_long_logs_begin_with_a_whole_line(folder: Path, tmp_path: Path) -> None:
    """Half a secret would be known to nobody."""
    line = f"x {PLANTED['config']}\n"
    text = line * (LOG_BYTES_MAX // len(line) + 9)
    (folder / "node.log").write_text(text)
    for number, (words, stdin) in enumerate([((), None), (("--log", "-"), text)]):
        made = bundle(folder, tmp_path / f"{number}.zip", *words, stdin=stdin)
        assert {*made["log.txt"].splitlines()} == {"x [hidden]"}


def test_of_a_node_in_a_terminal_it_has_the_last_lines_too(folder: Path, tmp_path: Path) -> None:
    kept, log = RecentLog(folder / "data"), logging.getLogger("test.bundle")
    log.addHandler(kept)
    log.warning("said of late: %s", PLANTED["config"])
    log.removeHandler(kept)
    os.utime(folder / "node.log", (1, 1))  # of a time when it was written there
    made = bundle(folder, tmp_path / "bundle.zip")
    assert made["log.txt"] == "said of late: [hidden]\n"


def test_a_place_that_is_none_is_said_by_its_option(folder: Path, tmp_path: Path) -> None:
    done = typed("debug", "bundle", "--dir", folder, "-o", tmp_path / "nowhere" / "bundle.zip")
    assert done.exit_code == 2
    assert "-o" in done.stderr
    assert f"there is no folder {tmp_path / 'nowhere'}" in done.stderr


def test_no_file_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_text("somebody's")
    done = typed("debug", "bundle", "--dir", folder, "-o", tmp_path / "bundle.zip")
    assert (done.exit_code, "is there already; another name" in done.stderr) == (2, True)
    assert (tmp_path / "bundle.zip").read_text() == "somebody's"


def test_a_log_from_a_pipe_and_a_config_that_is_wrong(folder: Path, tmp_path: Path) -> None:
    (folder / "offgrid.toml").write_text("[node\n")
    made = bundle(folder, tmp_path / "bundle.zip", "--log", "-", stdin=f"from a pipe {PLANTED['environment']}\n")
    assert made["log.txt"] == "from a pipe [hidden]\n"
    assert "problems" in json.loads(made["config.json"])


def test_names_of_what_may_be_lost_are_names_of_objects() -> None:
    risks = mesh_pb2.ObjectRisks(gone=1, gone_names=["x"], at_risk=1, at_risk_names=["my will"], away=["n-1"])
    status = mesh_pb2.GetStatusResponse(name="attic", objects=risks)
    rooms = SimpleNamespace(
        mesh=SimpleNamespace(status=lambda: status),
        objects=SimpleNamespace(list=lambda: iter([objects_pb2.Object(name="notes"), objects_pb2.Object()])),
    )
    subject: Any = SimpleNamespace(client=rooms, asked=rooms)
    assert _names_of_objects(subject) == {"x": "object-1", "my will": "object-2", "notes": "object-3"}
    shown = _of_status(json_of(status), with_names=False)
    assert shown["objects"] == {"gone": 1, "at_risk": 1, "degraded": 0, "away": ["n-1"], "unjudged": 0}
    assert _of_status(json_of(status), with_names=True)["objects"]["gone_names"] == ["x"]
    assert _of_status(json_of(mesh_pb2.GetStatusResponse()), with_names=False)["objects"] is None
