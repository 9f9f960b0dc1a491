"""What takes several waits, written as one function: a generator that yields what it waits for.

A step starts something and calls back once, with a value or a Fault; the generator is resumed with the value, or the
Fault is raised in it. There is no event loop in this: the daemon, the simulator and tests run the same flows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.runtime import Ticket

T = TypeVar("T")
Step: TypeAlias = "Callable[[Callable[[T | Fault], None]], None]"
Flow: TypeAlias = "Generator[Step[Any], Any, T]"
Later = Callable[[int, Callable[[], None]], None]
"""Calls it in the runtime's thread, so many milliseconds later; may itself be called in any thread."""

_WAITING = object()
_log = logging.getLogger(__name__)


def run(flow: Flow[T], done: Callable[[T | Fault], None]) -> None:
    """Runs it to its first wait, and on from there as steps end; `done` is called once, with what it returns."""
    _Running(flow, done).advance(None)


class _Running:
    """Nothing in it refers back to it: what a flow held, and what came of it, goes when nobody holds it any more, not
    when the collector of cycles comes by."""

    __slots__ = ("_done", "_flow")

    def __init__(self, flow: Flow[Any], done: Callable[[Any], None]) -> None:
        self._flow, self._done = flow, done

    def advance(self, value: Any) -> None:
        flow = self._flow
        while True:
            try:
                step = flow.throw(value) if isinstance(value, Fault) else flow.send(value)
            except StopIteration as stopped:
                self._done(stopped.value)
                return
            except Fault as fault:
                self._done(fault.bare())
                return
            except Exception as error:  # noqa: BLE001 - whoever waits for the end must be told
                _log.exception("a flow failed", extra=fields("flow_failed"))
                self._done(Internal(f"a defect of this node: {type(error).__name__}: {error}", reason="FlowFailed"))
                return
            value = self._begin(step)
            if value is _WAITING:
                return

    def _begin(self, step: Step[Any]) -> Any:
        """The step's value where it is there at once: steps that end at once must not deepen the stack."""
        held: list[Any] = []
        waiting = False

        def ended(value: Any) -> None:
            if waiting:
                self.advance(value)
            else:
                held.append(value)

        step(ended)
        waiting = True
        return held[0] if held else _WAITING


def ticket_of(flow: Flow[Message]) -> Ticket:
    """The flow's end as a handler answers it."""
    ticket = Ticket()
    run(flow, ticket.resolve)
    return ticket


def asked(ticket: Ticket) -> Step[Message]:
    """Waits for what the runtime answers."""
    return ticket.when_done


def together(steps: Sequence[Step[T]]) -> Step[list[T | Fault]]:
    """Begins all at once and waits for all; faults are among the values, in the places of their steps."""

    def start(done: Callable[[list[T | Fault] | Fault], None]) -> None:
        ends: dict[int, T | Fault] = {}

        def ended(index: int, value: T | Fault) -> None:
            ends[index] = value
            if len(ends) == len(steps):
                done([ends[i] for i in range(len(steps))])

        if not steps:
            done([])
        for index, step in enumerate(steps):
            step(lambda value, index=index: ended(index, value))  # type: ignore[misc]  # index is bound, not asked

    return start


def settled(flow: Flow[T]) -> Step[T]:
    """A whole flow as one step of another."""
    return lambda done: run(flow, done)
