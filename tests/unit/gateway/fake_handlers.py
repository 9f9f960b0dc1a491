"""A router over handlers that a test chooses: the real table of methods, and nothing behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

from google.protobuf.message import Message

from offgrid_node.services.caller import Caller
from offgrid_node.services.router import METHODS, Outcome, Router, snake

Answer = Callable[[Message], Outcome]


def router_of(answers: Mapping[str, Answer]) -> Router:
    """`answers` are by "Service/Method", and looked up at each call; the others answer with an empty message."""
    services: dict[str, SimpleNamespace] = {}
    for name in METHODS:
        service, _, rpc = name.partition("/")
        setattr(services.setdefault(service, SimpleNamespace()), snake(rpc), _handler(name, answers))
    return Router(services)


def _handler(name: str, answers: Mapping[str, Answer]) -> Callable[[Caller, Message], Outcome]:
    def handle(caller: Caller, request: Message) -> Outcome:
        answer = answers.get(name.removeprefix("offgrid.v1."))
        return answer(request) if answer else METHODS[name].response()

    return handle
