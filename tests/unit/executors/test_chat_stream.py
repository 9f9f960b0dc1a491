"""ChatStream: an answer is the same however its bytes are cut; what is no answer is refused."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.executors.chat_stream import LINE_BYTES_MAX, BadAnswer, ChatStream, code_of, message_of


def event(**delta: str) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": None}], "usage": None}).encode() + b"\n\n"
    )


END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER = event(role="assistant", content="") + event(content="Grüße, ") + event(content="Welt") + END + USAGE + DONE


def read(*pieces: bytes) -> tuple[str, ChatStream]:
    stream = ChatStream()
    return "".join([stream.add(piece).text for piece in pieces] + [stream.close().text]), stream


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ANSWER)]
    text, stream = read(*(ANSWER[start:end] for start, end in itertools.pairwise(edges)))
    assert (text, stream.finished, stream.used_tokens) == ("Grüße, Welt", "stop", 12)


def test_carriage_returns_comments_and_other_fields_are_as_the_standard_has_them() -> None:
    answer = b": ping\r\n\r\nevent: message\r\nid: 1\r\n" + ANSWER.replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    assert read(answer)[0] == "Grüße, Welt"


def test_an_event_may_have_several_lines_of_data() -> None:
    assert read(b'data: {"choices": [{"delta":\ndata: {"content": "hi"}}]}\n\n' + DONE)[0] == "hi"


@pytest.mark.parametrize(
    "answer", [event(content="hi") + END, event(content="hi") + DONE, event(content="hi") + DONE[:-2]]
)
def test_an_end_is_either_word_for_it(answer: bytes) -> None:
    assert read(answer)[0] == "hi"


def test_nothing_after_the_end_counts() -> None:
    assert read(event(content="hi") + DONE + event(content="more"))[0] == "hi"


def test_thoughts_are_no_part_of_the_answer() -> None:
    stream = ChatStream()
    said = stream.add(event(reasoning="hm") + event(reasoning_content=" so") + event(content="yes"))
    assert (said.text, said.thought) == ("yes", "hm so")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "cut off"),
        (event(content="hi"), "cut off"),
        (b"data: {no json\n\n", "no JSON"),
        (b"data: [1, 2]\n\n", "no JSON object"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "no JSON"),
        (b'data: {"choices": 3}\n\n', "choices"),
        (b'data: {"choices": [3]}\n\n', "choices"),
        (b'data: {"error": {"message": "your secret words", "type": "server_error"}}\n\n', "an error: server_error"),
        (b'data: {"error": "your secret words"}\n\n', "an error"),
        (b"x" * (LINE_BYTES_MAX + 1), "longer than"),
        ((b"data: " + b"x" * 1000 + b"\n") * 2000, "longer than"),
    ],
)
def test_what_is_no_answer_says_why_and_repeats_nothing(answer: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why) as caught:
        read(answer)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "usage", ["3", '{"prompt_tokens": "x", "completion_tokens": -1}', '{"prompt_tokens": 1e99}', "{}"]
)
def test_nonsense_is_no_usage(usage: str) -> None:
    _, stream = read(b'data: {"choices": [], "usage": ' + usage.encode() + b"}\n\n" + DONE)
    assert stream.used_tokens == 0


def test_a_whole_document_is_an_answer_as_well() -> None:
    stream = ChatStream()
    said = stream.whole(b'{"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 3}}')
    assert (said.text, stream.finished, stream.used_tokens) == ("hi", "stop", 3)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    for attempt in (lambda: read(data), lambda: read(b"data: " + data + b"\n\n"), lambda: ChatStream().whole(data)):
        try:
            attempt()
        except BadAnswer:
            continue
    message_of(data)


def test_an_errors_code_is_one_word_or_not_said() -> None:
    assert code_of({"error": {"code": "model_not_found", "message": "x"}}) == ": model_not_found"
    assert code_of({"error": {"code": 404, "type": "not-found"}}) == ": not-found"
    assert code_of({"error": {"code": "you said: hello"}}) == ""
    assert code_of([]) == ""
