"""What a shell is offered for the word that is being typed: commands, options, and what the node has."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_run import Run
from small_node import SmallNode
from typed_shell import PATIENT

from offgrid.command_line import exits
from offgrid.v1 import jobs_pb2
from offgrid_tools.cli.completing import PROGRAMS, SHELLS


def offered(node: SmallNode | None, line: str, shell: str = "bash", **environment: str) -> list[str]:
    """The values that a shell gets for the last word of `line`."""
    words = [*shlex.split(line)] + ([""] if line.endswith(" ") else [])
    if node is not None:
        words[1:1] = ["--socket", node.address]
    typed = {"COMP_WORDS": shlex.join(words[:-1]) + " " + words[-1], "COMP_CWORD": words[-1]}
    env = {**os.environ, **typed, "_OFFGRID_COMPLETE": f"{shell}_complete", **environment}
    done = subprocess.run([sys.executable, "-c", PATIENT], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [part.removeprefix("plain,") for part in done.stdout.splitlines() if part]


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("offgrid jo", {"job"}),
        ("offgrid job ca", {"cancel"}),
        ("offgrid job list --sta", {"--state"}),
        ("offgrid job list --state fa", {"failed"}),
        ("offgrid job run notes.txt --mode ", {"auto", "offgrid", "disabled"}),
        ("offgrid events --type JOB_CRE", {"JOB_CREATED"}),
        ("offgrid completion po", {"powershell"}),
    ],
)
def test_commands_options_and_their_words_need_no_node(line: str, some: set[str]) -> None:
    assert some <= set(offered(None, line))


def test_jobs_members_objects_and_quorums_are_those_of_the_node(node: SmallNode) -> None:
    node.jobs["j-1"] = jobs_pb2.Job(job_id="j-1", state=jobs_pb2.JOB_STATE_RUNNING)
    assert offered(node, "offgrid job show j") == ["j-1"]
    assert offered(node, "offgrid job cancel j-1 ") == ["j-1"]
    assert "attic" in offered(node, "offgrid ping ")
    assert "attic" in offered(node, "offgrid transfer --dst a")


def test_a_node_that_does_not_answer_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert offered(None, f"offgrid --socket {tmp_path}/no.sock job show ") == []


def test_contexts_are_offered_by_name(tmp_path: Path, og: Run) -> None:
    (tmp_path / "offgrid").mkdir()
    document = {"current": "", "contexts": {"lab": {"node_dir": "/x"}, "field": {"node_dir": "/y"}}}
    (tmp_path / "offgrid" / "contexts.json").write_text(json.dumps(document))
    assert offered(None, "offgrid --context l", XDG_CONFIG_HOME=str(tmp_path)) == ["lab"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_for_both_commands(og: Run, shell: str) -> None:
    code, script, _ = og("completion", shell)
    assert code == exits.OK
    for program, variable in PROGRAMS.items():
        assert program in script
        assert variable in script


@pytest.mark.parametrize("program", PROGRAMS)
def test_powershell_gets_what_its_completer_takes(og: Run, program: str) -> None:
    """There is no PowerShell to try it in: about_Functions_Argument_Completion says what it must be."""
    script = og("completion", "powershell")[1]
    begun = f"Register-ArgumentCompleter -Native -CommandName {program} -ScriptBlock {{\n"
    assert script.count(begun) == 1
    body = script.partition(begun)[2].partition("\nRegister-ArgumentCompleter")[0]
    assert body.lstrip().startswith("param($wordToComplete, $commandAst, $cursorPosition)")
    assert body.count("{") + 1 == body.count("}")
    assert body.count("(") == body.count(")")
    assert "[System.Management.Automation.CompletionResult]::new(" in body
    assert f"$env:{PROGRAMS[program]} = 'powershell_complete'" in body
    assert f"& {program} 2>$null" in body


@pytest.mark.parametrize(
    ("typed", "values"),
    [("offgrid job w", ["watch", "why"]), ("offgrid events --type=JOB_CR", ["--type=JOB_CREATED"])],
)
def test_powershell_is_given_a_kind_a_value_and_what_it_is(typed: str, values: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": "2"}
    env = {**os.environ, **words, "_OFFGRID_COMPLETE": "powershell_complete"}
    done = subprocess.run([sys.executable, "-c", PATIENT], env=env, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert set(lines[::3]) == {"plain"}
    assert lines[1::3] == values
    assert all(lines[2::3])
