"""What commands print with --json on a real mesh is as `offgrid schema` says, field by field."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jsonschema_rs
import pytest
from live import eventually

from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.cli import exits, run
from offgrid_tools.cli.documents import DOCUMENTS, schema_for

pytestmark = pytest.mark.xdist_group("mesh")

# {name} is what an earlier line has brought to light: NAME=field of its document, from behind "->".
LINES = """
status
smoke
metrics
peers
peers --roads
mesh members
mesh invite
ping host-a --count 1
trace host-a
link list
link airtime
mission create Tiles -> mission_id
mission show {mission_id}
mission list --limit 2
mission update {mission_id} --title Maps
task create {mission_id} north -> task_id
task show {task_id}
task list --mission {mission_id}
job create {file} --builtin echo --task {task_id} -> job_id
job dispatch {job_id}
job watch {job_id}
job show {job_id}
job why {job_id}
job logs {job_id}
job receipt {job_id} -o {folder}/receipt.json
job verify-receipt {folder}/receipt.json
job run {file} --builtin echo
job submit {file} --builtin echo
job array {file} --builtin echo
job list --limit 3
job top --count 1
job cancel {job_id}
schedule add '0 3 * * *' {file} --builtin echo -> schedule_id
schedule list
schedule pause {schedule_id}
schedule resume {schedule_id}
schedule rm {schedule_id}
host show
market
put {file} --name doc-test --copies 2 --required 2.0 -> object_id
ls
ls -l
info {object_id}
share {object_id} host-a
unshare {object_id} host-a
placement explain {object_id}
audit {object_id}
get {object_id} -o {folder}/copy.txt
rm {object_id}
ls --deleted
ls --shared
outbox
keys show
scrub
quorum create --id doc:test --required 1.0
quorum ack --id doc:test
quorum status --id doc:test
quorum list
mail send host-b --text hello -> number
mail sent
mail show {number}
mail inbox
mail held
events --limit 5
state sessions
state show doc-test
state records doc-test --limit 2
state snapshot doc-test
state pin doc-test
state export doc-test {folder}/session.jsonl
state import {folder}/session.jsonl
state replay doc-test
state replay --from-export {folder}/session.jsonl --verbose
state validate doc-test
state backup {folder}/backup.zip
state verify-backup {folder}/backup.zip
state recovery-key {folder}/recovery.txt
state register-kind doc.test {schema}
state kinds
state retention
state backups
state migrate
memory ask --key {job_id}
memory ask --count JOB_CREATED
memory windows
ledger status
state purge --session doc-test --yes
context add doc --socket {socket}
context ls
context use doc
context rm doc
"""


@cache
def validator(command: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema_for(command, strict=True))


def command_of(words: list[str]) -> str:
    """The longest name that the line begins with."""
    return next(name for length in (2, 1) if (name := " ".join(words[:length])) in DOCUMENTS)


def found(document: object, name: str) -> Iterator[object]:
    """The values of all fields of that name, however deep."""
    if isinstance(document, dict):
        if name in document:
            yield document[name]
        for value in document.values():
            yield from found(value, name)


def test_every_document_keeps_to_its_schema(
    mesh: LocalMesh, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "notes.txt").write_text("one two three\n")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    known = {"file": str(tmp_path / "notes.txt"), "folder": str(tmp_path), "schema": str(tmp_path / "schema.json")}
    known["socket"] = mesh["core"].socket
    with mesh["core"].client() as client:
        session = client.session("doc-test")
        session.record("health.heartbeat", {"queue_depth": 0}, frame=1, energy_delta=0.5)
        session.end()
        eventually(lambda: len(list(client.mesh.peers())) == len(mesh.nodes), "all members are known")
    wrong = list[str]()
    for line in LINES.strip().splitlines():
        typed, _, wanted = line.partition(" -> ")
        words = shlex.split(typed.format(**known))
        node = mesh[{"market": "broker", "host": "host-a", "scrub": "host-a"}.get(words[0], "core")]
        code = run(["--json", "--node-dir", str(node.folder), *words])
        said = capsys.readouterr()
        assert code == exits.OK, (line, said.err)
        for document in map(json.loads, said.out.splitlines()):
            if wanted:
                known |= {wanted: str(next(found(document, wanted)))}
            wrong += [f"{line}: {error}" for error in validator(command_of(words)).iter_errors(document)]
    assert not wrong, "\n".join(re.sub(r"\s+", " ", each)[:400] for each in wrong)
