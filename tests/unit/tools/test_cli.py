"""`offgrid`: what it prints for people and for scripts, and how it ends. A node in small answers over real gRPC."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_run import OFFGRID, Run
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.command_line.terminal import clean
from offgrid.v1 import mesh_pb2
from offgrid_tools.cli import run
from offgrid_tools.cli.output import duration, number, size
from offgrid_tools.cli.times import since_us

COMMANDS = (
    [], ["status"], ["peers"], ["mesh"], ["mesh", "invite"], ["mesh", "remove"], ["mesh", "members"],
    ["ping"], ["trace"], ["link"], ["link", "list"], ["link", "airtime"],
    ["mission"], ["mission", "create"], ["mission", "list"], ["mission", "show"], ["mission", "update"],
    ["task"], ["task", "create"], ["task", "list"], ["task", "show"],
    ["job"], ["job", "run"], ["job", "submit"], ["job", "array"], ["job", "logs"], ["job", "cancel"], ["job", "why"],
    ["job", "top"],
    ["job", "create"], ["job", "dispatch"], ["job", "watch"], ["job", "list"], ["job", "show"],
    ["job", "receipt"], ["job", "verify-receipt"],
    ["schedule"], ["schedule", "add"], ["schedule", "list"], ["schedule", "pause"], ["schedule", "resume"],
    ["schedule", "rm"], ["host"], ["host", "show"], ["host", "toggle"], ["host", "drain"],
    ["market"], ["transfer"], ["balance"], ["history"], ["bookings"], ["tx"], ["tx", "show"],
    ["ledger"], ["ledger", "open"], ["ledger", "status"], ["events"], ["sim"], ["sim", "ledger"],
    ["put"], ["get"], ["ls"], ["info"], ["outbox"],
    ["mail"], ["mail", "send"], ["mail", "job"], ["mail", "sent"], ["mail", "show"], ["mail", "inbox"],
    ["mail", "read"], ["mail", "rm"], ["mail", "held"],
    ["quorum"], ["quorum", "create"], ["quorum", "ack"], ["quorum", "status"], ["quorum", "list"],
)  # fmt: skip


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_explains_itself(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*command, "--help"]) == exits.OK
        said = capsys.readouterr().out
        assert said.startswith(f"Usage: {' '.join(['offgrid', *command])}")
        assert "--json" in said
        assert "--socket" in said

    def test_the_table_and_the_commands_say_the_same(self) -> None:
        from offgrid.command_line.groups import LazyGroup
        from offgrid_tools.cli.root import ROOT

        def walk(group: LazyGroup) -> None:
            for name, entry in group.entries.items():
                command = group.get_command(None, name)
                assert command is not None
                assert command.name == name
                if isinstance(command, LazyGroup):
                    walk(command)
                else:
                    assert entry.summary.rstrip(".").split(",")[0].split()[0] in (command.help or ""), name

        walk(ROOT)

    def test_exit_codes_are_in_the_help_and_in_the_documentation(self, capsys: pytest.CaptureFixture[str]) -> None:
        run(["--help"])
        shown = capsys.readouterr().out
        documented = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
        for code, meaning in exits.MEANINGS.items():
            assert re.search(rf"^ +{code} +{re.escape(meaning)}$", shown, re.MULTILINE)
            assert f"| {code} | {meaning} |" in documented

    @pytest.mark.parametrize("argv", [["--help"], ["job", "run", "--help"], ["events", "--help"], ["--version"]])
    def test_help_loads_nothing_that_is_slow(self, argv: list[str]) -> None:
        slow = [
            "grpc",
            "rich",
            "google.protobuf",
            "asyncio",
            "importlib.metadata",
            "offgrid.client",
            "offgrid_node",
            "shutil",
        ]
        code = (
            "import sys; from offgrid_tools.cli import run; "
            f"code = run({argv!r}); print([m for m in {slow!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stderr.strip() == "[]"


class TestForPeople:
    def test_status(self, og: Run) -> None:
        code, out, err = og("status")
        assert (code, err) == (0, "")
        assert "node     attic (aaaa" in out
        assert "2 of 2 alive" in out
        assert "ledger   4 witnesses, 1 pending" in out
        assert "coder    isa-l" in out
        assert "the clock is 3 s behind" in out

    def test_status_names_the_page_as_others_reach_it(self, og: Run, node: SmallNode) -> None:
        url = "http://192.0.2.7:8001"
        node.on_GetStatus = lambda request: mesh_pb2.GetStatusResponse(gateway="http://127.0.0.1:8001", page=url)
        assert ["page", url] in [line.split() for line in og("status")[1].splitlines()]

    @pytest.mark.parametrize(("seq", "said"), [(None, ""), (0, "nothing yet: hosts"), (7, "up to event 7")])
    def test_status_says_up_to_where_the_node_would_come_back(
        self, og: Run, node: SmallNode, seq: int | None, said: str
    ) -> None:
        node.on_GetStatus = lambda request: mesh_pb2.GetStatusResponse(journal_safe_seq=seq)
        out = og("status")[1]
        assert f"restores  {said}" in out if said else "restores" not in out

    def test_status_tells_what_scrub_and_audits_found(self, og: Run, node: SmallNode) -> None:
        assert "scrub" not in og("status")[1]
        node.on_GetStatus = lambda request: mesh_pb2.GetStatusResponse(
            scrub_read_bytes=3_000_000, scrub_damaged=1, audit_verified=12, audit_oldest_us=1_700_000_000_000_000,
            audit_wrong=2, audit_read_bytes=900,
        )  # fmt: skip
        out = og("status")[1]
        assert "scrub    3.0 MB read, shards damaged or gone: 1" in out
        assert "audits   objects verified: 12, the longest ago 2023-11-1" in out
        assert ", shards wrong or gone: 2, 900 bytes read" in out

    def test_status_tells_what_is_beyond_a_threshold(self, og: Run, node: SmallNode) -> None:
        ok, critical = mesh_pb2.ALERT_STATE_OK, mesh_pb2.ALERT_STATE_CRITICAL
        node.on_GetStatus = lambda request: mesh_pb2.GetStatusResponse(
            alerts=[
                mesh_pb2.Alert(
                    name="frame_ms", about="s-1", state=critical, value=40.25, threshold=16.67,
                    since_us=1_700_000_000_000_000,
                ),
                mesh_pb2.Alert(name="memory_mb", state=ok, value=90, threshold=4_096),
            ]
        )  # fmt: skip
        out = og("status")[1]
        assert "critical: frame_ms 40.25, more than 16.67 of session s-1, since 2023-11-1" in out
        assert "memory_mb" not in out

    def test_tables_are_plain_columns_where_there_is_no_terminal(self, og: Run) -> None:
        _, out, _ = og("peers")
        assert [line.split()[0] for line in out.splitlines()] == ["NAME", "attic", "barn"]
        assert "\x1b" not in out

    def test_an_empty_list_is_a_sentence(self, og: Run) -> None:
        assert og("mission", "list") == (0, "there are no missions\n", "")

    def test_an_invite_alone_on_standard_output(self, og: Run) -> None:
        code, out, err = og("mesh", "invite", "--role", "host", "--weight", "2")
        assert (code, out) == (0, "og1:secret\n")
        assert "offgrid-node join" in err

    def test_a_link_to_the_page_alone_on_standard_output(self, og: Run) -> None:
        assert og("page") == (0, "http://127.0.0.1:8001/#code=abc\n", "")

    def test_members_and_removal(self, og: Run) -> None:
        assert og("mesh", "remove", "--yes", "barn")[1] == f"removed barn ({OTHER_ID})\n"
        assert "removed" in og("mesh", "members")[1].splitlines()[2]
        assert len(og("peers")[1].splitlines()) == 2

    def test_missions_and_tasks(self, og: Run, node: SmallNode) -> None:
        assert og("mission", "create", "survey", "--description", "of the orchard")[0] == 0
        mission_id = next(iter(node.missions))
        assert "completed" in og("mission", "update", mission_id, "--status", "completed")[1]
        assert "of the orchard" in og("mission", "show", mission_id)[1]
        assert mission_id in og("mission", "list")[1]
        assert og("task", "create", mission_id, "count", "--kind", "wasm")[0] == 0
        task_id = next(iter(node.tasks))
        assert "wasm" in og("task", "show", task_id)[1]
        assert task_id in og("task", "list", "--mission", mission_id)[1]

    def test_the_market(self, og: Run) -> None:
        out = og("market")[1]
        assert "3/4" in out
        assert "room=barn" in out
        assert "2 orders wait" in out

    def test_what_the_mesh_says_cannot_drive_the_terminal(self, og: Run, node: SmallNode) -> None:
        node.missions["m-1"] = _mission("m-1", "evil\x1b]0;x\x07\u202etitle")
        assert og("mission", "list")[1].splitlines()[1].endswith("evil�]0;x��title")

    def test_units(self) -> None:
        assert [duration(ms) for ms in (0.5, 1500, 90_000, 5_400_000)] == ["0.5 ms", "1.5 s", "1.5 min", "1.5 h"]
        assert [size(n) for n in (999, 1_500, 2_000_000)] == ["999 bytes", "1.5 kB", "2.0 MB"]
        assert [number(n) for n in (0.000001, 1.5, 2, 0)] == ["0.000001", "1.5", "2", "0"]
        assert clean("a\nb\x00") == "a�b�"


class TestJobs:
    def test_run_shows_output_and_receipt(self, og: Run, text: str, node: SmallNode) -> None:
        code, out, err = og("job", "run", text, "--command", "wc", "--timeout", "2.5", "--mode", "offgrid", "--", "-w")
        assert code == 0
        assert "3 words" in out
        assert f"signed by barn ({OTHER_ID})" in out
        assert [line.split()[1] for line in err.splitlines()] == ["running", "completed"]
        asked = node.calls["RunJobs"][0].jobs[0]
        assert (asked.timeout_ms, list(asked.payload.process.args), asked.payload.input_name) == (
            2500,
            ["-w"],
            "notes.txt",
        )

    def test_a_job_that_fails_ends_with_one(self, og: Run, text: str) -> None:
        code, out, err = og("job", "run", text, "--command", "false")
        assert code == exits.FAILED
        assert "ExecutionFailed" in out
        assert "ExecutionFailed" in err.splitlines()[-1]

    def test_a_module_and_its_arguments(self, og: Run, text: str, node: SmallNode, tmp_path: Path) -> None:
        (tmp_path / "m.wat").write_text("(module)", encoding="utf-8")
        assert og("job", "run", text, "--wasm", str(tmp_path / "m.wat"), "--arg", "a", "--", "b")[0] == 0
        wasm = node.calls["RunJobs"][0].jobs[0].payload.wasm
        assert (wasm.module, list(wasm.args)) == (b"(module)", ["a", "b"])

    def test_the_inputs_size_is_its_own_whatever_else_travels(
        self, og: Run, text: str, node: SmallNode, tmp_path: Path
    ) -> None:
        (tmp_path / "m.wat").write_text("(module)" + " " * 9_000, encoding="utf-8")
        assert "notes.txt (14 bytes)" in og("job", "run", text, "--wasm", str(tmp_path / "m.wat"))[1]
        assert "notes.txt (14 bytes)" in og("job", "show", next(iter(node.jobs)))[1]

    def test_output_to_a_file_and_to_standard_output_alone(self, text: str, tmp_path: Path, node: SmallNode) -> None:
        target = tmp_path / "out"
        done = _offgrid(node, "job", "run", text, "--command", "wc", "--output", str(target))
        assert target.read_bytes() == b"3 words\n"
        assert f"in {target}".encode() in done.stdout
        assert _offgrid(node, "job", "run", text, "--command", "wc", "--output", "-").stdout == b"3 words\n"

    def test_an_output_that_cannot_be_written_is_said_before_anything_is_done(
        self, og: Run, text: str, tmp_path: Path, node: SmallNode
    ) -> None:
        target = str(tmp_path / "none" / "out")
        code, _, err = og("job", "run", text, "--builtin", "echo", "--output", target)
        assert (code, node.calls["RunJobs"]) == (exits.USAGE, [])
        assert f"{target}: No such file or directory" in err

    def test_step_by_step(self, og: Run, text: str, node: SmallNode) -> None:
        og("mission", "create", "survey")
        og("task", "create", next(iter(node.missions)), "count")
        assert og("job", "create", text, "--task", next(iter(node.tasks)), "--command", "wc")[0] == 0
        job_id = next(iter(node.jobs))
        assert "a broker answered" in og("job", "dispatch", job_id)[1]
        assert [line.split()[1] for line in og("job", "watch", job_id)[1].splitlines()] == ["running", "completed"]
        assert "3 words" in og("job", "show", job_id)[1]
        assert job_id in og("job", "list")[1]

    def test_what_to_run_must_be_said_once(self, og: Run, text: str, node: SmallNode) -> None:
        for extra in ([], ["--wasm", text, "--command", "wc"], ["--builtin", "echo", "--command", "wc"]):
            code, _, err = og("job", "run", text, *extra)
            assert code == exits.USAGE
            said = "give one of them" if extra else "--wasm MODULE, --command NAME, --llm MODEL or --builtin NAME"
            assert said in err
        assert og("job", "run", text, "--builtin", "echo", "--arg", "a")[0] == exits.USAGE
        assert not node.calls

    def test_a_file_that_is_not_there_is_a_wrong_command_line(self, og: Run, text: str, node: SmallNode) -> None:
        for argv in (["/nowhere/x", "--command", "wc"], [text, "--wasm", "/nowhere/x"], ["/", "--command", "wc"]):
            code, out, err = og("job", "run", *argv)
            assert (code, out) == (exits.USAGE, "")
            assert "'/nowhere/x' does not exist" in err or "'/' is a directory" in err
        assert not node.calls


@pytest.mark.parametrize(
    "argv",
    [
        ["job", "list", "--limit"], ["events", "--limit"],
        ["mission", "list", "--limit"],
        ["state", "records", "s", "--frame"], ["state", "records", "s", "--limit"], ["state", "show", "s", "--after"],
        ["ledger", "epoch", "--epoch"],
        *(["job", "run", "f", option] for option in ("--max-tokens", "--replicas", "--quorum", "--size-tokens")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_number_larger_than_any_is_no_defect_of_the_command(og: Run, argv: list[str]) -> None:
    _, _, err = og(*argv, "9" * 20)
    assert "a defect" not in err


class TestEvents:
    def test_the_newest_oldest_first(self, og: Run, node: SmallNode) -> None:
        for count in range(4):
            og("mission", "create", f"mission {count}")
        lines = og("events", "--limit", "3")[1].splitlines()
        assert [line.split()[0] for line in lines] == ["SEQ", "2", "3", "4"]
        assert [line.split()[0] for line in og("events", "--limit", "0")[1].splitlines()[1:]] == ["1", "2", "3", "4"]

    def test_filters(self, og: Run, node: SmallNode, text: str) -> None:
        og("job", "run", text, "--command", "wc")
        job_id = next(iter(node.jobs))
        assert len(og("events", "--type", "job_created", "--type", "10")[1].splitlines()) == 3
        assert len(og("events", "--subject", job_id)[1].splitlines()) == 3
        assert len(og("events", "--since", "2040-01-01")[1].splitlines()) == 1

    def test_an_unknown_type_or_time_is_explained(self, og: Run) -> None:
        code, _, err = og("events", "--type", "JOB_CREATE")
        assert code == exits.USAGE
        assert "did you mean JOB_CREATED?" in err
        code, _, err = og("events", "--since", "yesterday")
        assert code == exits.USAGE
        assert "10m" in err

    def test_times(self) -> None:
        assert since_us("10m", 3_600_000_000) == 3_000_000_000
        assert since_us("1.5h", 7_200_000_000) == 1_800_000_000
        assert since_us("1970-01-01T00:00:01+00:00", 0) == 1_000_000
        assert since_us("20261120", 0) == since_us("2026-11-20", 0)

    @pytest.mark.parametrize("text", ["1763880000", "1763880000.0", "1763880000000", "1763880000000000"])
    def test_a_number_is_seconds_milliseconds_or_microseconds_by_how_large_it_is(self, text: str) -> None:
        assert since_us(text, 0) == 1_763_880_000_000_000

    @pytest.mark.parametrize("option", ["--since", "--until"])
    @pytest.mark.parametrize("text", ["42", "10000000000000000", "9" * 5_000, f"{'9' * 400}d"])
    def test_a_number_that_is_no_time_is_explained(self, og: Run, option: str, text: str) -> None:
        code, _, err = og("events", option, text)
        assert code == exits.USAGE
        assert "2026-11-20T08:00" in err

    def test_followed_as_a_stream_until_interrupted(self, og: Run, node: SmallNode) -> None:
        og("mission", "create", "before")
        argv = [*OFFGRID, "--json", "--socket", node.address, "events", "--follow"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            assert follower.stderr is not None
            assert json.loads(follower.stdout.readline())["event"]["seq"] == 1
            og("mission", "create", "after")
            assert json.loads(follower.stdout.readline())["event"]["mission"]["title"] == "after"
            follower.send_signal(signal.SIGINT)
            assert follower.wait(10) == exits.INTERRUPTED
            assert follower.stderr.read().strip() == ""


class TestForScripts:
    def test_shapes(self, og: Run, node: SmallNode, text: str) -> None:
        assert og.json("status")["journal_seq"] == 0
        assert og.json("mission", "create", "survey")["mission"]["title"] == "survey"
        mission_id = next(iter(node.missions))
        assert og.json("task", "create", mission_id, "count")["task"]["mission_id"] == mission_id
        assert og.json("job", "run", text, "--command", "wc")["job"]["state"] == "JOB_STATE_COMPLETED"
        job_id = next(iter(node.jobs))
        assert og.json("job", "dispatch", job_id).keys() == {"job", "route", "reason"}
        for argv, key in (
            (("peers",), "peers"), (("mesh", "members"), "members"), (("mission", "list"), "missions"),
            (("task", "list"), "tasks"), (("job", "list"), "jobs"), (("events",), "events"), (("market",), "entries"),
        ):  # fmt: skip
            assert isinstance(og.json(*argv)[key], list), argv
        assert og.json("mesh", "invite") == {"token": "og1:secret", "invite_id": "i-1"}
        assert og.json("mesh", "remove", "--yes", "barn")["member"]["removed"] is True

    def test_fields_are_the_wires_own(self, og: Run, text: str) -> None:
        job = og.json("job", "run", text, "--command", "wc")["job"]
        assert job["size_tokens"] == 2**40, "64-bit numbers are numbers"
        assert job["result"]["receipt"]["facts"]["compute_tokens_m"] == 1.5
        assert base64.b64decode(job["result"]["output"]) == b"3 words\n"
        assert base64.b64decode(job["payload_digest"]) == b"\x00\xff"
        assert job["route"] == "ROUTE_OFFGRID"
        assert og.json("job", "list")["jobs"][0]["attempts"] == []
        assert og.json("market")["entries"][0]["profile"]["labels"] == {"room": "barn"}

    def test_what_is_not_set_is_null_or_empty(self, og: Run, node: SmallNode) -> None:
        node.jobs["j-1"] = _job("j-1")
        job = og.json("job", "show", "j-1")["job"]
        assert job["result"] is None
        assert (job["host"], job["attempt"], job["state"]) == ("", 0, "JOB_STATE_CREATED")

    def test_only_the_data_that_an_event_has(self, og: Run) -> None:
        og("mission", "create", "survey")
        event = og.json("events")["events"][0]
        assert event["mission"]["title"] == "survey"
        assert "job" not in event

    def test_streams_are_a_document_per_line(self, og: Run, node: SmallNode, text: str) -> None:
        og("job", "run", text, "--command", "false")
        code, out, _ = og("job", "watch", next(iter(node.jobs)), "--json")
        assert code == exits.FAILED
        assert [json.loads(line)["job"]["state"] for line in out.splitlines()] == ["JOB_STATE_FAILED"]

    def test_the_option_may_come_first_or_last(self, og: Run) -> None:
        assert json.loads(og("status", "--json")[1]) == json.loads(og("--json", "status")[1])

    def test_errors_are_a_document_on_standard_error(self, og: Run) -> None:
        code, out, err = og("--json", "mission", "create", "")
        assert (code, out) == (exits.USAGE, "")
        error = json.loads(err)["error"]
        assert (error["code"], error["exit_code"]) == ("INVALID_ARGUMENT", exits.USAGE)
        assert error["violations"][0]["field"] == "title"
        assert json.loads(og("--json", "nonsense")[2])["error"]["exit_code"] == exits.USAGE
        assert og("job", "run", "x", "--", "--json")[2].startswith("offgrid:"), "behind -- it is the program's"


class TestTheSimulator:
    def test_replays_a_seed_without_a_node(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = []
        for _ in range(2):
            assert run(["--json", "sim", "--seed", "3"]) == exits.OK
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]
        assert json.loads(said[0])["seed"] == 3

    @pytest.mark.parametrize("which", [["sim"], ["sim", "ledger"]], ids=" ".join)
    def test_an_unknown_bug_is_a_usage_error(self, which: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*which, "--seed", "3", "--mutant", "nope"]) == exits.USAGE
        assert "there are " in capsys.readouterr().err

    @pytest.mark.parametrize("which", [["sim"], ["sim", "ledger"]], ids=" ".join)
    def test_it_needs_a_seed(self, which: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert run(which) == exits.USAGE
        assert "--seed" in capsys.readouterr().err

    def test_replays_a_seed_of_the_ledger_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["--json", "sim", "ledger", "--seed", "3"]) == exits.OK
        assert all(report["seed"] == 3 and report["final"] for report in json.loads(capsys.readouterr().out))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
class TestOnATerminal:
    def _on_terminal(self, node: SmallNode, *argv: str, **env: str) -> str:
        import pty

        ours, theirs = pty.openpty()
        variables = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "120"} | env
        command = [*OFFGRID, "--socket", node.address, *argv]
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=variables) as shown:
            os.close(theirs)
            said = b""
            try:
                while chunk := os.read(ours, 65536):
                    said += chunk
            except OSError:
                pass  # Linux says EIO when the other side has gone
            assert shown.wait(10) == 0
        os.close(ours)
        return said.decode()

    def test_colour_unless_refused(self, node: SmallNode) -> None:
        assert "\x1b[32malive" in self._on_terminal(node, "peers")
        assert "\x1b[3" not in self._on_terminal(node, "peers", NO_COLOR="1")
        assert "\x1b[" in self._on_terminal(node, "status")
        assert "\x1b[" not in self._on_terminal(node, "status", NO_COLOR="1")

    def test_json_is_plain(self, node: SmallNode) -> None:
        assert "\x1b" not in self._on_terminal(node, "--json", "peers")


def _offgrid(node: SmallNode, *argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*OFFGRID, "--socket", node.address, *argv], capture_output=True, check=True)


def _mission(mission_id: str, title: str):
    from offgrid.v1.jobs_pb2 import Mission

    return Mission(mission_id=mission_id, title=title, status="active")


def _job(job_id: str):
    from offgrid.v1.jobs_pb2 import JOB_STATE_CREATED, Job

    return Job(job_id=job_id, state=JOB_STATE_CREATED)
