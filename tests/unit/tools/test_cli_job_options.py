"""`offgrid job run`, `submit` and `array`: what is asked for reaches the node, and what is wrong is said before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_run import OFFGRID, Run
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid_tools.cli.job_options import program_of


class TestTerms:
    def test_reach_the_node(self, og: Run, text: str, node: SmallNode) -> None:
        code, _, err = og(
            "job", "run", text, "--command", "wc", "--requires", "cpus >= 2", "--priority", "-5", "--deadline",
            "2100-01-01T00:00+00:00", "--after", "j-a", "--after", "j-b", "--replicas", "3", "--adaptive",
            "--price-max", "1.5", "--timeout", "2.5", "--size-tokens", "7", "--output-file", "*.csv",
            "--file", "a=o-xyz", "--losses-max", "3",
        )  # fmt: skip
        assert code == 0, err
        [spec] = node.calls["RunJobs"][0].jobs
        assert (spec.requirements, spec.priority, spec.deadline_us) == ("cpus >= 2", -5, 4_102_444_800_000_000)
        assert (list(spec.after), spec.replicas, spec.quorum, spec.adaptive) == (["j-a", "j-b"], 3, 2, True)
        assert (spec.price_max_micro, spec.timeout_ms, spec.size_tokens, spec.losses_max) == (1_500_000, 2500, 7, 3)
        assert list(spec.payload.outputs) == ["*.csv"]
        assert [(file.name, file.object_id) for file in spec.payload.files] == [("a", "o-xyz")]

    def test_a_question_to_a_model(self, og: Run, text: str, node: SmallNode) -> None:
        said = ["--llm", "llama3", "--system", "Be brief.", "--max-tokens", "9", "--temperature", "0"]
        assert og("job", "run", text, *said)[0] == 0
        [spec] = node.calls["RunJobs"][0].jobs
        llm = spec.payload.llm
        assert (llm.model, llm.max_tokens, llm.temperature, llm.HasField("temperature")) == ("llama3", 9, 0, True)
        assert [(message.role, message.content) for message in llm.messages] == [("system", "Be brief.")]
        assert spec.payload.input == b"one two three\n"
        assert [task.kind for task in node.tasks.values()] == ["llm_call"]

    @pytest.mark.parametrize(
        ("extra", "says"),
        [
            (["--deadline", "soon"], "10m (from now)"),
            (["--quorum", "2"], "--replicas 2 or more"),
            (["--replicas", "2", "--quorum", "3"], "3 of 2 executions cannot agree"),
            (["--file", "a"], "NAME=VALUE"),
            (["--file", "a=/nowhere/x"], "no such file"),
            (["--file", "a=o-x", "--file", "a=o-y"], "there twice"),
            (["--priority", "101"], "-100 to 100 are allowed"),
            (["--timeout", "0.01"], "0.1 to 86400 are allowed"),
            (["--llm", "m"], "--command and --llm are different things to run"),
            (["--system", "x"], "for --llm"),
            (["--price-max", "0"], "more than"),
            (["--losses-max", "101"], "1 to 100 are allowed"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_done(
        self, og: Run, text: str, node: SmallNode, extra: list[str], says: str
    ) -> None:
        code, _, err = og("job", "run", text, "--command", "wc", *extra)
        assert (code, says in err) == (exits.USAGE, True), err
        assert not node.calls

    def test_another_jobs_output_takes_the_place_of_the_file(self, og: Run, text: str, node: SmallNode) -> None:
        said = "--command", "wc", "--input-from", "j-a", "--after", "j-b"
        assert og("job", "submit", "-", *said)[0] == 0
        [spec] = node.calls["RunJobs"][0].jobs
        assert (spec.payload.input_job, list(spec.after), spec.payload.input) == ("j-a", ["j-b", "j-a"], b"")
        assert og("job", "submit", text, *said)[0] == exits.USAGE
        assert og("job", "array", text, *said)[0] == exits.USAGE

    def test_are_those_of_a_job_that_is_only_made_or_only_sent(self, og: Run, text: str, node: SmallNode) -> None:
        og("mission", "create", "m")
        og("task", "create", next(iter(node.missions)), "t")
        og("job", "create", text, "--command", "wc", "--task", next(iter(node.tasks)), "--priority", "3")
        assert node.calls["CreateJob"][0].job.priority == 3
        code, out, _ = og("job", "submit", text, "--command", "wc", "--priority", "4")
        assert code == 0
        assert "route  offgrid" in out
        assert node.calls["RunJobs"][0].jobs[0].priority == 4
        sent = og.json("job", "submit", text, "--command", "wc", "--mode", "auto")
        assert isinstance(sent, dict)
        assert (sent["route"], sent["job"]["state"]) == ("ROUTE_OFFGRID", "JOB_STATE_RUNNING")


class TestAnArray:
    @pytest.fixture
    def texts(self, tmp_path: Path) -> list[str]:
        paths = [tmp_path / name for name in ("a.txt", "b.txt", "sub/a.txt")]
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            path.write_text("word " * (number + 1))
        return list(map(str, paths))

    def test_gives_all_outputs_in_the_order_of_its_files(self, node: SmallNode, texts: list[str]) -> None:
        done = _offgrid(node, "job", "array", *texts, "--command", "wc", "--arg", "-w", "--priority", "9")
        assert done.stdout == b"1 words\n2 words\n3 words\n"
        assert done.stderr.splitlines()[-1] == b"3 completed"
        specs = [spec for call in node.calls["RunJobs"] for spec in call.jobs]
        assert [(spec.priority, list(spec.payload.process.args)) for spec in specs] == [(9, ["-w"])] * 3
        assert len({job.task_id for job in node.jobs.values()}) == len(node.tasks) == 1

    def test_writes_each_into_a_folder_under_a_name_of_its_own(self, og: Run, texts: list[str], tmp_path: Path) -> None:
        target = tmp_path / "made" / "here"
        code, out, err = og("job", "array", *texts, "--command", "wc", "--outputs", str(target))
        assert (code, out) == (0, "")
        assert f"outputs in {target}" in err
        wanted = {"000000-a.txt.out": b"1 words\n", "b.txt.out": b"2 words\n", "000002-a.txt.out": b"3 words\n"}
        assert {path.name: path.read_bytes() for path in target.iterdir()} == wanted

    def test_scripts_are_told_each_input_as_they_gave_it(self, og: Run, texts: list[str]) -> None:
        told = og.json("job", "array", *texts, "--command", "wc")
        assert isinstance(told, dict)
        assert [job["input"] for job in told["jobs"]] == texts

    def test_has_a_job_for_each_line(self, og: Run, tmp_path: Path, node: SmallNode) -> None:
        (tmp_path / "lines").write_text("one\ntwo words\nno end")
        told = og.json("job", "array", "--each-line", str(tmp_path / "lines"), "--command", "wc")
        assert isinstance(told, dict)
        assert [job["input"] for job in told["jobs"]] == ["lines:1", "lines:2", "lines:3"]
        assert (told["completed"], told["failed"]) == (3, 0)
        assert {job["state"] for job in told["jobs"]} == {"JOB_STATE_COMPLETED"}
        assert sorted(node.inputs.values()) == [b"no end", b"one\n", b"two words\n"]

    def test_all_its_jobs_run_the_module_as_it_was_at_the_start(self, tmp_path: Path) -> None:
        module = tmp_path / "count.wasm"
        module.write_bytes(b"(first)")
        said = dict.fromkeys(("command", "model", "builtin", "max_tokens", "temperature"))
        program = program_of((), {**said, "module": str(module), "more_args": (), "system": ""})
        module.write_bytes(b"second")
        assert [program(data, "n").wasm.module for data in (b"a", b"b")] == [b"(first)", b"(first)"]

    def test_names_what_failed_and_ends_with_one(self, og: Run, texts: list[str]) -> None:
        code, out, err = og("job", "array", *texts, "--command", "false")
        assert (code, out) == (exits.FAILED, "")
        assert "3 failed" in err
        assert "b.txt (j-" in err
        assert "ExecutionFailed exit code 1" in err

    def test_needs_inputs_and_one_way_to_them(self, og: Run, texts: list[str], node: SmallNode, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        for argv in ([], [*texts, "--each-line", texts[0]], ["--each-line", str(tmp_path / "empty")]):
            assert og("job", "array", *argv, "--command", "wc")[0] == exits.USAGE
        assert og("job", "array", *texts)[0] == exits.USAGE
        assert not node.calls


def _offgrid(node: SmallNode, *argv: str):
    import subprocess

    return subprocess.run([*OFFGRID, "--socket", node.address, *argv], capture_output=True, check=True)


def test_help_does_not_wait_for_the_client(node: SmallNode) -> None:
    """What takes long to import comes with the first call."""
    code = "import sys; from offgrid_tools.cli import run; run(['job', '--help']); print('grpc' in sys.modules)"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert json.dumps(node.calls) == "{}"


@pytest.mark.parametrize("code", [b"", b"hello", b";; (module)", b"(; (module)", b"asm\0", b"module ()"])
def test_what_is_no_webassembly_is_named_before_it_leaves(og: Run, node: SmallNode, text: str, code: bytes) -> None:
    Path(text).with_name("m.wasm").write_bytes(code)
    exit_code, _, err = og("job", "run", text, "--wasm", str(Path(text).with_name("m.wasm")))
    assert (exit_code, node.calls["RunJobs"]) == (exits.USAGE, [])
    assert "m.wasm is no WebAssembly" in err


@pytest.mark.parametrize("code", [b"\0asm\1", b"(module)", b" ;; x\n(; y ;)\n(module)"])
def test_what_may_be_webassembly_is_sent(og: Run, node: SmallNode, text: str, code: bytes) -> None:
    Path(text).with_name("m.wasm").write_bytes(code)
    assert og("job", "run", text, "--wasm", str(Path(text).with_name("m.wasm")))[0] == 0
    assert node.calls["RunJobs"][0].jobs[0].payload.wasm.module == code
