"""Reads the answer of an OpenAI-compatible chat endpoint, as it comes: server-sent events, or one JSON document.

Bytes in, text out; no socket here. The forms are those of OpenAI's API reference ("Create chat completion", streaming),
as Ollama, llama.cpp's server and vLLM speak it, and of the HTML standard's event streams.
"""

from __future__ import annotations

import json

import msgspec

LINE_BYTES_MAX = 1024 * 1024  # an event is one line; a token's is a few hundred bytes
DONE = b"[DONE]"
TOKENS_MAX = 2**31  # of one answer; more is no usage but nonsense


class BadAnswer(Exception):
    """The endpoint does not speak the protocol, or its answer was cut off; the message says where. It repeats nothing
    of the conversation."""


class Said(msgspec.Struct):
    """What some bytes brought: text of the answer, and thoughts that are not part of it."""

    text: str = ""
    thought: str = ""


class ChatStream:
    """One answer. `finished` once it said that it is at its end, `used_tokens` when it told them, else 0."""

    def __init__(self) -> None:
        self.finished = ""
        self.used_tokens = 0
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._done = False

    def add(self, data: bytes) -> Said:
        """Some bytes of an event stream, cut anywhere. Raises BadAnswer."""
        said = Said()
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        if len(rest) > LINE_BYTES_MAX:
            raise BadAnswer(f"a line is longer than {LINE_BYTES_MAX} bytes")
        for line in lines:
            self._take_line(bytes(line.removesuffix(b"\r")), said)
        return said

    def close(self) -> Said:
        """The connection has ended. Raises BadAnswer unless the answer has."""
        said = self.add(b"\n\n")
        if not (self._done or self.finished):
            raise BadAnswer("it was cut off before its end")
        return said

    def whole(self, document: bytes) -> Said:
        """The answer of an endpoint that does not stream: one document. Raises BadAnswer."""
        said = Said()
        self._take_chunk(document, said, "message")
        self.finished = self.finished or "stop"
        return said

    def _take_line(self, line: bytes, said: Said) -> None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":  # comments, ids and event names say nothing here
                self._data.append(value.removeprefix(b" "))
                self._data_bytes += len(value)
                if self._data_bytes > LINE_BYTES_MAX:
                    raise BadAnswer(f"an event is longer than {LINE_BYTES_MAX} bytes")
            return
        data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
        if not data or self._done:
            return
        if data.strip() == DONE:
            self._done = True
        else:
            self._take_chunk(data, said, "delta")

    def _take_chunk(self, data: bytes, said: Said, part: str) -> None:
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise BadAnswer("a part of it is no JSON") from None
        if not isinstance(chunk, dict):
            raise BadAnswer("a part of it is no JSON object")
        if chunk.get("error"):
            raise BadAnswer(f"it broke off with an error{code_of(chunk)}")
        self._take_usage(chunk.get("usage"))
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise BadAnswer("its choices are no list of objects")
        for choice in choices[:1]:  # one was asked for
            delta = choice.get(part)
            if isinstance(delta, dict):
                said.text += _text(delta.get("content"))
                said.thought += _text(delta.get("reasoning_content") or delta.get("reasoning"))
            self.finished = self.finished or _text(choice.get("finish_reason"))

    def _take_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            parts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            numbers = [number for number in parts if type(number) is int and 0 <= number < TOKENS_MAX]
            self.used_tokens = sum(numbers) or self.used_tokens


def code_of(document: object) -> str:
    """`: model_not_found` from an error's document: its code or type, where that is one word; a message may repeat what
    was asked, and an error is written to disks in clear."""
    error = document.get("error") if isinstance(document, dict) else None
    for name in ("code", "type"):
        word = error.get(name) if isinstance(error, dict) else None
        if (
            isinstance(word, str)
            and len(word) <= 64
            and word.replace("_", "").replace("-", "").isalnum()
            and word.isascii()
        ):
            return f": {word}"
    return ""


def message_of(body: bytes) -> str:
    """The whole message of an error's document, or the body itself: for the job's own log."""
    try:
        document = json.loads(body)
        error = document["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
