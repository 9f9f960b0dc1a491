"""Answers requests that came by mail: opened, handled as if their source had called, the answer sealed for it.

The handler gets the number as the request's id, by which it tells what one source asks apart. So a request that is
handled again, since this node has gone down between its handling and its answer, finds what came of it the first time:
only methods of which that is so may be called by mail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.protocol.mail.errands import Serve, Served
from offgrid_node.protocol.mail.parcels import ParcelHead, letter_context
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.jobs.results import Letters
from offgrid_node.services.mail.handlers import TAKE_JOB, TAKE_MESSAGE, opened
from offgrid_node.services.packet_methods import METHOD_NAMES
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.router import Router

MAILABLE: Mapping[str, type[mail_pb2.TakeMessageRequest | mail_pb2.TakeJobRequest]] = {
    TAKE_MESSAGE: mail_pb2.TakeMessageRequest,
    TAKE_JOB: mail_pb2.TakeJobRequest,
}
RESPONSE_BYTES_MAX = 240 * 1024  # so that an answer fits into a parcel

Key = tuple[str, int]  # source, number


class Serving:
    """Carries out Serve. Belongs to the runtime's thread."""

    def __init__(
        self,
        letters: Letters,
        directory: Callable[[], Directory],
        member: Callable[[str], Caller | None],
        router: Callable[[], Router],
        deliver: Callable[[Served], None],
    ) -> None:
        """`deliver` is called once for each that is begun."""
        self._letters, self._directory, self._member = letters, directory, member
        self._router, self._deliver = router, deliver
        self._begun: set[Key] = set()  # by machines of before too, who are not there to hear of it

    def serve(self, work: Serve) -> None:
        key = work.source, work.number
        if key in self._begun:
            return
        self._begun.add(key)
        try:
            outcome = self._handle(work)
        except Fault as fault:
            self._end(work, fault)
            return
        if isinstance(outcome, Ticket):
            outcome.when_done(lambda end: self._end(work, end))
        else:
            self._end(work, outcome)

    def _handle(self, work: Serve) -> Message | Ticket:
        """Raises Fault."""
        if work.late:
            text = "its time was over before it was answered, by the clock of the node that it was for"
            raise FailedPrecondition(text, reason="ParcelExpired")
        head = ParcelHead.decode(work.parcel.head.body)
        content = opened(self._letters, head, work.parcel.sealed)
        if content is None:
            raise PermissionDenied("it was sealed for another key than this node's", reason="NotForUs")
        method = METHOD_NAMES.get(content.request.method, "")
        if method not in MAILABLE:
            text = f"{method or 'an unknown method'} is not answered by mail; allowed: {', '.join(MAILABLE)}"
            raise PermissionDenied(text, reason="NotByMail")
        caller = self._member(work.source)
        if caller is None:
            raise NotFound(f"{work.source} is no member of this mesh", reason="NotAMember")
        try:
            request = MAILABLE[method].FromString(content.request.body)
        except DecodeError as error:
            raise InvalidRequest(f"{method}: the request is none", reason="MalformedRequest") from error
        request.request_id = str(work.number)
        outcome = self._router().dispatch(caller, method, request)
        if not isinstance(outcome, Ticket | Message):
            raise Internal(f"{method} is a stream")
        return outcome

    def _end(self, work: Serve, outcome: Message | Fault) -> None:
        self._begun.discard((work.source, work.number))
        again = isinstance(outcome, Unavailable | OutcomeUnknown | Exhausted)
        self._deliver(Served(work.source, work.number, None if again else self._sealed(work, outcome)))

    def _sealed(self, work: Serve, outcome: Message | Fault) -> bytes | None:
        """None while this node is loading what it knows."""
        answer = mail_pb2.MailedAnswer(number=work.number)
        if isinstance(outcome, Message) and outcome.ByteSize() > RESPONSE_BYTES_MAX:
            text = f"it was done, and its answer has {outcome.ByteSize()} bytes; {RESPONSE_BYTES_MAX} go by mail"
            outcome = FailedPrecondition(text, reason="AnswerTooLarge")
        if isinstance(outcome, Fault):
            answer.fault = fault_to_bytes(outcome)
        else:
            answer.response = outcome.SerializeToString(deterministic=True)
        content = mail_pb2.MailContent(answer=answer).SerializeToString(deterministic=True)
        try:
            directory = self._directory()
            key = directory.current_key(work.source)
            own = ParcelHead.decode(work.parcel.head.body).destination
            return self._letters.seal(key or b"", letter_context(own, work.source), content)
        except Fault:
            return None
