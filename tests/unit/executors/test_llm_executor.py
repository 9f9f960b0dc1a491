"""LlmExecutor against a server process that speaks OpenAI's API, well and badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import chat_endpoint
from offgrid_node.executors import llm as llm_module
from offgrid_node.executors.chat_endpoint import Answer
from offgrid_node.executors.chat_stream import BadAnswer
from offgrid_node.executors.executor import Outcome, Progress, Work
from offgrid_node.executors.llm import DOCUMENT_BYTES_MAX, Chat, LlmExecutor
from offgrid_tools.fixtures.openai_server import MODELS, TROUBLE
from offgrid_tools.fixtures.processes import OpenAiServer

T = TypeVar("T")


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer([*MODELS, *TROUBLE]) as running:
        yield running


def payload(model: str = "echo", *said: tuple[str, str], input: bytes = b"", **changes: Any) -> jobs_pb2.JobPayload:  # noqa: A002
    messages = [jobs_pb2.ChatMessage(role=role, content=content) for role, content in said]
    return jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model=model, messages=messages, **changes), input=input)


def with_executor(url: str, story: Callable[[LlmExecutor], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        executor = LlmExecutor(url, **settings)
        await executor.look()
        try:
            return await story(executor)
        finally:
            executor.close()

    return asyncio.run(run())


def ask(server: OpenAiServer, asked: jobs_pb2.JobPayload, timeout_ms: int = 20_000) -> tuple[Outcome, list[Progress]]:
    said: list[Progress] = []
    work = Work(asked, timeout_ms, say=said.append)
    return with_executor(server.url, lambda executor: executor.run(work)), said


async def eventually(condition: Callable[[], bool], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def test_the_answer_is_the_output_and_comes_token_by_token(server: OpenAiServer) -> None:
    outcome, said = ask(server, payload("echo", ("system", "be kind"), ("user", "one two three")))
    assert (outcome.output, outcome.error, outcome.exit_code, outcome.log) == (b"three two one", "", 0, b"")
    assert outcome.usage.used_tokens == 5 + 3
    assert outcome.executor == "openai-chat/1 echo"
    assert b"".join(progress.output for progress in said) == outcome.output


def test_the_input_is_the_users_last_word(server: OpenAiServer) -> None:
    outcome, _ = ask(server, payload("echo", ("system", "x"), input="über alles".encode()))
    assert outcome.output.decode() == "alles über"


def test_what_the_job_asks_for_is_asked_of_the_endpoint(server: OpenAiServer) -> None:
    asked = payload("echo", ("user", "a b c"), temperature=0.5, max_tokens=2, seed=7, stop=["\n"])
    outcome, _ = ask(server, asked)
    assert outcome.output == b"c b"
    assert outcome.log == b"finish_reason: length\n"
    seen = server.seen()["asked"][-1]
    assert seen["messages"] == [{"role": "user", "content": "a b c"}]
    assert (seen["temperature"], seen["max_tokens"], seen["seed"], seen["stop"]) == (0.5, 2, 7, ["\n"])


def test_what_it_does_not_ask_for_is_left_to_the_endpoint(server: OpenAiServer) -> None:
    ask(server, payload("echo", ("user", "a")))
    assert set(server.seen()["asked"][-1]) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("model", "error", "detail"),
    [
        ("broken", "EndpointFailed", "500"),
        ("gone", "ModelNotFound", "404"),
        ("cut", "EndpointFailed", "IncompleteRead"),
        ("bad-json", "EndpointFailed", "no JSON"),
        ("late-error", "EndpointFailed", "server_error"),
        ("long-line", "EndpointFailed", "longer than"),
        ("huge", "OutputTooLarge", "bytes"),
        ("nowhere", "ModelNotFound", "nowhere"),
    ],
)
def test_trouble_of_the_endpoints_is_named_and_no_fault_of_the_jobs(
    server: OpenAiServer, model: str, error: str, detail: str
) -> None:
    outcome, _ = ask(server, payload(model, ("user", "a b c")))
    assert (outcome.error, outcome.output) == (error, b"")
    assert detail in outcome.error_detail


def test_a_busy_endpoint_is_asked_again_for_a_while(server: OpenAiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "BUSY_WAITS_S", (0.01, 0.01))
    before = len(server.seen()["asked"])
    assert ask(server, payload("busy", ("user", "a")))[0].error == "EndpointBusy"
    assert len(server.seen()["asked"]) - before == 3


def test_a_request_that_is_refused_is_the_jobs_answer(server: OpenAiServer) -> None:
    """The endpoint's words may repeat the owner's, so they are in the log, which is sealed, and not in the error."""
    outcome, _ = ask(server, payload("picky", ("user", "my secret")))
    assert (outcome.error, outcome.error_detail, outcome.exit_code) == ("", "", 1)
    assert outcome.log.startswith(b"the endpoint answered 400: I do not like ")
    assert b"my secret" in outcome.log


def test_an_endpoint_that_does_not_know_the_option_is_asked_without_it(server: OpenAiServer) -> None:
    outcome, _ = ask(server, payload("old", ("user", "a b")))
    assert (outcome.output, outcome.log) == (b"b a", b"")


def test_an_endpoint_that_wants_a_key_is_the_hosts_business() -> None:
    with OpenAiServer(["echo"], api_key="k") as strict:
        work = Work(payload(input=b"x"), 5_000)
        refused = with_executor(strict.url, lambda executor: executor.run(work), models=["echo"])
    assert refused.error == "EndpointRefused"


def test_tokens_are_estimated_where_the_endpoint_counts_none(server: OpenAiServer) -> None:
    outcome, _ = ask(server, payload("no-usage", ("user", "x" * 400)))
    assert outcome.usage.used_tokens == 200


@pytest.mark.parametrize(("wanted", "answer_max"), [(0, 8), (5_000, 5_000)], ids=["as seen", "as bounded"])
def test_no_more_tokens_count_than_can_have_been(server: OpenAiServer, wanted: int, answer_max: int) -> None:
    outcome, _ = ask(server, payload("inflates", ("user", "two wör"), max_tokens=wanted))
    assert len(outcome.output) == len("two wör".encode()) == 8
    told = llm_module.TEMPLATE_TOKENS_MAX + 2 * llm_module.MESSAGE_TOKENS_MAX
    assert outcome.usage.used_tokens == 8 + answer_max + told


def test_an_endpoint_that_does_not_stream_will_do(server: OpenAiServer) -> None:
    outcome, _ = ask(server, payload("whole", ("user", "a b")))
    assert (outcome.output, outcome.usage.used_tokens) == (b"b a", 4)


def test_a_document_that_is_too_large_to_be_read_at_once_is_not_gathered() -> None:
    chat = Chat(Work(payload("echo", ("user", "a")), 5_000), "label")
    chat._on_head(Answer(200, "application/json"))
    chat._on_piece(bytes(DOCUMENT_BYTES_MAX))
    with pytest.raises(BadAnswer):
        chat._on_piece(b"x")
    assert chat._outcome(BadAnswer("")).error == "OutputTooLarge"


def test_the_word_with_which_an_answer_ends_may_be_any() -> None:
    chat = Chat(Work(payload("echo", ("user", "a")), 5_000), "label")
    chat._on_head(Answer(200, "text/event-stream"))
    chat._on_piece(b'data: {"choices":[{"finish_reason":"\\ud800","delta":{"content":"a\\udfff"}}]}\n\n')
    outcome = chat._outcome(None)
    assert (outcome.error, outcome.output, outcome.log) == ("", b"a?", b"finish_reason: ?\n")


def test_thoughts_are_in_the_log(server: OpenAiServer) -> None:
    outcome, said = ask(server, payload("thinks", ("user", "a b")))
    assert (outcome.output, outcome.log) == (b"b a", b"hm. ")
    assert b"".join(progress.log for progress in said) == b"hm. "


@pytest.mark.parametrize("model", ["hang", "stall"])
def test_the_time_limit_ends_it_and_the_connection(server: OpenAiServer, model: str) -> None:
    before = server.seen()["broken_off"]

    async def story(executor: LlmExecutor) -> Outcome:
        outcome = await executor.run(Work(payload(model, ("user", "a b c")), 300))
        assert await eventually(lambda: server.seen()["broken_off"] > before)
        assert await eventually(lambda: not any(thread.name == "chat" for thread in threading.enumerate()))
        return outcome

    outcome = with_executor(server.url, story)
    assert outcome.error == "JobTimeout"
    assert "300 ms" in outcome.error_detail


def test_cancelling_closes_the_connection(server: OpenAiServer) -> None:
    before = server.seen()["broken_off"]

    async def story(executor: LlmExecutor) -> None:
        said: list[Progress] = []
        task = asyncio.create_task(executor.run(Work(payload("stall", ("user", "a b c")), 60_000, say=said.append)))
        assert await eventually(lambda: bool(said))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: server.seen()["broken_off"] > before)

    with_executor(server.url, story)


def test_no_more_requests_at_once_than_the_endpoint_has_slots(server: OpenAiServer) -> None:
    async def story(executor: LlmExecutor) -> tuple[float, Outcome]:
        began = time.monotonic()
        work = Work(payload("slow", ("user", "a b c d")), 20_000)
        first, _ = await asyncio.gather(executor.run(work), executor.run(work))
        return time.monotonic() - began, first

    seconds, outcome = with_executor(server.url, story)
    assert outcome.output == b"d c b a"
    assert seconds > 2 * 6 * 0.05  # one after the other, six chunks each


def test_a_request_that_waits_uses_up_its_time(server: OpenAiServer) -> None:
    async def story(executor: LlmExecutor) -> Outcome:
        hanging = asyncio.create_task(executor.run(Work(payload("hang", ("user", "a")), 60_000)))
        await asyncio.sleep(0.05)
        outcome = await executor.run(Work(payload("echo", ("user", "a")), 200))
        hanging.cancel()
        return outcome

    assert with_executor(server.url, story).error == "JobTimeout"


def test_an_input_that_is_no_text_is_refused(server: OpenAiServer) -> None:
    outcome, _ = ask(server, payload("echo", input=b"\xff"))
    assert outcome.error == "ExecutionFailed"
    assert "UTF-8" in outcome.error_detail


class TestWhatIsOffered:
    def test_is_what_the_endpoint_lists(self, server: OpenAiServer) -> None:
        async def story(executor: LlmExecutor) -> None:
            assert executor.models == tuple(sorted([*MODELS, *TROUBLE]))
            assert executor.problems == ()

        with_executor(server.url, story)

    def test_is_what_the_owner_names_if_it_is_there(self, server: OpenAiServer) -> None:
        async def story(executor: LlmExecutor) -> None:
            assert executor.offers == ("llm:echo",)
            (problem,) = executor.problems
            assert "'llama'" in problem

        with_executor(server.url, story, models=["echo", "llama"])

    def test_is_nothing_while_the_endpoint_is_down(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"

            async def story(executor: LlmExecutor) -> Outcome:
                assert executor.offers == ()
                (problem,) = executor.problems
                assert "cannot be reached" in problem
                return await executor.run(Work(payload("echo", ("user", "a")), 5_000))

            assert with_executor(url, story, models=["echo"]).error == "ModelNotFound"

    def test_is_what_the_owner_names_where_nothing_is_listed(self, server: OpenAiServer) -> None:
        url = server.url + "/elsewhere"

        async def story(executor: LlmExecutor) -> tuple[tuple[str, ...], tuple[str, ...]]:
            return executor.offers, executor.problems

        assert with_executor(url, story, models=["m"]) == (("llm:m",), ())
        offers, problems = with_executor(url, story)
        assert offers == ()
        assert "host.llm.models" in problems[0]

    def test_follows_the_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Models come and go, and so does the whole endpoint; each change is told."""
        monkeypatch.setattr(llm_module, "REFRESH_S", 0.02)
        monkeypatch.setattr(llm_module, "RETRY_S", 0.02)

        async def run(first: OpenAiServer) -> None:
            changes: list[tuple[str, ...]] = []
            executor = LlmExecutor(first.url, on_change=lambda: changes.append(executor.models))
            executor.watch()
            assert await eventually(lambda: executor.models == ("echo",))
            await asyncio.to_thread(first.list_models, "echo", "new", "bad name")
            assert await eventually(lambda: executor.models == ("echo", "new"))
            await asyncio.to_thread(first.stop)
            assert await eventually(lambda: executor.models == ())
            with OpenAiServer(["back"], port=first.port):
                assert await eventually(lambda: executor.models == ("back",))
            executor.close()
            assert changes[:4] == [("echo",), ("echo", "new"), (), ("back",)]

        with OpenAiServer(["echo"]) as first:
            asyncio.run(run(first))

    def test_an_endpoint_that_is_too_busy_to_list_is_believed_for_a_while(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def run(own: OpenAiServer) -> None:
            executor = LlmExecutor(own.url)
            await executor.look()
            monkeypatch.setattr(chat_endpoint, "LIST_TIMEOUT_S", 0.05)
            own.freeze()
            for _ in range(llm_module.LOOKS_SILENT - 1):
                await executor.look()
                assert executor.models == ("echo",)
            await executor.look()
            assert executor.models == ()

        with OpenAiServer(["echo"]) as own:
            asyncio.run(run(own))

    def test_a_list_that_never_ends_is_no_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then: no wait for the next one is long."""
        monkeypatch.setattr(chat_endpoint, "LIST_TIMEOUT_MAX_S", 0.2)
        done = threading.Event()

        def drip(listening: socket.socket) -> None:
            for _ in range(llm_module.LOOKS_SILENT):
                caller = listening.accept()[0]
                with caller, contextlib.suppress(OSError):
                    caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while not done.wait(0.01):
                        caller.sendall(b" ")

        async def run(url: str) -> None:
            executor = LlmExecutor(url, models=["echo"])
            for _ in range(llm_module.LOOKS_SILENT):
                await asyncio.wait_for(executor.look(), 20)
            assert executor.models == ()
            assert "in time" in executor.problems[0]

        with socket.create_server(("127.0.0.1", 0)) as listening:
            dripping = threading.Thread(target=drip, args=(listening,), daemon=True)
            dripping.start()
            try:
                asyncio.run(run(f"http://127.0.0.1:{listening.getsockname()[1]}/v1"))
            finally:
                done.set()
            dripping.join(20)

    def test_an_endpoint_that_went_away_is_looked_at_again_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(llm_module, "REFRESH_S", 60.0)

        async def run(server: OpenAiServer) -> None:
            executor = LlmExecutor(server.url)
            executor.watch()
            assert await eventually(lambda: executor.models == ("echo",))
            await asyncio.to_thread(server.stop)
            outcome = await executor.run(Work(payload("echo", ("user", "a")), 5_000))
            assert outcome.error == "EndpointUnavailable"
            assert await eventually(lambda: executor.models == ())
            executor.close()

        with OpenAiServer(["echo"]) as server:
            asyncio.run(run(server))


def test_the_key_is_sent_and_never_shown() -> None:
    async def story(executor: LlmExecutor) -> Outcome:
        assert executor.models == ("echo",)
        return await executor.run(Work(payload("echo", ("user", "a b")), 5_000))

    with OpenAiServer(["echo"], api_key="s3cret") as strict:
        assert with_executor(strict.url, story, api_key="s3cret").output == b"b a"

        async def without(executor: LlmExecutor) -> tuple[str, ...]:
            return executor.problems

        (problem,) = with_executor(strict.url, without, api_key="wr0ng")
        assert "401" in problem
        assert "wr0ng" not in problem
