"""A call of one of the node's own handlers, awaited: in process, as this machine's owner."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.errors import Fault
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.router import Router
from offgrid_node.services.stream import Stream

M = TypeVar("M", bound=Message)


async def call(router: Router, method: str, request: Message, answer: type[M]) -> M:
    """The answer of "offgrid.v1.Service/Method"; raises the Fault that it ends with. Whoever stops waiting stops
    nothing."""
    outcome = router.dispatch(ADMIN, method, request)
    if isinstance(outcome, Ticket):
        outcome = await _ended(outcome)
    assert isinstance(outcome, answer)
    return outcome


def stream(router: Router, method: str, request: Message) -> Stream:
    """The stream that it answers with; `cancel` is due. Raises Fault."""
    outcome = router.dispatch(ADMIN, method, request)
    assert isinstance(outcome, Stream)
    return outcome


async def _ended(ticket: Ticket) -> Message:
    ended: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()
    ticket.when_done(lambda end: None if ended.done() else ended.set_result(end))
    end = await ended
    if isinstance(end, Fault):
        raise end
    return end
