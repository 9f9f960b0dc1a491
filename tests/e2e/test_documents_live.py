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
from conftest import MakeMesh
from live import eventually

from offgrid.command_line import exits
from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.cli import run
from offgrid_tools.cli.documents import DOCUMENTS, schema_for

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
host-a: host show
broker: market
put {file} --name doc-test --copies 2 --required 2.0 -> object_id
ls
ls -l
info {object_id}
share {object_id} host-a
unshare {object_id} host-a
placement explain {object_id}
audit {object_id}
get {object_id} -o {folder}/copy.txt
rm --yes {object_id}
ls --deleted
ls --shared
outbox
keys show
host-a: scrub
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


class Typing:
    """Types lines on nodes of a mesh, keeps what they bring to light, and gathers what is not as schemas say."""

    def __init__(self, mesh: LocalMesh, capfd: pytest.CaptureFixture[str], **known: str) -> None:
        self._mesh, self._capfd, self._known, self.wrong = mesh, capfd, known, list[str]()

    def all(self, lines: str, default: str) -> None:
        """Each line, at the node that stands before it with a colon, or at the `default`."""
        for line in lines.strip().splitlines():
            at, colon, rest = line.partition(": ")
            self._one(rest if colon and at in self._mesh.nodes else line, at if colon else default)

    def _one(self, line: str, name: str) -> None:
        typed, _, wanted = line.partition(" -> ")
        words = shlex.split(typed.format(**self._known))
        code = run(["--json", "--node-dir", str(self._mesh[name].folder), *words])
        said = self._capfd.readouterr()
        assert code == exits.OK, (line, said.out, said.err)
        for document in map(json.loads, said.out.splitlines()):
            if wanted:
                self._known |= {wanted: str(next(found(document, wanted)))}
            errors = validator(command_of(words)).iter_errors(document)
            self.wrong += [re.sub(r"\s+", " ", f"{line}: {error}")[:400] for error in errors]


@pytest.mark.xdist_group("mesh")
def test_every_document_keeps_to_its_schema(
    mesh: LocalMesh, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "notes.txt").write_text("one two three\n")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    with mesh["core"].client() as client:
        session = client.session("doc-test")
        session.record("health.heartbeat", {"queue_depth": 0}, frame=1, energy_delta=0.5)
        session.end()
        eventually(lambda: len(list(client.mesh.peers())) == len(mesh.nodes), "all members are known")
    typing = Typing(
        mesh, capfd, file=str(tmp_path / "notes.txt"), folder=str(tmp_path), schema=str(tmp_path / "schema.json"),
        socket=mesh["core"].socket,
    )  # fmt: skip
    typing.all(LINES, "core")
    assert not typing.wrong, "\n".join(typing.wrong)


# Of a mesh of its own, since they change what others count on.
LATER_LINES = """
ledger open --yes
ledger status
ledger witnesses
ledger epochs
ledger dag
ledger genesis -o {folder}/papers.json
ledger genesis
ledger verify
balance
balance --all
wallet list
wallet create-lane --count 1 --fund 1
wallet credit barn 5
transfer --dst barn --amount 2 -> tx_id
history
tx list
tx show {tx_id}
tx receipt {tx_id} -o {folder}/light
tx create --dst barn --amount 1 -o {folder}/rent.json
tx sign {folder}/rent.json
tx show {folder}/rent.json
tx send {folder}/rent.json
tx finalize {folder}/rent.json
job run {file} --builtin echo
bookings
ledger checkpoint
settle-rewards
put {file} --copies 1 --required 1.0 -> object_id
keys rotate
keys reencrypt
host toggle off
host toggle on
state backup {folder}/backup.zip
state restore {folder}/backup.zip --dry-run
state compact
mail send barn --text hello
barn: mail read {message_id}
barn: mail rm {message_id}
mesh remove barn --yes
"""


def test_so_do_those_of_money_keys_and_mail(
    make_mesh: MakeMesh, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("one two three\n")
    mesh = make_mesh({"attic": ["core", "broker", "host"], "barn": ["host"]})
    mesh.wait_offers(1)
    typing = Typing(mesh, capfd, file=str(tmp_path / "notes.txt"), folder=str(tmp_path))
    before, _, after = LATER_LINES.partition("barn: mail read")
    typing.all(before, "attic")
    with mesh["barn"].client() as client:
        [message] = eventually(lambda: list(client.mail.messages()), "the message has come")
    typing.all(f"barn: mail read{after}".replace("{message_id}", message.message_id), "attic")
    assert not typing.wrong, "\n".join(typing.wrong)
