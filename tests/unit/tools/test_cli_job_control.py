"""`offgrid job cancel`, `top` and `list --state`: a hand on jobs under way, and a look at all of them."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from cli_run import OFFGRID, Run
from small_node import NODE_ID, OTHER_ID, SmallNode

from offgrid.client.jobs import Jobs
from offgrid.command_line import exits
from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_tools.cli.jobs import LIST_LIMIT
from offgrid_tools.cli.saying import MarkedLines


@pytest.fixture
def jobs(node: SmallNode) -> list[str]:
    """A completed one, and two that run."""
    states = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_RUNNING
    for number, state in enumerate(states):
        node.jobs[f"j-{number}"] = jobs_pb2.Job(
            job_id=f"j-{number}", task_id="t-1", state=state, host=OTHER_ID, attempt=1, needs="wasm"
        )
    return list(node.jobs)


class TestCancel:
    def test_names_what_was_open(self, og: Run, node: SmallNode, jobs: list[str]) -> None:
        assert og("job", "cancel", *jobs, "--reason", "no more") == (0, "cancelled j-1\ncancelled j-2\n", "")
        assert og("job", "cancel", *jobs) == (0, "nothing was open\n", "")
        assert node.jobs["j-1"].error_detail == "no more"

    def test_takes_all_of_a_task(self, og: Run, jobs: list[str]) -> None:
        assert og.json("job", "cancel", "--task", "t-1") == {"job_ids": ["j-1", "j-2"]}

    def test_wants_one_of_both(self, og: Run, node: SmallNode) -> None:
        assert og("job", "cancel")[0] == exits.USAGE
        assert og("job", "cancel", "j-1", "--task", "t-1")[0] == exits.USAGE
        assert not node.calls


class TestWhy:
    def test_tells_the_story_and_every_hosts_reason(self, og: Run, jobs: list[str]) -> None:
        code, out, _ = og("job", "why", "j-1")
        assert code == 0
        assert "It waits." in out
        rows = [line.split() for line in out.splitlines()]
        assert ["barn", "wins", "1.32", "0.001", "it", "wins"] in rows
        assert ["attic", "unable", "does", "not", "offer", "process:wc"] in rows
        told = og.json("job", "why", "j-1")
        assert isinstance(told, dict)
        assert [verdict["wins"] for verdict in told["verdicts"]] == [True, False]


class TestLogs:
    @pytest.fixture
    def running(self, node: SmallNode, jobs: list[str]) -> str:
        node.inputs["j-1"] = b""
        node.progress = [
            jobs_pb2.JobProgress(job_id="j-1", attempt=1, fraction=0.25, message="warming up"),
            jobs_pb2.JobProgress(job_id="j-1", attempt=1, fraction=0.25, message="warming up", log=b"line 1\n"),
        ]
        run = node._run

        def with_log(job: jobs_pb2.Job) -> None:
            run(job)
            job.result.log = b"line 1\nline 2\n"

        node._run = with_log
        return "j-1"

    def test_of_an_ended_job_are_its_standard_error(self, node: SmallNode, running: str) -> None:
        node._run(node.jobs["j-1"])
        done = offgrid(node, "job", "logs", "j-1")
        assert (done.stdout, done.stderr) == (b"line 1\nline 2\n", b"")

    def test_are_followed_until_its_end(self, node: SmallNode, running: str) -> None:
        done = offgrid(node, "job", "logs", "--follow", "j-1")
        assert done.stdout == b"line 1\nline 2\n", "what was not told on the way comes of the result"
        assert done.stderr.split() == [b"25%", b"warming", b"up"]

    def test_of_a_running_job_are_what_is_known(self, node: SmallNode, running: str) -> None:
        node.progress_ends = False
        assert offgrid(node, "job", "logs", "j-1").stdout == b"line 1\n"

    def test_for_scripts_are_a_document_per_message(self, og: Run, running: str) -> None:
        code, out, err = og("job", "logs", "-f", "j-1", "--json")
        told = list(map(json.loads, out.splitlines()))
        assert (code, err) == (0, "")
        assert [each["progress"].get("fraction") for each in told] == [0.25, 0.25]
        assert base64.b64decode(told[1]["progress"]["log"]) == b"line 1\n"


class TestRunThatIsFollowed:
    def test_words_come_on_standard_error_and_the_result_as_ever(self, node: SmallNode, text: str) -> None:
        node.progress = [jobs_pb2.JobProgress(job_id="j-1", attempt=1, fraction=0.5, log=b"log\n", output=b"to be")]
        done = offgrid(node, "job", "run", text, "--llm", "echo", "--follow", "--output", "-")
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"3 words\n"
        assert b"50%" in done.stderr
        assert b"log\nto be" in done.stderr

    def test_scripts_get_one_document(self, og: Run, text: str, node: SmallNode) -> None:
        told = og.json("job", "run", text, "--llm", "echo", "--follow")
        assert isinstance(told, dict)
        assert told["job"]["state"] == "JOB_STATE_COMPLETED"


class TestList:
    def test_only_those_in_a_state(self, og: Run, jobs: list[str]) -> None:
        told = og.json("job", "list", "--state", "running", "--state", "queued")
        assert isinstance(told, dict)
        assert [job["job_id"] for job in told["jobs"]] == ["j-2", "j-1"]
        assert og("job", "list", "--state", "sleeping")[0] == exits.USAGE

    def test_a_job_that_was_cancelled_ends_watch_with_one(self, og: Run, jobs: list[str]) -> None:
        og("job", "cancel", "j-1")
        code, out, _ = og("job", "watch", "j-1")
        assert (code, "cancelled" in out) == (exits.FAILED, True)


def test_a_task_says_how_its_jobs_are(og: Run, node: SmallNode, jobs: list[str]) -> None:
    node.tasks["t-1"] = jobs_pb2.Task(task_id="t-1", name="t")
    assert "2 running, 1 completed" in og("task", "show", "t-1")[1]
    told = og.json("task", "show", "t-1")
    assert isinstance(told, dict)
    assert told["counts"] == {"running": 2, "completed": 1}


class TestTop:
    def test_shows_what_is_open_and_where(self, og: Run, node: SmallNode, jobs: list[str]) -> None:
        node.members[1].roles_in_force.append(common_pb2.ROLE_HOST)
        code, out, _ = og("job", "top", "--count", "1")
        assert code == 0
        lines = [line.split() for line in out.splitlines()]
        assert [line[0] for line in lines if line and line[0].startswith("j-")] == ["j-1", "j-2"]
        assert ["barn", "alive", "2", "3"] in lines, "two of those jobs, three free slots in this broker's book"
        assert out.startswith("attic of home: 0 jobs open")

    def test_says_a_document_per_look_with_rates(self, og: Run, node: SmallNode, jobs: list[str]) -> None:
        code, out, _ = og("job", "top", "--json", "--count", "2", "--interval", "0.1", "--limit", "1")
        looks = list(map(json.loads, out.splitlines()))
        assert (code, len(looks)) == (0, 2)
        assert looks[0]["ended_per_s"] == {"completed": 0.0, "failed": 0.0, "cancelled": 0.0}
        assert [job["job_id"] for job in looks[1]["jobs"]] == ["j-1"]
        assert looks[1]["slots_total"] == 4
        assert {host["node_id"] for host in looks[0]["hosts"]} <= {NODE_ID, OTHER_ID}

    def test_counts_ends_by_the_journal(self, og: Run, node: SmallNode) -> None:
        status, looks = node.on_GetStatus, iter(range(100))

        def after_the_first_look(request):
            answer = status(request)
            if next(looks) == 1:  # the first is for the journal's head
                node.record(19, "JOB_COMPLETED", "j-9", job=jobs_pb2.Job(job_id="j-9"))
            return answer

        node.on_GetStatus = after_the_first_look
        _, out, _ = og("job", "top", "--json", "--count", "10", "--interval", "0.1")
        rates = [json.loads(line)["ended_per_s"]["completed"] for line in out.splitlines()]
        assert (rates[0], sum(rate > 0 for rate in rates)) == (0.0, 1)


class TestShow:
    def test_says_what_was_asked_for(self, og: Run, node: SmallNode) -> None:
        node.jobs["j-1"] = jobs_pb2.Job(
            job_id="j-1", state=jobs_pb2.JOB_STATE_FAILED, requirements="cpus > 1", priority=-3, after=["j-0"],
            replicas=3, quorum=2, adaptive=True, avoid=[OTHER_ID], price_max_micro=1_500_000, losses=2,
            schedule_id="s-1", parent_id="j-p",
        )  # fmt: skip
        out = og("job", "show", "j-1")[1]
        for said in ("cpus > 1", "-3", "j-0", "3, of which 2 must agree, adaptive", "not on        barn",
                     "1.5 per million tokens", "2 of 8", "s-1, due", "execution of  j-p"):  # fmt: skip
            assert said in out

    def test_a_redundant_job_says_who_said_what(self, og: Run, node: SmallNode) -> None:
        accepted, other = b"\xaa" * 32, b"\xbb" * 32
        node.jobs["j-1"] = jobs_pb2.Job(job_id="j-1", state=jobs_pb2.JOB_STATE_COMPLETED, replicas=3, quorum=2)
        node.jobs["j-1"].result.receipt.facts.result_digest = accepted
        for number, digest in enumerate((accepted, other), 1):
            made = node.jobs[f"j-1.r{number}"] = jobs_pb2.Job(job_id=f"j-1.r{number}", host=OTHER_ID)
            made.state = jobs_pb2.JOB_STATE_COMPLETED
            made.result.receipt.facts.result_digest = digest
        node.jobs["j-1.r3"] = jobs_pb2.Job(job_id="j-1.r3", state=jobs_pb2.JOB_STATE_QUEUED)
        out = og("job", "show", "j-1")[1]
        assert "execution 1  barn: completed, digest aaaaaaaaaaaaaaaa, as accepted" in out
        assert "execution 2  barn: completed, digest bbbbbbbbbbbbbbbb, not what was accepted" in out
        assert "execution 3  no host: queued" in out


class TestTheList:
    def ids(self, out: str) -> list[str]:
        return [line.split()[0] for line in out.splitlines()[1:]]

    def test_is_newest_first_unless_asked_otherwise(self, og: Run, jobs: list[str]) -> None:
        assert self.ids(og("job", "list")[1]) == jobs[::-1]
        assert self.ids(og("job", "list", "--oldest-first")[1]) == jobs
        told = og.json("job", "list")
        assert isinstance(told, dict)
        assert [job["job_id"] for job in told["jobs"]] == jobs[::-1]

    def test_says_when_there_are_more(self, og: Run, jobs: list[str]) -> None:
        code, out, err = og("job", "list", "--limit", "2")
        assert (code, self.ids(out)) == (0, jobs[:0:-1])
        assert err == "there are more than these 2: --limit says how many are shown\n"
        assert og("job", "list", "--limit", "3")[2] == ""

    def test_is_short_for_people_and_whole_for_scripts(self, og: Run, node: SmallNode) -> None:
        for number in range(LIST_LIMIT + 1):
            node.jobs[f"j-{number}"] = jobs_pb2.Job(job_id=f"j-{number}")
        assert len(self.ids(og("job", "list")[1])) == LIST_LIMIT
        assert len(self.ids(og("job", "list", "--limit", "0")[1])) == LIST_LIMIT + 1
        told = og.json("job", "list")
        assert isinstance(told, dict)
        assert len(told["jobs"]) == LIST_LIMIT + 1


class TestMarkedLines:
    LOG = b"one\n::progress 0.5 half\nnot ::progress 1\n::progress" + b" x" * 300 + b"\nend ::progress"

    @pytest.mark.parametrize("size", [1, 2, 7, 10_000])
    def test_are_left_out_however_the_log_comes(self, size: int) -> None:
        marks = MarkedLines()
        pieces = [self.LOG[at : at + size] for at in range(0, len(self.LOG), size)]
        assert b"".join([*map(marks.without, pieces), marks.end()]) == self.LOG.replace(b"::progress 0.5 half\n", b"")

    def test_one_that_never_ends_is_no_such_line(self) -> None:
        marks = MarkedLines()
        assert (marks.without(b"::progress 1"), marks.end()) == (b"", b"::progress 1")

    def test_are_shown_once_by_a_run_that_follows(self, og: Run, node: SmallNode, text: str) -> None:
        told = jobs_pb2.JobProgress(attempt=1, fraction=0.5, message="half", log=b"one\n::progress 0.5 half\n")
        node.on_WatchProgress = lambda request, context: iter(
            [
                jobs_pb2.WatchProgressResponse(progress=told),
                jobs_pb2.WatchProgressResponse(job=node.jobs[request.job_id]),
            ]
        )
        err = subprocess.run(
            [*OFFGRID, "--socket", node.address, "job", "run", text, "--command", "wc", "--follow"],
            stderr=subprocess.PIPE, check=False,
        ).stderr  # fmt: skip
        assert (err.count(b"half"), err.count(b"one\n")) == (1, 1)


def test_an_interrupt_that_a_library_turned_into_something_else_is_one(
    og: Run, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beginning(*args: object, **kwargs: object) -> Iterator[jobs_pb2.JobProgress]:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemError("returned a result with an exception set") from None
        yield jobs_pb2.JobProgress()

    monkeypatch.setattr(Jobs, "progress", beginning)
    code, _, err = og("job", "run", text, "--command", "wc", "--follow")
    assert code == exits.INTERRUPTED
    assert "goes on: `offgrid job watch" in err
    assert "defect" not in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("extra", [[], ["--follow"]])
def test_interrupted_a_run_says_that_the_job_goes_on(node: SmallNode, text: str, extra: list[str]) -> None:
    def silent(request: object, context: object) -> Iterator[jobs_pb2.WatchJobResponse]:
        yield jobs_pb2.WatchJobResponse(job=node.jobs[request.job_id])  # type: ignore[attr-defined]
        time.sleep(2)

    node.on_WatchJob = silent
    node.on_WatchProgress = lambda request, context: time.sleep(2) or iter(())
    argv = [*OFFGRID, "--socket", node.address, "job", "run", text, "--command", "wc", *extra]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        first = waiting.stderr.readline()
        while not node.calls["WatchProgress" if extra else "WatchJob"]:
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(10) == exits.INTERRUPTED
        job_id = next(iter(node.jobs))
        assert job_id in first
        assert f"`offgrid job cancel {job_id}`" in waiting.stderr.read()


def offgrid(node: SmallNode, *argv: str) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own: what it writes as bytes."""
    return subprocess.run([*OFFGRID, "--socket", node.address, *argv], capture_output=True, check=True)
