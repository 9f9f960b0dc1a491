"""Asks language models behind an OpenAI-compatible endpoint that the host's owner has named; a job never names one.

Ollama, llama.cpp's server, vLLM and others speak the protocol. What is offered is what the endpoint has, asked again
and again: when it is down, nothing is. What it answers is the job's output, streamed as it comes; the tokens that it
counts are what the job has used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.capture import OUTPUT_DETAIL, Capture, failed, timeout_detail
from offgrid_node.executors.chat_endpoint import Answer, Endpoint, Exchange, Silent, Unreachable
from offgrid_node.executors.chat_stream import BadAnswer, ChatStream, Said, message_of
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Progress, Usage, Work
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.hosted import MODEL_NAME
from offgrid_node.protocol.jobs.needs import check_payload, estimate_tokens

VERSION = "openai-chat/1"
REFRESH_S = 5.0  # between two looks at what the endpoint has
RETRY_S = 2.0  # while it is down
BUSY_WAITS_S = (0.5, 1.0, 2.0, 4.0)  # before it is asked again; after the last, somebody else may try
LOOKS_SILENT = 3  # an endpoint that is at work may be too busy to list its models; so many in a row, and it is down
MODELS_MAX = 64
ERROR_BYTES_MAX = 16 * 1024
# An answer that is not streamed: JSON, which is read at once and in the loop, and a good ten times as large when it is.
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
# A token stands for a byte of text at least. What a model is told besides: its template, a system prompt of its own.
TEMPLATE_TOKENS_MAX, MESSAGE_TOKENS_MAX = 1_024, 64
# Ends that are the host's fault, or nobody's: the core's next attempt goes elsewhere, or comes again.
UNAVAILABLE, FAILED, BUSY = "EndpointUnavailable", "EndpointFailed", "EndpointBusy"
MODEL_NOT_FOUND, REFUSED = "ModelNotFound", "EndpointRefused"
BY_STATUS = {401: REFUSED, 403: REFUSED, 404: MODEL_NOT_FOUND, 408: BUSY, 429: BUSY, 503: BUSY}

_log = logging.getLogger(__name__)


class LlmExecutor:
    """A live Executor of llm payloads.

    `models` names those that are offered; empty: all that the endpoint lists. `slots` is how many requests it gets at
    once; a further one waits, and its timeout runs. `on_change` is called in the loop when what is offered changes.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        models: Sequence[str] = (),
        slots: int = 1,
        api_key: str = "",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._endpoint, self._wanted, self._on_change = Endpoint(endpoint, api_key), tuple(models), on_change
        self._slots = asyncio.Semaphore(slots)
        self._models: tuple[str, ...] = ()
        self._problems: tuple[str, ...] = (f"llm: {endpoint} has not been asked for its models yet",)
        self._look_again = asyncio.Event()
        self._unanswered = 0  # looks in a row
        self._watching: asyncio.Task[None] | None = None

    @property
    def models(self) -> tuple[str, ...]:
        return self._models

    @property
    def offers(self) -> tuple[str, ...]:
        return tuple(f"llm:{model}" for model in self._models)

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    @property
    def isolation(self) -> Mapping[str, str]:
        """A model reads and writes text: there is nothing to hold back."""
        return {"llm": "endpoint"}

    def watch(self) -> None:
        """Begins to look at what the endpoint has, until `close`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        """See Executor."""
        if self._watching is not None:
            self._watching.cancel()

    async def look(self) -> None:
        """Asks the endpoint once what it has."""
        models: tuple[str, ...] = ()
        try:
            listed = await asyncio.to_thread(self._endpoint.list_models)
            models, problems = self._of_listed(listed)
            self._unanswered = 0
        except Unreachable as fault:
            self._unanswered += 1
            if isinstance(fault, Silent) and self._unanswered < LOOKS_SILENT:
                return
            problems = [f"{self._endpoint.url} cannot be reached: {fault}"]
        except LookupError as fault:
            models, problems = self._wanted, [] if self._wanted else [f"{self._endpoint.url}: {fault}"]
        told = tuple(f"llm: {problem}" for problem in problems)
        if told != self._problems:
            for problem in told:
                _log.warning("language models cannot be offered", extra=fields("llm_failing", why=problem))
        changed = models != self._models
        self._models, self._problems = models, told
        if changed:
            _log.info("language models are offered", extra=fields("llm_models", models=", ".join(models) or "none"))
            self._on_change()

    async def run(self, work: Work) -> Outcome:
        """See Executor. An endpoint that refuses the request itself is an answer: exit code 1, its words in the log."""
        label = f"{VERSION} {work.payload.llm.model}"
        try:
            check_payload(work.payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
            body = request_body(work.payload)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, label)
        if work.payload.llm.model not in self._models:
            return failed(MODEL_NOT_FOUND, f"the host's endpoint has no model {work.payload.llm.model!r} now", label)
        try:
            async with asyncio.timeout(work.timeout_ms / 1000), self._slots:
                outcome = await self._ask(work, body, label)
        except TimeoutError:
            return failed("JobTimeout", timeout_detail(work.timeout_ms), label)
        if outcome.error in (UNAVAILABLE, MODEL_NOT_FOUND):
            self._look_again.set()
        return outcome

    async def _ask(self, work: Work, body: Mapping[str, Any], label: str) -> Outcome:
        """Again for an endpoint that is busy or older than what is asked of it."""
        waits = iter(BUSY_WAITS_S)
        while True:
            chat = Chat(work, label)
            outcome = await chat.ask(self._endpoint, body)
            if chat.dislikes_options and "stream_options" in body:
                body = {name: value for name, value in body.items() if name != "stream_options"}
            elif outcome.error == BUSY and (wait_s := next(waits, None)) is not None:
                await asyncio.sleep(wait_s)
            else:
                return outcome

    def _of_listed(self, listed: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        usable = tuple(sorted({model for model in listed if MODEL_NAME.fullmatch(model)})[:MODELS_MAX])
        if not self._wanted:
            return usable, [] if usable else [f"{self._endpoint.url} lists no model"]
        missing = [model for model in self._wanted if model not in listed]
        return tuple(model for model in self._wanted if model in listed), [
            f"{self._endpoint.url} has no model {model!r}" for model in missing
        ]

    async def _watch(self) -> None:
        while True:
            self._look_again.clear()
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S if self._models else RETRY_S):
                    await self._look_again.wait()


class Chat:
    """One request and what comes of it. Pieces come in the exchange's thread, one by one; the end comes in the loop."""

    def __init__(self, work: Work, label: str) -> None:
        self.capture = Capture(work.say)
        self.dislikes_options = False
        self._work, self._label = work, label
        self._stream = ChatStream()
        self._answer: Answer | None = None
        self._body = bytearray()
        self._output_bytes = self._thought_bytes = 0
        self._exchange: Exchange | None = None
        self._too_much = False

    async def ask(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Outcome:
        """Cancelling it closes the connection, which is how an endpoint learns that nobody waits any more."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def on_end(error: BaseException | None) -> None:
            def tell() -> None:
                if not ended.done():
                    ended.set_result(error)

            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell)

        exchange = Exchange(endpoint, "/chat/completions", body, self._work.timeout_ms / 1000 + 1)
        self._exchange = exchange
        exchange.start(self._on_head, self._on_piece, on_end)
        try:
            return self._outcome(await ended)
        finally:
            exchange.stop()

    # ---- in the exchange's thread

    def _on_head(self, answer: Answer) -> None:
        self._answer = answer

    def _on_piece(self, piece: bytes) -> None:
        assert self._answer is not None
        if self._answer.status != 200:
            self._body += piece[: ERROR_BYTES_MAX - len(self._body)]
        elif self._answer.media_type == "text/event-stream":
            self._take(self._stream.add(piece))
        else:
            self._body += piece
            if len(self._body) > DOCUMENT_BYTES_MAX:
                self._too_much = True
                raise BadAnswer(OUTPUT_DETAIL)

    def _take(self, said: Said) -> None:
        text, thought = said.text.encode(errors="replace"), said.thought.encode(errors="replace")
        if text and not self.capture.write_output(text):
            self._too_much = True
            raise BadAnswer(OUTPUT_DETAIL)
        self._output_bytes += len(text)
        self._thought_bytes += len(thought)
        if thought:
            self.capture.write_log(thought)
        if text:
            self._work.say(Progress(output=text))

    # ---- in the loop

    def _outcome(self, error: BaseException | None) -> Outcome:
        answer = self._answer
        if isinstance(error, Unreachable):
            return self._failed(UNAVAILABLE, f"the host's endpoint cannot be reached: {error}")
        if self._too_much:
            return self._failed("OutputTooLarge", OUTPUT_DETAIL)
        if answer is not None and answer.status != 200:
            return self._refused(answer.status)
        try:
            if error is not None or answer is None:
                raise error or BadAnswer("it never came")
            self._take(self._stream.close() if answer.media_type == "text/event-stream" else self._whole())
        except BadAnswer as bad:
            return self._failed(FAILED, f"the endpoint's answer cannot be used: {bad}")
        except OSError as broken:
            return self._failed(FAILED, f"the endpoint's answer broke off: {type(broken).__name__}")
        except Exception as broken:  # noqa: BLE001 - of http.client's many kinds
            return self._failed(FAILED, f"the endpoint's answer broke off: {type(broken).__name__}")
        if self._stream.finished not in ("", "stop"):
            self.capture.write_log(f"finish_reason: {self._stream.finished[:64]}\n".encode(errors="replace"))
        return replace(self.capture.ended(0, self._label), usage=Usage(used_tokens=self._used_tokens()))

    def _whole(self) -> Said:
        return self._stream.whole(bytes(self._body))

    def _used_tokens(self) -> int:
        """As the endpoint counts, else as everybody estimates. An endpoint is believed for what can be seen and, of an
        answer whose length the job has bounded, for as much of it as may have been thought unseen."""
        payload, counted = self._work.payload, self._stream.used_tokens
        messages = [message.content.encode(errors="replace") for message in payload.llm.messages]
        asked_bytes = sum(map(len, messages)) + len(payload.input)
        answer_max = max(payload.llm.max_tokens, self._output_bytes + self._thought_bytes)
        most = asked_bytes + answer_max + TEMPLATE_TOKENS_MAX + MESSAGE_TOKENS_MAX * (len(messages) + 1)
        return min(counted, most) if counted else estimate_tokens(asked_bytes + self._output_bytes)

    def _refused(self, status: int) -> Outcome:
        error = BY_STATUS.get(status) or (FAILED if status >= 500 or status < 400 else "")
        if error:
            return self._failed(error, f"the host's endpoint answered {status}")
        message = message_of(bytes(self._body))
        self.dislikes_options = status in (400, 422) and "stream_options" in message
        self.capture.write_log(f"the endpoint answered {status}: {message}\n".encode(errors="replace"))
        return self.capture.ended(1, self._label)

    def _failed(self, error: str, detail: str) -> Outcome:
        return self.capture.failed(error, detail, self._label)


def request_body(payload: jobs_pb2.JobPayload) -> dict[str, Any]:
    """What is asked of the endpoint. Raises InvalidRequest for an input that is no text."""
    task = payload.llm
    messages = [{"role": message.role, "content": message.content} for message in task.messages]
    if payload.input:
        try:
            messages.append({"role": "user", "content": payload.input.decode()})
        except UnicodeDecodeError as error:
            raise InvalidRequest.field("payload.input", f"is no UTF-8 text at byte {error.start}") from None
    body: dict[str, Any] = {"model": task.model, "messages": messages}
    if task.HasField("temperature"):
        body["temperature"] = task.temperature
    if task.max_tokens:
        body["max_tokens"] = task.max_tokens
    if task.HasField("seed"):
        body["seed"] = task.seed
    if task.stop:
        body["stop"] = list(task.stop)
    return body | {"stream": True, "stream_options": {"include_usage": True}}
