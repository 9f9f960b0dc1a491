"""`offgrid put`, `get`, `ls`, `info`, `outbox`: for people, for scripts and in pipes."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_run import Run
from small_node import OTHER_ID
from small_objects import ObjectNode

import offgrid
from offgrid.client import object_parts as parts_module
from offgrid.client.objects import Objects
from offgrid.command_line import exits
from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_tools.cli import run
from offgrid_tools.cli.waiting import HINT


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "notes.txt"
    file.write_text("what I wrote")
    return file


def test_put_waits_for_its_acks_and_shows_who_gave_them(og: Run, node: ObjectNode, notes: Path) -> None:
    code, out, err = og("put", notes, "--required", "2.0")
    assert code == exits.OK
    (opened,) = node.calls["PutObject"]
    assert (opened.name, opened.required_milli) == ("notes.txt", 2_000)
    assert "state      durable" in out
    assert "acks       2.0 of 2.0" in out
    assert "  attic    0.5 at" in out
    assert "  barn     1.5 at" in out
    assert "o-1 is kept here; acks: 0.0 of 2.0" in err


def test_put_says_what_it_waits_for_once_and_how_not_to(og: Run, node: ObjectNode, notes: Path) -> None:
    weak, away = "the hosts known weigh 0.0", "no host\x1b[2J is alive"
    node.troubles = ["", weak, weak, "", weak, away, ""]
    code, out, err = og("put", notes)
    assert code == exits.OK
    assert err.splitlines() == [
        "o-1 is kept here; acks: 0.0 of 2.0",
        "o-1 waits: the hosts known weigh 0.0",
        f"  → {HINT}",
        "o-1 waits: no host�[2J is alive",
        "o-1 is kept here; acks: 2.0 of 2.0",
    ]
    assert "--no-wait" in HINT
    assert "offgrid outbox --open" in HINT
    assert "weigh" not in out


def test_put_tells_scripts_of_it_beside_their_document(og: Run, node: ObjectNode, notes: Path) -> None:
    node.acking, node.troubles = False, ["weak"] * 100
    code, out, err = og("--json", "put", notes, "--timeout", "0.05")
    waits, failed = map(json.loads, err.splitlines())
    assert (code, out) == (exits.FAILED, "")
    assert (waits["waiting"]["trouble"], waits["waiting"]["acked_milli"]) == ("weak", 0)
    assert "--no-wait" in waits["waiting"]["hint"]
    assert failed["error"]["message"].endswith(": weak")


def test_put_need_not_wait(og: Run, node: ObjectNode, notes: Path) -> None:
    node.acking = False
    code, out, _ = og("put", notes, "--no-wait")
    assert code == exits.OK
    assert "state      accepted" in out


def test_put_waits_no_longer_than_it_may_and_says_what_is_there(og: Run, node: ObjectNode, notes: Path) -> None:
    node.acking = False
    code, _, err = og("put", notes, "--timeout", "0.05")
    assert code == exits.FAILED
    assert "acks of 0.0 of 2.0" in err
    assert len(node.objects) == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "2.0001", "much"])
def test_a_weight_that_is_none_is_a_usage_error(og: Run, node: ObjectNode, notes: Path, wrong: str) -> None:
    code, _, _ = og("put", notes, f"--required={wrong}")
    assert code == exits.USAGE
    assert not node.calls["PutObject"]


@pytest.mark.parametrize("becomes", [KeyboardInterrupt, SystemError])
@pytest.mark.usefixtures("node")
def test_put_says_how_it_goes_on_when_it_is_interrupted_whatever_a_library_makes_of_that(
    og: Run, notes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, becomes: type[BaseException]
) -> None:
    def put(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise becomes("an interrupt") from None

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Objects, "put", put)
    code, out, err = og("put", notes)
    assert (code, out) == (exits.INTERRUPTED, "")
    assert err == "broken off: what has come so far is kept for a day; the same command goes on with it\n"


def test_put_of_no_file_is_a_usage_error(og: Run, node: ObjectNode, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "does not exist"), (tmp_path, "there is no file")):
        code, _, err = og("put", path)
        assert code == exits.USAGE
        assert why in err
    assert not node.calls


def test_put_reads_a_pipe(og: Run, node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe"), isatty=lambda: False))
    code, out, _ = og("put", "-", "--name", "piped", "--json")
    assert code == exits.OK
    assert node.held == {"o-1": b"from a pipe"}
    assert json.loads(out)["object"]["name"] == "piped"


def test_get_writes_a_file_under_its_own_name_unless_that_is_taken(
    og: Run, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    og("put", notes)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, _ = og("get", "notes.txt")
    assert (code, out) == (exits.OK, "12 bytes in notes.txt\n")
    assert Path("notes.txt").read_text() == "what I wrote"
    code, _, err = og("get", "notes.txt")
    assert code == exits.USAGE
    assert "-o FILE" in err


@pytest.mark.parametrize("name", ["", "../notes.txt", "/etc/notes.txt", ".profile", "a\x1b[2J/b"])
def test_get_takes_no_name_from_the_mesh_that_leads_elsewhere(
    og: Run, node: ObjectNode, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with offgrid.connect(node.address) as client:
        made = client.objects.put(b"x", name=name)
    code, _, err = og("get", made.object_id)
    assert code == exits.USAGE
    assert "\x1b" not in err
    assert list(tmp_path.iterdir()) == []


def test_get_writes_a_pipe_and_nothing_else(node: ObjectNode, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with offgrid.connect(node.address) as client:
        client.objects.put(bytes(range(256)), name="n")
    assert run(["--socket", node.address, "get", "n", "-o", "-"]) == exits.OK
    assert capsysbinary.readouterr().out == bytes(range(256))


def test_get_of_nothing_leaves_nothing(og: Run, tmp_path: Path) -> None:
    code, _, err = og("get", "none", "-o", tmp_path / "out")
    assert code == exits.NOT_FOUND
    assert "there is no object none" in err
    assert list(tmp_path.iterdir()) == []


def test_ls_and_info(og: Run, notes: Path) -> None:
    assert og("ls")[1] == "there are no objects\n"
    og("put", notes)
    out = og("ls")[1]
    assert "notes.txt" in out
    assert "2.0 of 2.0" in out
    assert json.loads(og("--json", "info", "notes.txt")[1])["object"]["acked_milli"] == 2_000
    assert [made["name"] for made in json.loads(og("ls", "--json")[1])["objects"]] == ["notes.txt"]


@pytest.mark.parametrize("alone", ["--deleted", "--regained"])
@pytest.mark.parametrize("beside", ["photos/", "--shared", "--at-risk", "--long"])
def test_a_list_of_its_own_takes_nothing_that_it_would_not_heed(og: Run, alone: str, beside: str) -> None:
    code, out, err = og("ls", alone, beside)
    assert (code, out) == (2, "")
    assert f"{alone} is a list of its own" in err


@pytest.mark.parametrize("shared", [False, True])
def test_ls_shows_what_is_sound_then_names_what_is_damaged_and_fails(
    og: Run, node: ObjectNode, notes: Path, shared: bool
) -> None:
    og("put", notes)
    node.shared, node.damaged = node.objects, ["o-bad"]
    options = ["--shared"] if shared else []
    code, out, err = og("ls", *options)
    assert code == exits.INTERNAL
    assert "notes.txt" in out
    assert err.startswith("offgrid: the node's store has damaged rows, and cannot say what these objects are: o-bad\n")
    code, out, err = og("ls", "--json", *options)
    assert code == exits.INTERNAL
    assert [made["name"] for made in json.loads(out)["objects"]] == ["notes.txt"]
    assert (json.loads(err)["error"]["reason"], "o-bad" in json.loads(err)["error"]["message"]) == ("RowsDamaged", True)


def test_info_says_what_an_object_was_called_before_it_was_sealed_anew(og: Run, node: ObjectNode, notes: Path) -> None:
    og("put", notes)
    assert "formerly" not in og("info", "notes.txt")[1]
    next(iter(node.objects.values())).formerly.extend(["o-8", "o-9"])
    assert "o-8, o-9\n" in og("info", "notes.txt")[1]


def test_info_says_what_an_object_waits_for(og: Run, node: ObjectNode, notes: Path) -> None:
    node.troubles = ["no host is there"]
    og("put", notes, "--no-wait")
    assert "trouble    no host is there\n" in og("info", "notes.txt")[1]
    assert "trouble" not in og("info", "notes.txt")[1]


def test_outbox_says_what_keeps_an_entry_waiting(og: Run, node: ObjectNode) -> None:
    assert og("outbox", "--open")[1] == "nothing waits\n"
    with offgrid.connect(node.address) as client:
        client.objects.enqueue("order-17", b"x", 15, 2_000)
    out = og("outbox")[1]
    assert "JOB_DISPATCHED" in out
    assert "order-17" in out
    assert "no host is there" in out
    assert "0.0 of 2.0" in out
    og("outbox", "--open")
    assert node.calls["ListOutbox"][-1].open_only
    (entry,) = json.loads(og("outbox", "--json")[1])["entries"]
    assert (entry["key"], entry["status"]) == ("order-17", "OUTBOX_STATUS_PENDING")


def test_get_says_whom_it_waits_for_and_not_for_ever(
    og: Run, node: ObjectNode, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "SILENT_S", 0.6)
    monkeypatch.setattr(parts_module, "ASK_AGAIN_S", 1.2)
    og("put", notes)
    away = Unavailable("none of its hosts gives one: barn\x1b[2J is not alive", reason="NoReplica", retry_ms=5_000)
    node.stumble("ReadObject", *[away] * 100)
    code, out, err = og("get", "notes.txt", "-o", "-", "--timeout", "2")
    assert (code, out) == (exits.UNAVAILABLE, "")
    assert err.splitlines() == [
        "o-1 waits: none of its hosts gives one: barn�[2J is not alive",
        "  → asked for again for 2 s; --timeout says how long",
        "offgrid: none of its hosts gives one: barn�[2J is not alive",
        *err.splitlines()[3:],
    ]
    node.stumble("ReadObject", *[away] * 100)
    code, out, err = og("--json", "get", "notes.txt", "-o", "-", "--timeout", "0.1")
    assert json.loads(err.splitlines()[-1])["error"]["reason"] == "NoReplica"


def test_outbox_cancel_gives_an_entry_up(og: Run, node: ObjectNode) -> None:
    with offgrid.connect(node.address) as client:
        made = client.objects.enqueue("order-17", b"x", 15, 9_000)
        assert og("outbox", "cancel", "1") == (
            exits.OK, f"entry 1 is cancelled; {made.object_id} is kept on this node alone\n", "")  # fmt: skip
        assert json.loads(og("outbox", "cancel", "1", "--json")[1])["entry"]["status"] == "OUTBOX_STATUS_CANCELLED"
        assert "cancelled" in og("outbox")[1]
        node.acking = False
        with pytest.raises(offgrid.OffgridError, match="given up") as caught:
            client.objects.wait_durable(made.object_id)
    assert caught.value.reason == "Cancelled"
    assert og("outbox", "cancel", "none")[0] == exits.USAGE


NOT_TEXT = os.fsdecode(b"caf\xe9\n.txt")


def test_a_file_whose_name_is_no_text_is_put_under_one_that_is(og: Run, node: ObjectNode, tmp_path: Path) -> None:
    (tmp_path / NOT_TEXT).write_bytes(b"x")
    assert og("put", tmp_path / NOT_TEXT)[0] == exits.OK
    assert node.calls["PutObject"][0].name == "caf��.txt"


@pytest.mark.parametrize("name", [NOT_TEXT, "a\tb", "a\x1b[2J"])
def test_a_name_that_is_no_text_is_a_usage_error(og: Run, node: ObjectNode, notes: Path, name: str) -> None:
    code, _, err = og("put", notes, "--name", name)
    assert (code, node.calls["PutObject"]) == (exits.USAGE, [])
    assert "�" in err


def test_what_is_asked_for_in_bytes_that_are_no_text_is_a_usage_error(og: Run) -> None:
    code, _, err = og("info", NOT_TEXT)
    assert code == exits.USAGE
    assert "UTF-8" in err


def test_a_file_to_write_may_have_any_name(og: Run, notes: Path, tmp_path: Path) -> None:
    og("put", notes)
    for argv in (["get", "notes.txt"], ["--json", "get", "notes.txt"]):
        assert og(*argv, "-o", tmp_path / NOT_TEXT)[0] == exits.OK
    assert (tmp_path / NOT_TEXT).read_text() == "what I wrote"


def test_a_closed_standard_input_is_a_usage_error(og: Run, node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = og("put", "-", "--name", "piped")
    assert (code, node.calls["PutObject"]) == (exits.USAGE, [])
    assert "standard input is closed" in err


def test_an_object_called_dash_is_not_poured_out(og: Run, node: ObjectNode, notes: Path) -> None:
    og("put", notes, "--name", "-")
    code, out, err = og("get", "--", "-")
    assert (code, out) == (exits.USAGE, "")
    assert "-o FILE" in err


def test_get_follows_no_link_that_it_was_not_told_of(
    og: Run, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    og("put", notes)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("notes.txt").symlink_to("../elsewhere")
    assert og("get", "notes.txt")[0] == exits.USAGE
    assert not (tmp_path / "elsewhere").exists()


def test_get_says_at_once_that_it_cannot_write(og: Run, node: ObjectNode, tmp_path: Path) -> None:
    code, _, err = og("get", "anything", "-o", tmp_path / "none" / "out")
    assert (code, node.calls["GetObject"]) == (exits.USAGE, [])
    assert f"{tmp_path}/none/out: No such file or directory" in err


def test_long_names_are_cut_in_tables_and_nowhere_else(og: Run, node: ObjectNode, notes: Path) -> None:
    long = "n" * 256
    og("put", notes, "--name", long)
    with offgrid.connect(node.address) as client:
        client.objects.enqueue(long, b"x", 15, 2_000)
    for command in ("ls", "outbox"):
        assert f"{'n' * 39}… " in og(command)[1]
        assert long in og(command, "--json")[1]
    assert long in og("info", long)[1]


def test_before_a_member_is_removed_it_is_said_what_is_lost_with_it(og: Run, node: ObjectNode, notes: Path) -> None:
    og("put", notes, "--name", "at barn alone")
    og("put", notes, "--name", "here too")
    made = next(each for each in node.objects.values() if each.name == "at barn alone")
    made.local = False
    del made.acks[:]
    made.acks.add(node_id=OTHER_ID)
    code, _, err = og("mesh", "remove", "barn")
    assert code == exits.USAGE
    assert "lost with it: 1 object (at barn alone), unless `offgrid get` brings them first\n" in err
    code, out, err = og("mesh", "remove", "barn", "--yes")
    assert (code, out) == (0, f"removed barn ({OTHER_ID})\n")
    assert err.startswith("lost with it: 1 object (at barn alone)")


def test_a_member_is_removed_also_where_the_objects_cannot_be_looked_at(og: Run, node: ObjectNode) -> None:
    node.stumble("ListObjects", FailedPrecondition("the disk is away", reason="DiskError"))
    code, out, err = og("mesh", "remove", "barn", "--yes")
    assert (code, out) == (0, f"removed barn ({OTHER_ID})\n")
    assert err.startswith("lost with it: not known (")
