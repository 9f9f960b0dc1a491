"""`offgrid mail`: what is sent, what came of it, what came here, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import jobs_pb2, mail_pb2
from offgrid_tools.cli import run


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode):  # type: ignore[no-untyped-def]
    def command(*argv: str) -> tuple[int, str, str]:
        code = run(["--socket", node.address, *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_a_text_is_sent_and_the_number_told(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = og("mail", "send", "barn", "--text", "hello", "--expires", "2h")
    assert (code, "number" in out, "waiting" in out) == (exits.OK, True, True)
    request = node.calls["SendMail"][0]
    assert (request.node, request.message.data, request.message.name) == ("barn", b"hello", "")
    assert request.expires_in_ms == 7_200_000
    assert request.request_id


def test_a_file_goes_with_its_name(og, node: SmallNode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    map_file = tmp_path / "map.png"
    map_file.write_bytes(b"\x89PNG")
    og("mail", "send", "barn", "--file", str(map_file))
    assert (node.calls["SendMail"][0].message.name, node.calls["SendMail"][0].message.data) == ("map.png", b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "--text"),
        (["--text", "a", "--file", __file__], "one of them"),
        (["--text", "a", "--expires", "soon"], "soon"),
        (["--text", "a" * 65_537], "65536"),
    ],
)
def test_what_cannot_be_sent_is_a_usage_error(og, node: SmallNode, wrong: list[str], said: str) -> None:  # type: ignore[no-untyped-def]
    code, _, err = og("mail", "send", "barn", *wrong)
    assert (code, said in err) == (exits.USAGE, True)
    assert node.calls["SendMail"] == []


def test_a_job_is_sent_and_its_result_shown(og, node: SmallNode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    notes = tmp_path / "notes.txt"
    notes.write_text("one two")
    code, out, _ = og("--json", "mail", "job", "barn", str(notes), "--command", "wc", "--timeout", "5", "--", "-w")
    assert (code, json.loads(out)["mail"]["state"]) == (exits.OK, "MAIL_STATE_WAITING")
    job = node.calls["SendMail"][0].job.job
    assert (job.payload.process.command, job.payload.input, job.timeout_ms) == ("wc", b"one two", 5_000)
    ended = jobs_pb2.Job(job_id="j-1", state=jobs_pb2.JOB_STATE_COMPLETED)
    ended.result.output = b"2\n"
    node.mail[1].job.job.CopyFrom(ended)
    assert og("mail", "show", "1", "--output", "-")[:2] == (exits.OK, "2\n")
    node.mail[1].job.job.result.output_object = "o-large"
    code, out, err = og("mail", "show", "1", "--output", "-")
    assert (code, out, "o-large" in err) == (exits.USAGE, "", True)


def test_how_it_ended_is_shown(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    og("mail", "send", "barn", "--text", "hello")
    assert og("mail", "show", "1")[0] == exits.OK
    node.mail[1].mail.state = mail_pb2.MAIL_STATE_EXPIRED
    assert "not known" in og("mail", "show", "1")[1]
    node.mail[1].mail.state, node.mail[1].reason, node.mail[1].detail = mail_pb2.MAIL_STATE_REFUSED, "NotForUs", "no"
    assert "NotForUs: no" in og("mail", "show", "1")[1]
    assert og("mail", "show", "2")[0] == exits.BY_CODE["NOT_FOUND"]


def test_lists_go_on_to_their_end(og, node: SmallNode) -> None:  # type: ignore[no-untyped-def]
    for _ in range(5):
        og("mail", "send", "barn", "--text", "hello")
    assert len(json.loads(og("--json", "mail", "sent")[1])["mail"]) == 5
    assert og("mail", "sent", "--limit", "3")[1].count("barn") == 3
    box = json.loads(og("--json", "mail", "held")[1])
    assert (len(box["parcels"]), box["count"], box["limit_bytes"]) == (3, 3, 16_777_216)
    assert "3 parcels" in og("mail", "held")[1]


def test_what_came_is_listed_read_and_deleted(og, node: SmallNode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert json.loads(og("--json", "mail", "inbox")[1])["messages"][0]["source"] == OTHER_ID
    assert node.calls["ListMessages"][-1].newest_first, "of many --limit shows the newest"
    assert "msg-a" in og("mail", "inbox")[1]
    assert "hello" in og("mail", "read", "msg-a")[1]
    assert og("mail", "read", "msg-a", "--output", "-")[1] == "hello"
    og("mail", "read", "msg-a", "--output", str(tmp_path / "m"))
    assert (tmp_path / "m").read_bytes() == b"hello"
    assert og("mail", "rm", "msg-a")[0] == exits.OK
    assert "no messages" in og("mail", "inbox")[1]
